"""Notebooks as pages: their words, code and what was printed, without running anything."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any


def page(path: Path) -> str:
    """A notebook in Markdown; pictures among its outputs stay in it as data."""
    cells = json.loads(path.read_text())["cells"]
    parts = [_cell(cell) for cell in cells]
    first, *rest = [part for part in parts if part]
    note = f"*This page is the notebook `docs/{path.name}`.*"
    title, _, below = first.partition("\n")
    return "\n\n".join([title, note, below.strip(), *rest]) + "\n"


def _cell(cell: dict[str, Any]) -> str:
    text = "".join(cell["source"]).strip()
    if cell["cell_type"] != "code":
        return text
    shown = [_output(output) for output in cell["outputs"]]
    return "\n\n".join([_block("python", text), *filter(None, shown)]) if text else ""


def _output(output: dict[str, Any]) -> str:
    if output["output_type"] == "stream":
        return _block("text", "".join(output["text"]).rstrip())
    data = output.get("data", {})
    if "image/png" in data:
        return f"![](data:image/png;base64,{''.join(data['image/png']).replace(chr(10), '')})"
    return _block("text", "".join(data["text/plain"])) if "text/plain" in data else ""


def _block(language: str, text: str) -> str:
    return f"````{language}\n{text}\n````"
