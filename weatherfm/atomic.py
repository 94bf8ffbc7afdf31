"""Files that are there whole or not at all."""

from __future__ import annotations

import os
from pathlib import Path

from weatherfm.file_errors import naming


def write_atomically(path: Path, content: bytes) -> None:
    """Write a file whole or not at all; its folder is made."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        with naming(path):
            temporary.write_bytes(content)
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)
