"""Are all files there, and as they were written?"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import Any

from tqdm import tqdm

from weatherfm.data_pipeline.manifest import NAME, PROGRESS, file_checksum, is_sealed
from weatherfm.data_pipeline.store import Store
from weatherfm.data_pipeline.verification.report import VerifyReport


def check_files(store: Store, report: VerifyReport) -> None:
    """Size and sha256 of every file against the manifest, and what does not belong there."""
    if not is_sealed(store.manifest):
        report.error("files", f"{NAME} was changed since prepare wrote it", kind="manifest", files=(NAME,))
    files: dict[str, dict[str, Any]] = store.manifest["files"]
    n_bytes = sum(entry["bytes"] for entry in files.values())
    n_bad = 0

    def look(key: str) -> tuple[str, str] | None:
        return _fault(store, key, files[key])

    with (
        ThreadPoolExecutor() as pool,
        tqdm(total=n_bytes, desc="checksums", unit="B", unit_scale=True, unit_divisor=1024, disable=None) as bar,
    ):
        for key, found in zip(files, pool.map(look, files), strict=True):
            bar.update(files[key]["bytes"])
            if found:
                kind, message = found
                n_bad += 1
                report.error("files", message, kind=kind, remedy="repair", files=(key,))
    _check_extra(store, report)
    report.files = {"count": len(files), "bytes": n_bytes, "bad": n_bad}
    report.facts.append(f"{len(files)} files, {n_bytes / 2**20:,.1f} MiB: checksums compared")


def _fault(store: Store, key: str, expected: dict[str, Any]) -> tuple[str, str] | None:
    """(kind, message), or None for a file that is as written."""
    file = store.path / key
    if not file.is_file():
        return "missing", f"{key} is missing"
    if (size := file.stat().st_size) != expected["bytes"]:
        return "size", f"{key} has {size} bytes instead of {expected['bytes']}"
    return None if file_checksum(file) == expected["sha256"] else ("checksum", f"{key} has a wrong checksum")


def _check_extra(store: Store, report: VerifyReport) -> None:
    present = {str(p.relative_to(store.path)) for p in store.path.rglob("*") if p.is_file()}
    for extra in sorted(present - store.manifest["files"].keys() - {NAME}):
        if not extra.startswith(PROGRESS):
            message = f"{extra} does not belong to the store"
            report.warning("files", message, kind="extra", remedy="remove", files=(extra,))
