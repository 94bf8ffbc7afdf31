"""The Python reference: the public names of `weatherfm`, then a page a folder of the code, module by module."""

from __future__ import annotations

import ast
from dataclasses import dataclass
from pathlib import Path

import weatherfm

FOLDERS = {
    "weatherfm": "weatherfm",
    "data_pipeline": "weatherfm.data_pipeline",
    "training": "weatherfm.training",
    "evaluation": "weatherfm.evaluation",
}
"""Folder of the repository -> the name it is imported by."""


@dataclass(frozen=True)
class Room:
    """A folder of modules."""

    package: str
    """As it is imported: `weatherfm.data_pipeline.store`."""
    folder: Path

    @property
    def page(self) -> str:
        """Of the site, below python/: `data_pipeline/store.md`, or `data_pipeline/index.md` where rooms lie inside."""
        inner = self.package.removeprefix("weatherfm").removeprefix(".").replace(".", "/")
        return f"{inner}/index.md" if inner and self.holds_rooms else f"{inner or 'weatherfm'}.md"

    @property
    def holds_rooms(self) -> bool:
        """True where other folders of modules lie in this one."""
        return any(self.folder.glob("*/__init__.py"))

    @property
    def text(self) -> str:
        """What its `__init__.py` says of it."""
        return ast.get_docstring(ast.parse((self.folder / "__init__.py").read_text())) or ""

    @property
    def first(self) -> str:
        """The first paragraph of that."""
        return self.text.partition("\n\n")[0]

    def modules(self) -> list[str]:
        """Those that hold a public function or class, as they are imported."""
        return [f"{self.package}.{path.stem}" for path in sorted(self.folder.glob("*.py")) if _is_public(path)]


def folders(root: Path) -> list[Room]:
    """All folders of the code, each after the one that it lies in.

    Args:
        root: of the repository.
    """
    found = []
    for folder, package in FOLDERS.items():
        for path in sorted((root / folder).rglob("__init__.py")):
            inner = path.parent.relative_to(root / folder).parts
            if any((root / folder).joinpath(*inner[: i + 1]).is_symlink() for i in range(len(inner))):
                continue  # another folder of the code, reached through weatherfm/
            found.append(Room(".".join((package, *inner)), path.parent))
    return found


def rooms(root: Path) -> list[Room]:
    """Those of `folders` that have a page: all but those that only hold data."""
    return [room for room in folders(root) if room.modules() or room.holds_rooms]


def page(room: Room) -> str:
    """The page of a room, in Markdown: mkdocstrings fills it."""
    first, _, rest = room.text.partition("\n\n")
    lines = [*_BEHIND, f"# {room.package}", "", first, "", rest if room.package != "weatherfm" else "", ""]
    for module in room.modules():
        lines += [f"::: {module}", "    options:", "      heading_level: 2", ""]
    return "\n".join(lines)


def index(rooms: list[Room]) -> str:
    """The page of the public names, and the way to the rooms."""
    lines = ["# Python", "", *(weatherfm.__doc__ or "").splitlines()[2:], ""]
    for name in weatherfm.__all__:
        if name in weatherfm._PLACES:
            lines += [f"::: {weatherfm._PLACES[name]}.{name}", "    options:"]
            lines += [f"      heading: weatherfm.{name}", f"      toc_label: weatherfm.{name}"]
            lines += ["      heading_level: 2", "      skip_local_inventory: true", ""]
    lines += ["## The rooms { #rooms }", "", "| folder | |", "|---|---|"]
    lines += [f"| [`{room.package}`]({room.page}) | {' '.join(room.first.split())} |" for room in rooms]
    return "\n".join([*lines, ""])


_BEHIND = ["---", "search: {boost: 0.5}", "---", ""]
"""Guides come first where a search finds both."""


def _is_public(path: Path) -> bool:
    if path.name == "__init__.py":
        return False
    tree = ast.parse(path.read_text())
    kinds = ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef
    return any(isinstance(node, kinds) and not node.name.startswith("_") for node in tree.body)
