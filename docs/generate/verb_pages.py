"""What the command says of itself: the `--help` of each verb, as it is printed, without colours."""

from __future__ import annotations

import io

from rich.console import Console

from weatherfm.cli import app

_WIDTH = 100
_WIDE = "---\nhide: [toc]\n---\n\n"
"""No table of contents beside the page: lines of 100 columns want its room."""


def verbs() -> list[str]:
    """In the order in which the command lists them."""
    commands = [name for name in app if not name.startswith("-")]
    return sorted(commands, key=lambda name: app[name].sort_key)


def help_of(*arguments: str) -> str:
    """What `weatherfm ARGUMENTS --help` prints on a terminal of 100 columns."""
    out = io.StringIO()
    console = Console(file=out, width=_WIDTH, force_terminal=False, color_system=None, legacy_windows=False)
    app([*arguments, "--help"], console=console, exit_on_error=False)
    return "\n".join(line.rstrip() for line in out.getvalue().splitlines()).strip()


def page(verb: str) -> str:
    """The page of a verb, in Markdown."""
    return f"{_WIDE}# weatherfm {verb}\n\n```text\n{help_of(verb)}\n```\n"


def index() -> str:
    """The page of the command itself."""
    rows = "\n".join(f"| [`{verb}`]({verb}.md) | {_first_sentence(verb)} |" for verb in verbs())
    return f"{_WIDE}# The command\n\n| verb | |\n|---|---|\n{rows}\n\n```text\n{help_of()}\n```\n"


def _first_sentence(verb: str) -> str:
    return app[verb].help.split("\n\n")[0].replace("\n", " ").strip()
