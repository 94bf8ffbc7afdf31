// Words for the cells of every .heat: by pointer, by touch, by arrow keys. A table is one stop of the tab key.
"use strict";
{
  const box = document.querySelector("aside.told");
  const say = (cell) => {
    const row = cell.parentElement, table = row.closest("table");
    const column = table.tHead.rows[0].cells[cell.cellIndex];
    const place = `${table.parentElement.getAttribute("aria-label")}: ${row.cells[0].textContent.trim()}, ${column.textContent.trim()}`;
    box.firstElementChild.textContent = cell.dataset.words || `${place}: ${cell.textContent.trim()} %`;
    box.hidden = false;
  };
  const close = () => { box.hidden = true; };
  const cellsOf = (row) => [...row.cells].slice(1);
  for (const table of document.querySelectorAll(".heat")) {
    const rows = [...table.tBodies[0].rows];
    table.setAttribute("role", "grid");
    for (const row of rows) for (const cell of cellsOf(row)) {
      cell.dataset.words = cell.title;
      cell.removeAttribute("title");
      cell.tabIndex = -1;
      cell.setAttribute("role", "gridcell");
      if (cell.dataset.words) cell.setAttribute("aria-label", `${cell.textContent.trim()} %: ${cell.dataset.words}`);
    }
    let stop = cellsOf(rows[0])[0];
    stop.tabIndex = 0;
    table.addEventListener("focusin", (event) => {
      const cell = event.target.closest("td");
      if (!cell) return;
      stop.tabIndex = -1;
      stop = cell;
      stop.tabIndex = 0;
      say(cell);
    });
    table.addEventListener("focusout", close);
    table.addEventListener("pointerover", (event) => {
      const cell = event.target.closest("td");
      if (cell && event.pointerType === "mouse") say(cell);
    });
    table.addEventListener("pointerleave", (event) => { if (event.pointerType === "mouse") close(); });
    table.addEventListener("click", (event) => event.target.closest("td")?.focus());
    table.addEventListener("keydown", (event) => {
      const cell = event.target.closest("td");
      if (!cell) return;
      if (event.key === "Escape") return close();
      const row = cell.parentElement, last = cellsOf(row).length;
      const at = { row: rows.indexOf(row), column: cell.cellIndex };
      const to = {
        ArrowUp: [at.row - 1, at.column], ArrowDown: [at.row + 1, at.column],
        ArrowLeft: [at.row, at.column - 1], ArrowRight: [at.row, at.column + 1],
        Home: [at.row, 1], End: [at.row, last],
      }[event.key];
      if (!to) return;
      event.preventDefault();
      if (rows[to[0]] && to[1] >= 1 && to[1] <= last) rows[to[0]].cells[to[1]].focus();
    });
  }
}
