"""All that the site is made of beside the files of docs/: its generated pages, navigation, pictures and links."""

from __future__ import annotations

import re
from functools import cache
from pathlib import Path
from shutil import copyfile
from typing import Any

import notebook_pages
import room_pages
import settings_pages
import verb_pages

ROOT = Path(__file__).parents[2]


@cache
def generated() -> dict[str, str]:
    """Path of every page that is not a file in docs/ -> its Markdown."""
    pages = {"changelog.md": (ROOT / "CHANGELOG.md").read_text()}
    pages["configuration/index.md"] = settings_pages.index(runnable_files())
    pages |= {f"configuration/{name}.md": settings_pages.page(name) for name in settings_pages.sections()}
    pages["command/index.md"] = verb_pages.index()
    pages |= {f"command/{verb}.md": verb_pages.page(verb) for verb in verb_pages.verbs()}
    rooms = room_pages.rooms(ROOT)
    pages["python/index.md"] = room_pages.index(rooms)
    pages |= {f"python/{room.page}": room_pages.page(room) for room in rooms}
    pages |= {f"{path.stem}.md": notebook_pages.page(path) for path in sorted((ROOT / "docs").glob("*.ipynb"))}
    return pages


def runnable_files() -> dict[str, str]:
    """configs/, smallest first."""
    files = sorted((ROOT / "configs").glob("*.yaml"), key=lambda path: path.stat().st_size)
    return {path.name: path.read_text() for path in [*files, ROOT / "configs" / "slurm.sh"]}


def navigation(nav: list[Any], pages: dict[str, str]) -> list[Any]:
    """The same with `FOLDER/` replaced by the generated pages of that folder, its index first, and `*.ipynb` by those
    of notebooks.

    Args:
        nav: as mkdocs.yml has it.
        pages: as `generated` makes them.
    """
    return [
        {title: _listed(place, pages) if isinstance(place, str) else navigation(place, pages)}
        for item in nav
        for title, place in item.items()
    ]


def _listed(place: str, pages: dict[str, str]) -> Any:
    if place == "*.ipynb":
        return [name for name in pages if (ROOT / "docs" / name).with_suffix(".ipynb").is_file()]
    if not place.endswith("/"):
        return place
    inside = [path.removeprefix(place) for path in pages if path.startswith(place)]
    listed: list[Any] = []
    for path in inside:
        folder, _, name = path.rpartition("/")
        if name == "index.md" and folder and "/" not in folder:
            listed.append({folder: _listed(f"{place}{folder}/", pages)})
        elif not folder:
            listed.append(f"{place}{path}" if path == "index.md" else {path.removesuffix(".md"): f"{place}{path}"})
    return listed


def copy_package(place: Path) -> None:
    """Copy the modules of all rooms into `place` as they are imported: readers of source follow neither the
    installation's mapping of names nor links."""
    for room in room_pages.folders(ROOT):
        target = place.joinpath(*room.package.split("."))
        target.mkdir(parents=True, exist_ok=True)
        for path in room.folder.glob("*.py"):
            copyfile(path, target / path.name)


def with_links(markdown: str) -> str:
    """Links that lead out of docs/ on a disk, as links within the site."""
    markdown = re.sub(r"\]\(\.\./configs/([\w.]+)\)", _file_link, markdown)
    markdown = markdown.replace("](../CHANGELOG.md)", "](changelog.md)").replace("](../README.md)", "](index.md)")
    return re.sub(r"\]\((\w+)\.ipynb\)", r"](\1.md)", markdown)


def _file_link(match: re.Match[str]) -> str:
    return f"](configuration/index.md#{re.sub('[^a-z0-9_]+', '-', match[1].lower())})"


def with_pictures(markdown: str, docs: Path) -> str:
    """`![words](x.svg)` as the drawing itself, so that its colours follow those of the page."""

    def drawn(match: re.Match[str]) -> str:
        svg = (docs / match[2]).read_text()
        return f'<figure class="drawing" data-search-exclude aria-label="{match[1]}">\n{svg.strip()}\n</figure>'

    return re.sub(r"^!\[([^\]]*)\]\(([\w/]+\.svg)\)$", drawn, markdown, flags=re.MULTILINE)


def loaded_from_elsewhere(html: str) -> list[str]:
    """Addresses that a browser would fetch when it shows the page; links to follow are none."""
    address = r"[\"']?((?:https?:)?//[^\"'\s>]+)"
    shown = rf"<(?:script|img|iframe|source|video|audio)\b[^>]*?\bsrc={address}"
    linked = rf"<link\b(?=[^>]*\brel=[\"']?(?:stylesheet|preload|preconnect|icon))[^>]*?\bhref={address}"
    return [*re.findall(shown, html), *re.findall(linked, html)]
