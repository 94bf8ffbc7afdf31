"""The page in a real browser: headless Chromium, without a network."""

from __future__ import annotations

import html
import json
import os
import re
import shutil
import subprocess

import numpy as np
import pytest
from PIL import Image
from synthetic_scores import full_scores

from weatherfm.earth.grid import regular_grid
from weatherfm.evaluation.figures.maps.case import Case
from weatherfm.evaluation.figures.maps.film import animation
from weatherfm.evaluation.figures.maps.map_groups import map_group
from weatherfm.evaluation.figures.plots import draw
from weatherfm.evaluation.report.case_studies import CaseRow, CaseStudy
from weatherfm.evaluation.report.page import page_context, render
from weatherfm.evaluation.report.sections import curve_groups, ensemble_groups, spectra_groups

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="no Chromium here: the page is not looked at in a browser")
SECTIONS = ["figures", "card", "groups", "curves", "ensemble", "spectra", "maps", "cases", "provenance", "method"]
REGIONS = (
    "global", "northern_extratropics", "southern_extratropics", "tropics", "global_land", "global_sea", "europe",
    "north_america", "north_atlantic", "north_pacific", "east_asia", "ausnz", "arctic", "antarctic",
)  # fmt: skip
PROBE = """
<script>
addEventListener("load", () => {
  const images = [...document.images];
  const button = document.querySelector(".film button"), slider = document.querySelector(".film input");
  const frames = [...document.querySelectorAll(".film .frame")];
  const shown = () => frames.filter((f) => f.offsetHeight > 0).map((f) => f.dataset.label);
  const first = shown();
  slider.value = 1;
  slider.dispatchEvent(new Event("input"));
  const second = shown();
  button.click();
  const playing = button.textContent;
  button.click();
  const told = document.querySelector("aside.told"), cells = [...document.querySelectorAll(".heat td")];
  const press = (key) => document.activeElement.dispatchEvent(new KeyboardEvent("keydown", { key, bubbles: true }));
  const words = [];
  const note = () => words.push(told.hidden ? null : told.textContent.trim());
  cells[0].focus(); note();
  press("ArrowRight"); note();
  press("ArrowDown"); note();
  press("Escape"); note();
  cells[cells.length - 1].click(); note();
  document.activeElement.blur(); note();
  for (const one of document.querySelectorAll("details")) one.open = true;
  const result = {
    words, stops: document.querySelectorAll('.heat td[tabindex="0"]').length,
    tables: document.querySelectorAll(".heat").length, titles: document.querySelectorAll(".heat [title]").length,
    cut: [...document.querySelectorAll(".scroll")].filter((box) => box.scrollWidth > box.clientWidth + 1)
      .map((box) => box.getAttribute("aria-label")),
    images: images.length, broken: images.filter((i) => !i.naturalWidth).map((i) => i.alt),
    width: document.documentElement.scrollWidth, window: innerWidth, first, second, playing,
    stopped: button.textContent, hidden_button: button.hidden,
    background: getComputedStyle(document.body).backgroundColor,
    small: [...document.querySelectorAll(".film button, .film input")].filter((b) => b.offsetHeight < 44).length,
  };
  const out = document.createElement("pre");
  out.id = "probe";
  out.textContent = JSON.stringify(result);
  document.body.append(out);
  if (parent !== window) parent.postMessage(out.textContent, "*");
});
</script>
"""
LISTENER = (
    '<script>addEventListener("message", (m) => { const out = document.createElement("pre"); out.id = "probe"; '
    "out.textContent = m.data; document.body.append(out); });</script>"
)


@pytest.fixture(scope="module")
def page(tmp_path_factory):
    """A page with every section: two models, one of them an ensemble, made-up fields on the maps."""
    scores = full_scores(leads=(24, 72, 240), channels=("z500", "t2m", "u10", "v10"), regions=("global", "tropics"))
    channels = ["z500", "t2m"]
    cases = [made_up_case(lead) for lead in (24, 72)]
    row = CaseRow("z500", "24 h", "2018-10-13 00 UTC", "120", "100", "1.20 ×", "3.00", "−800", "52.5° N 5° E", "m² s⁻²")
    context = page_context(scores, channels, "Forecast report") | {
        "curves": draw(curve_groups(scores, channels[:1]), "curves"),
        "ensemble": draw(ensemble_groups(scores, channels[:1]), "ensemble"),
        "spectra": draw(spectra_groups(scores, channels[:1]), "spectra"),
        "maps": [map_group(cases[0])],
        "animation": animation(cases),
        "cases": [CaseStudy("case-2018-10-12T00", "Forecast from 2018-10-12 00 UTC", (row,), (), None)],
    }
    path = tmp_path_factory.mktemp("browser") / "page.html"
    path.write_text(render(context).replace("</body>", PROBE + "</body>"), encoding="utf-8")
    return path


def made_up_case(lead: int) -> Case:
    grid = regular_grid((32, 64))
    wave = np.sin(np.deg2rad(3 * grid.longitude)) * np.cos(np.deg2rad(grid.latitude))[:, None] ** 2
    truth = 54000 + 2000 * wave
    return Case("z500", grid, np.datetime64("2018-10-12T00", "s"), lead, truth + 10 * lead * wave, truth, "vit")


def look(page, *arguments: str, width: int = 1280, height: int = 900) -> tuple[str, str]:
    """(standard output, console lines) of one visit."""
    command = [
        CHROMIUM, "--headless=new", "--no-sandbox", "--disable-gpu", "--hide-scrollbars", "--enable-logging=stderr",
        "--virtual-time-budget=2000", f"--window-size={width},{height}", f"--user-data-dir={page.parent / 'profile'}",
        *arguments, page.as_uri(),
    ]  # fmt: skip
    done = subprocess.run(
        command, capture_output=True, text=True, timeout=240, env=os.environ | {"HOME": str(page.parent)}
    )
    assert done.returncode == 0, done.stderr[-2000:]
    return done.stdout, "\n".join(line for line in done.stderr.splitlines() if "CONSOLE" in line)


def probe(page, *arguments: str, **size: int) -> dict:
    dom, console = look(page, "--dump-dom", *arguments, **size)
    assert console == ""
    found = re.search(r'<pre id="probe">(.*?)</pre>', dom, re.DOTALL)
    return json.loads(html.unescape(found.group(1))) | {"dom": dom}


@pytest.fixture(scope="module")
def crowded(tmp_path_factory):
    """Six models in all fourteen regions, as a file of the simulated planet has them."""
    scores = full_scores({f"m{i}": 1 + 7 * (i > 3) for i in range(6)}, leads=(24, 240), channels=("z500", "t2m", "u10"),
                         regions=REGIONS, ridge=True, means=True)  # fmt: skip
    path = tmp_path_factory.mktemp("crowded") / "page.html"
    film = '<div class="film"><button></button><input><div class="frame"></div></div>'  # that the probe looks for
    text = render(page_context(scores, ["z500", "t2m", "u10"], "Forecast report"))
    path.write_text(text.replace("</body>", film + PROBE + "</body>"), encoding="utf-8")
    return path


@pytest.fixture(scope="module")
def desktop(page):
    return probe(page)


def test_no_console_messages_and_every_section(desktop):
    ids = re.findall(r'<section id="([^"]+)"', desktop["dom"])
    assert [name for name in ids if not name.startswith("case-")] == SECTIONS


def test_console_messages_are_seen(page, tmp_path):
    """The check above would notice an error."""
    broken = tmp_path / "broken.html"
    broken.write_text("<script>nothing.here()</script>")
    assert "nothing is not defined" in look(broken, "--dump-dom")[1]


def test_every_picture_loads(desktop):
    assert desktop["images"] > 20
    assert desktop["broken"] == []


def test_cells_say_what_they_are_to_keys_and_touch(desktop):
    first, right, below, escaped, tapped, left = desktop["words"]
    assert first.startswith("z500 at 1 d: RMSE ")
    assert " persistence" in first
    assert right.startswith("z500 at 3 d: RMSE ")
    assert below.startswith("t2m at 3 d: RMSE ")
    assert tapped.startswith("t2m at 240 h, SON, ")  # the last cell of the last table
    assert (escaped, left) == (None, None)
    assert (desktop["stops"], desktop["titles"]) == (desktop["tables"], 0)  # one stop of the tab key a table


def test_nothing_is_cut_off_at_1280(crowded):
    found = probe(crowded)
    assert found["cut"] == []
    assert found["width"] <= 1280


def test_paper_holds_all_of_a_wide_page(crowded, tmp_path):
    """As wide as A4 between its margins, with the styles of print: nothing is wider, and no box can scroll there."""
    narrow = tmp_path / "narrow.html"
    text = crowded.read_text(encoding="utf-8").replace("@media print {", "@media all {").replace("screen and", "tv and")
    inner = text.replace('document.querySelectorAll(".scroll")', 'document.querySelectorAll(".figures, .heat")')
    inner = inner.replace("box.scrollWidth > box.clientWidth + 1", "box.getBoundingClientRect().right > innerWidth")
    (tmp_path / "inner.html").write_text(inner.replace('box.getAttribute("aria-label")', "box.textContent"))
    narrow.write_text(
        f'{LISTENER}<iframe src="{(tmp_path / "inner.html").as_uri()}" width="718" height="900"></iframe>'
    )
    found = probe(narrow)
    assert (found["window"], found["cut"]) == (718, [])
    assert found["width"] <= 718


def test_film(desktop):
    assert desktop["first"] == ["24 h, valid 2018-10-13 00 UTC"]
    assert desktop["second"] == ["72 h, valid 2018-10-15 00 UTC"]
    assert (desktop["playing"], desktop["stopped"]) == ("Pause", "Play")
    assert (desktop["hidden_button"], desktop["small"]) == (False, 0)  # targets of 44 pixels suit a thumb


def test_nothing_moves_where_motion_is_unwanted(page):
    assert probe(page, "--force-prefers-reduced-motion")["hidden_button"]


@pytest.mark.parametrize("extra", ["", '<div style="width:700px">wide</div>'], ids=["page", "too-wide"])
def test_no_sideways_scrolling_on_a_phone(page, tmp_path, extra):
    """A window is at least 500 wide, so the page stands in a frame of 360, which hears what the probe says."""
    inner, outer = tmp_path / "inner.html", tmp_path / "outer.html"
    inner.write_text(page.read_text(encoding="utf-8").replace("</main>", f"{extra}</main>"), encoding="utf-8")
    outer.write_text(f'{LISTENER}<iframe src="{inner.as_uri()}" width="360" height="800"></iframe>')
    found = probe(outer)
    assert found["window"] == 360
    assert (found["width"] > 360) == bool(extra)


def test_dark_mode(page, desktop):
    dark = probe(page, "--force-dark-mode", "--blink-settings=preferredColorScheme=0")
    lightness = [sum(map(int, re.findall(r"\d+", found["background"])[:3])) / 3 for found in (dark, desktop)]
    assert lightness[0] < 60 < 200 < lightness[1]


def test_print(page, tmp_path):
    out = tmp_path / "page.pdf"
    look(page, f"--print-to-pdf={out}", "--no-pdf-header-footer")
    assert out.read_bytes().startswith(b"%PDF")
    assert out.stat().st_size > 50_000


def test_paper_shows_the_first_frame_of_a_film(page, tmp_path):
    """And maps side by side, as on a wide screen."""
    inner, outer = tmp_path / "inner.html", tmp_path / "outer.html"
    text = (
        page.read_text(encoding="utf-8").replace("@media print {", "@media all {").replace("@media screen", "@media tv")
    )
    inner.write_text(text.replace("const first = shown();", "const first = shown(), panels = document.querySelector"
                                  "('figure .panels').children;").replace("small: [", "side: panels[0].offsetTop === "
                                  "panels[1].offsetTop, small: ["), encoding="utf-8")  # fmt: skip
    outer.write_text(f'{LISTENER}<iframe src="{inner.as_uri()}" width="718" height="900"></iframe>')
    found = probe(outer)
    assert found["first"] == ["24 h, valid 2018-10-13 00 UTC"]
    assert found["side"]


def test_screenshot_shows_the_colours_of_the_score_card(page, tmp_path):
    out = tmp_path / "page.png"
    look(page, f"--screenshot={out}", height=2500)
    colours = np.asarray(Image.open(out).convert("HSV"))
    assert (colours[..., 1] > 120).mean() > 0.005


def test_a_full_page_stays_small(page):
    assert page.stat().st_size < 8e6
