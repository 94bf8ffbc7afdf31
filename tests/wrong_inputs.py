"""Wrong inputs of every verb and setting: each is refused in one short message that names it, at once.

None may be a traceback, a fault of weatherfm, a hang, or silence (status 0 although something that was given was not
used). `tests/command/test_wrong_inputs.py` runs them; `python tests/wrong_inputs.py` runs them and counts the faults.

`wrong_input_lines/` has them: a line is a command and, behind an arrow, what the message must hold; several with &. Of
settings the command is `check run.yaml`, of those of sources `prepare run.yaml --dry-run`, and ` + ` stands between two
settings.
"""

from __future__ import annotations

import contextlib
import io
import logging
import os
import re
import shlex
import signal
import sys
import tempfile
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).parent / "fixtures"))

from finished_run import LONG, finish_run

from weatherfm.cli import run_command

LISTS = Path(__file__).parent / "wrong_input_lines"
SECONDS = 60
"""That a refusal may take; importing takes most of it."""
LONGEST, LINES = 900, 14
"""Characters and lines of a message, at most; what `check` finds in order is none."""

FILES: dict[str, tuple[bytes, str]] = {
    "empty.yaml": (b"", "empty.yaml & run & data"),
    "list.yaml": (b"- run: x\n", "list.yaml"),
    "text.yaml": (b"just words\n", "text.yaml"),
    "number.yaml": (b"3\n", "number.yaml"),
    "broken.yaml": (b"run: [\n", "broken.yaml & YAML"),
    "latin.yaml": ("run: é\n".encode("latin-1"), "latin.yaml & UTF-8"),
    "zeros.yaml": (b"\0\0\0\0", "zeros.yaml"),
    "tabs.yaml": (b"run: x\n\tdata: y\n", "tabs.yaml & line 2"),
    "tagged.yaml": (b"run: !!python/object:os.system x\n", "tagged.yaml"),
    "deep.yaml": (b"run: " + b"[" * 5000 + b"]" * 5000, "deep.yaml"),
    "laughs.yaml": (
        b"a: &a [x, x, x, x, x, x, x, x, x]\n"
        + b"".join(
            f"{n}: &{n} [{', '.join([f'*{m}'] * 9)}]\n".encode() for m, n in zip("abcdefg", "bcdefgh", strict=True)
        ),
        "laughs.yaml",
    ),
    "numbered.yaml": (b"1: 2\n", "numbered.yaml & 1"),
    "twice.yaml": (b"run: x\nmodel: {depth: 1}\nmodel: {depth: 2}\n", "twice.yaml & model & twice & line 3"),
    "key_twice.yaml": (b"run: x\nmodel:\n  depth: 1\n  depth: 2\n", "key_twice.yaml & depth & twice & line 4"),
    "null.yaml": (b"run: x\ndata:\nmodel:\n", "null.yaml & data"),
    "long.yaml": (b"run: x\ndata: {store: x, source: {kind: planet}, channels: [" + b"q" * 2_800_000 + b"]}\n", "long"),
    "many.yaml": (
        b"run: x\ndata: {store: x, source: {kind: planet}, channels: ["
        + b", ".join(b"x%d" % n for n in range(20000))
        + b"]}\n",
        "many.yaml & x0",
    ),
    "mistyped.yaml": (b"run: x\nmodel: {" + b", ".join(b"k%d: 1" % n for n in range(5000)) + b"}\n", "mistyped.yaml"),
}


class Case(NamedTuple):
    """One wrong input."""

    arguments: list[str]
    words: list[str]
    """That the message must hold."""

    def __str__(self) -> str:
        return shlex.join(self.arguments)


def _cases(table: str, *before: str) -> list[Case]:
    found = []
    for line in table.strip().splitlines():
        given, words = line.rsplit("->", 1)
        given = given.replace("LONG", LONG)
        arguments = [part.strip() for part in given.split(" + ")] if before else shlex.split(given)
        found.append(Case([*before, *arguments], [word.strip() for word in words.split("&")]))
    return found


def _groups() -> dict[str, list[Case]]:
    groups = {}
    for path in sorted(LISTS.glob("*.txt")):
        before = {"verbs": (), "sources": ("prepare", "run.yaml", "data.store=new.zarr", "--dry-run")}
        groups[path.stem] = _cases(path.read_text(), *before.get(path.stem, ("check", "run.yaml")))
    files = [Case(["check", name], words.split(" & ")) for name, (_, words) in FILES.items()]
    odd = "check folder.yaml -> folder.yaml\ncheck fifo.yaml -> fifo.yaml\ncheck LONG.yaml -> configuration"
    return groups | {"files": files + _cases(odd)}


GROUPS = _groups()
"""What is wrong -> its cases."""


class _TooLong(BaseException):
    """Of the alarm, so that nothing catches it."""


@contextlib.contextmanager
def _within(seconds: float) -> Iterator[None]:
    def ring(*_: object) -> None:
        raise _TooLong

    before = signal.signal(signal.SIGALRM, ring)
    signal.setitimer(signal.ITIMER_REAL, seconds, 2)  # and again, where waiting for threads goes on
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def fault_of(case: Case, seconds: float = SECONDS) -> tuple[str, str]:
    """What is wrong with how an input is refused ('' where nothing is), and all that was said."""
    said = io.StringIO()
    notes = logging.StreamHandler(said)
    logging.getLogger().addHandler(notes)
    try:
        with contextlib.redirect_stdout(said), contextlib.redirect_stderr(said), _within(seconds):
            status = run_command(case.arguments)
    except _TooLong:
        return "hang", said.getvalue()
    except BaseException as error:  # noqa: BLE001 - SystemExit too: nothing may leave the command
        return "traceback", f"{type(error).__name__}: {error}"
    finally:
        logging.getLogger().removeHandler(notes)
    text = "\n".join(line for line in said.getvalue().splitlines() if not line.startswith("ok  "))
    return _kind(status, text, case), text


def _kind(status: int, text: str, case: Case) -> str:
    plain = re.sub(r"[\s│╭╮╰╯─]+", " ", text).lower()
    if "fault of weatherfm" in text or status == 1:
        return "fault"
    if status == 0:  # what a source has no use for is named in a note
        return "" if "changes nothing" in plain and all(word.lower() in plain for word in case.words) else "silence"
    if "Traceback" in text:
        return "traceback"
    if len(text) > LONGEST or len(text.splitlines()) > LINES:
        return "long"
    if _said_twice(text):
        return "twice"
    return "" if all(word.lower() in plain for word in case.words) else "unnamed"


def _said_twice(text: str) -> bool:
    """A problem is one, whichever links of `check` it is of."""
    told = [line.split(maxsplit=2)[-1] for line in text.splitlines() if line.startswith("PROBLEM")]
    told = [text for text in told if not text.startswith("not looked at")]
    return len(set(told)) < len(told)


def make_world(folder: Path) -> None:
    """A finished run (`finished_run`), and odd things beside it."""
    finish_run(folder)
    (folder / "empty").mkdir()
    (folder / "folder.yaml").mkdir()
    (folder / "empty_not").mkdir()
    (folder / "empty_not" / "precious.txt").write_text("mine")
    for name in ("text.txt", "text.safetensors", "broken.nc"):
        (folder / name).write_text("nothing of the kind\n")
    for name in ("fifo.yaml", "fifo.nc"):
        os.mkfifo(folder / name)
    for name, (content, _) in FILES.items():
        (folder / name).write_bytes(content)


def main() -> int:
    """Run all, or those whose text holds what is given; print every fault and count them."""
    kinds: Counter[str] = Counter()
    with tempfile.TemporaryDirectory() as folder:
        make_world(Path(folder))
        os.chdir(folder)
        for group, cases in GROUPS.items():
            for case in cases:
                if len(sys.argv) > 1 and not re.search(sys.argv[1], f"{group}: {case}"):
                    continue
                kind, text = fault_of(case)
                kinds[kind or "refused"] += 1
                if kind or len(sys.argv) > 1:
                    shown = text if len(text) < 1500 else f"{text[:700]} ... ({len(text)} characters)"
                    print(f"--- {kind or 'refused'}: {group}: {str(case)[:200]}\n{shown}", flush=True)
        os.chdir("/")
    print(dict(kinds))
    return 0 if set(kinds) <= {"refused"} else 1


if __name__ == "__main__":
    sys.exit(main())
