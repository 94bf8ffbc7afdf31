"""What mkdocs does beside turning Markdown into pages: writes the generated ones, draws pictures into their pages, and
refuses a site that would load anything from the network."""

from __future__ import annotations

import re
import tempfile
from pathlib import Path
from shutil import copyfile
from typing import Any

import notebook_pages
import room_pages
import settings_pages
import verb_pages
from mkdocs.config.defaults import MkDocsConfig
from mkdocs.exceptions import PluginError
from mkdocs.plugins import event_priority
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

ROOT = Path(__file__).parents[2]
_copies: list[tempfile.TemporaryDirectory[str]] = []
"""Removed when the build ends."""


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
    """The same with `FOLDER/` replaced by the generated pages of that folder, its index first.

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
    if not place.endswith("/"):
        return place
    inside = [path.removeprefix(place) for path in pages if path.startswith(place)]
    listed: list[Any] = []
    for path in inside:
        folder, _, name = path.rpartition("/")
        if folder and name == "index.md":
            listed.append({folder: _listed(f"{place}{folder}/", pages)})
        elif not folder:
            listed.append(f"{place}{path}" if path == "index.md" else {path.removesuffix(".md"): f"{place}{path}"})
    return listed


@event_priority(100)  # before mkdocstrings, which copies its settings
def on_config(config: MkDocsConfig) -> MkDocsConfig:
    """Complete the navigation; show readers of source the package as it installs."""
    assert config.nav is not None
    config.nav = navigation(config.nav, generated())
    folder = tempfile.TemporaryDirectory(prefix="weatherfm-docs-")
    _copies.append(folder)
    copy_package(Path(folder.name))
    config.plugins["mkdocstrings"].config.handlers["python"]["paths"] = [folder.name]
    return config


def copy_package(place: Path) -> None:
    """Copy the modules of all rooms into `place` as they are imported: readers of source follow neither the
    installation's mapping of names nor links."""
    for room in room_pages.folders(ROOT):
        target = place.joinpath(*room.package.split("."))
        target.mkdir(parents=True, exist_ok=True)
        for path in room.folder.glob("*.py"):
            copyfile(path, target / path.name)


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the pages that are made here."""
    for path, text in generated().items():
        files.append(File.generated(config, path, content=text))
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Lead links out of docs/ to pages of the site, and put drawn pictures into the page itself."""
    return with_pictures(with_links(markdown), Path(config.docs_dir))


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
        return f'<figure class="drawn" role="img" aria-label="{match[1]}">\n{svg.strip()}\n</figure>'

    return re.sub(r"^!\[([^\]]*)\]\(([\w/]+\.svg)\)$", drawn, markdown, flags=re.MULTILINE)


def on_post_page(output: str, page: Page, config: MkDocsConfig) -> str:
    """Refuse a page that would load something from elsewhere.

    Raises:
        PluginError: it would.
    """
    if found := loaded_from_elsewhere(output):
        raise PluginError(f"{page.file.src_uri} loads {', '.join(found)} from the network; keep it in docs/")
    return output


def loaded_from_elsewhere(html: str) -> list[str]:
    """Addresses that a browser would fetch when it shows the page; links to follow are none."""
    loading = r"<(?:script|img|iframe|source|video|audio)\b[^>]*?\bsrc=[\"']?((?:https?:)?//[^\"'\s>]+)"
    sheets = r"<link\b(?=[^>]*\brel=[\"']?(?:stylesheet|preload|preconnect|icon))[^>]*?\bhref=[\"']?((?:https?:)?//[^\"'\s>]+)"
    return [*re.findall(loading, html), *re.findall(sheets, html)]


def on_post_build(config: MkDocsConfig) -> None:
    """Remove the copy of the package."""
    while _copies:
        _copies.pop().cleanup()
