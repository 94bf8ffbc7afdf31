"""README and docs/: Python in them is Python, what they name is there, and messages stand as they are said."""

from __future__ import annotations

import ast
import re
from functools import cache
from pathlib import Path
from xml.etree import ElementTree

import pytest
from places import ROOT

DOCS = ROOT / "docs"
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted(DOCS.glob("*.md"))]
LIVES = sorted(DOCS.glob("life_of_*.md"))
CODE = ("weatherfm", "data_pipeline", "training", "evaluation")
_FENCE = re.compile(r"^ {0,3}```(.*)$", re.MULTILINE)
_PATH = re.compile(rf"(?<![\w/.])(?:{'|'.join(CODE)}|configs|docs|tests)/[\w./-]*\w")
_MODULE = re.compile(r"(?<![\w./])weatherfm(?:\.\w+)+")


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_code_blocks(page):
    text = page.read_text()
    fences = list(_FENCE.finditer(text))
    for start, end in zip(fences[::2], fences[1::2], strict=True):  # each block that begins ends
        assert end[1].strip() == "", f"a block within a block at {end[0]!r}"
        if start[1].strip() == "python":
            compile(text[start.end() : end.start()], page.name, "exec")


def absent_paths(text: str) -> list[str]:
    """Paths of the repository that a text names and that are not there."""
    return sorted({path for path in _PATH.findall(text) if not (ROOT / path).exists()})


def absent_modules(text: str) -> list[str]:
    """Dotted names of which neither the whole nor all but its last part is a module of ours."""
    names = set(_MODULE.findall(text))
    return sorted(name for name in names if not (is_module(name) or is_module(name.rpartition(".")[0])))


def is_module(name: str) -> bool:
    """`weatherfm.training.step`, looked for where it lies in the repository."""
    parts = name.split(".")[1:]
    path = ROOT.joinpath(*parts if parts and parts[0] in (*CODE, "configs") else ("weatherfm", *parts))
    return path.is_dir() or path.with_suffix(".py").is_file()


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_files_and_modules_that_are_named_are_there(page):
    text = page.read_text()
    assert absent_paths(text) == []
    assert absent_modules(re.sub(r"weatherfm\.cli \w+", "", text)) == []


def test_a_file_that_is_gone_is_found():
    assert absent_paths("see `training/no_such.py` and (docs/data.md), tests/distributed/") == ["training/no_such.py"]
    assert absent_modules("weatherfm.training.step:42, weatherfm.load, weatherfm.training.no_such.x") == [
        "weatherfm.training.no_such.x"
    ]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_somewhere(page):
    for target in re.findall(r"\]\(([^)\s]+)\)", page.read_text()):
        path, _, anchor = target.partition("#")
        if path.startswith("http") or is_generated(page, path):
            continue
        linked = (page.parent / path).resolve() if path else page
        assert linked.exists(), target
        if anchor:
            assert anchor in anchors(linked.read_text()), target


def is_generated(page: Path, path: str) -> bool:
    """Of the site's own pages (tests/test_site.py), which are no files: only its pages may link to them."""
    return page.parent == DOCS and path.split("/")[0] in ("configuration", "command", "python")


def anchors(text: str) -> set[str]:
    """Of the headings of a page."""
    headings = re.findall(r"^#+ (.*)$", text, re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).strip().replace(" ", "-") for heading in headings}


def rooms_of_the_map() -> dict[str, list[str]]:
    """Folder of the README's map of the house -> the rooms that its lines name with a stroke behind."""
    text = (ROOT / "README.md").read_text().split("## The map of the house\n\n")[1].split("\n\n")[0]
    found: dict[str, list[str]] = {}
    for line in text.splitlines():
        indent, words = line[:4], line[4:]
        assert indent == "    "
        if not words.startswith(" "):
            folder, _, words = words.partition("/")
        found.setdefault(folder, []).extend(re.findall(r"(?<![\w/])(\w+)/", words))
    return found


def test_the_map_of_the_house_shows_every_room():
    shown = rooms_of_the_map()
    assert {folder: [r for r in rooms if not (ROOT / folder / r).is_dir()] for folder, rooms in shown.items()} == {
        folder: [] for folder in shown
    }
    for folder in CODE:
        there = {path.parent.name for path in (ROOT / folder).glob("*/__init__.py") if not path.parent.is_symlink()}
        assert there - set(shown[folder]) == set()


def test_the_readme_names_every_verb():
    from weatherfm.cli import app

    text = (ROOT / "README.md").read_text()
    assert [verb for verb in app if not verb.startswith("-") and f"`{verb}`" not in text] == []


@cache
def messages() -> str:
    """Every text in the code, with … for the values in it."""
    texts = []
    for path in (path for folder in CODE for path in (ROOT / folder).rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Constant) and isinstance(node.value, str):
                texts.append(re.sub(r"%[sd]", "…", node.value))
            if isinstance(node, ast.JoinedStr):
                texts.append("".join(part.value if isinstance(part, ast.Constant) else "…" for part in node.values))
    return "\n\0\n".join(texts)


def said(page: Path) -> list[str]:
    """Messages that a page quotes: lines that begin with >."""
    return re.findall(r"^> (.*)$", page.read_text(), re.MULTILINE)


@pytest.mark.parametrize("page", LIVES, ids=lambda page: page.stem)
def test_messages_are_quoted_as_they_are_said(page):
    quoted = said(page)
    assert len(quoted) > 8
    assert [text for text in quoted if text not in messages()] == []


def test_a_message_that_nobody_says_is_found():
    assert "no such message is ever said" not in messages()


@pytest.mark.parametrize("page", LIVES, ids=lambda page: page.stem)
def test_stops_of_a_picture_are_those_of_its_page(page):
    picture = page.with_suffix(".svg")
    words = {e.get("class"): [] for e in ElementTree.parse(picture).iter("{http://www.w3.org/2000/svg}text")}
    for element in ElementTree.parse(picture).iter("{http://www.w3.org/2000/svg}text"):
        words[element.get("class")].append(element.text)
    numbers = re.findall(r"^### (\d+)\. ", page.read_text(), re.MULTILINE)
    assert words["digit"] == numbers == [str(i + 1) for i in range(len(numbers))]
    folders = [ROOT / name for name in words["file"]] if "step" in page.stem else []
    folders += [ROOT / "data_pipeline" / name for name in words["file"]] if "field" in page.stem else []
    assert [folder for folder in folders if not folder.is_dir()] == []
    assert len(folders) == len(numbers)


@pytest.mark.parametrize("picture", sorted(DOCS.glob("*.svg")), ids=lambda path: path.stem)
def test_a_picture_is_readable_in_light_and_dark_and_loads_nothing(picture):
    text = picture.read_text()
    assert "prefers-color-scheme: dark" in text
    assert "http" not in text.replace("http://www.w3.org/2000/svg", "")
    assert "<title" in text  # for those who do not see it


def answers() -> list[tuple[str, str]]:
    """(file, name) of the ten questions in CONTRIBUTING.md."""
    return re.findall(r"^\| .*\? \| `([^`]+)` \| `(\w+)` \|$", (ROOT / "CONTRIBUTING.md").read_text(), re.MULTILINE)


def test_a_stranger_is_sent_to_the_right_file():
    assert len(answers()) == 10
    for path, name in answers():
        defined = {getattr(node, "name", "") for node in ast.walk(ast.parse((ROOT / path).read_text()))}
        assert name in defined, path
