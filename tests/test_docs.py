"""Python in the documentation is Python."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
_FENCE = re.compile(r"^ {0,3}```(.*)$", re.MULTILINE)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_code_blocks(page):
    text = page.read_text()
    fences = list(_FENCE.finditer(text))
    for start, end in zip(fences[::2], fences[1::2], strict=True):  # each block that begins ends
        assert end[1].strip() == "", f"a block within a block at {end[0]!r}"
        if start[1].strip() == "python":
            compile(text[start.end() : end.start()], page.name, "exec")
