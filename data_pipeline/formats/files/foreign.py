"""What stands where data should: archives, error pages, pointers and pictures, told by their first bytes."""

from __future__ import annotations

import json
import os

_AGAIN = "the download failed, fetch it again"
_MAGIC = (
    (b"\x1f\x8b", "a gzip archive; unpack it (gunzip), weatherfm reads what is inside"),
    (b"\x1f\x9d", "a compressed file (.Z); unpack it (uncompress)"),
    (b"BZh", "a bzip2 archive; unpack it (bunzip2)"),
    (b"\xfd7zXZ", "an xz archive; unpack it (unxz)"),
    (b"\x28\xb5\x2f\xfd", "a zstd archive; unpack it (unzstd)"),
    (b"7z\xbc\xaf\x27\x1c", "a 7-Zip archive; unpack it"),
    (b"Rar!", "a RAR archive; unpack it"),
    (b"%PDF", "a PDF document"),
    (b"\x89PNG", "a picture (PNG)"),
    (b"\xff\xd8\xff", "a picture (JPEG)"),
    (b"II*\0", "a TIFF picture (GeoTIFF); convert it to NetCDF, e.g. with gdal_translate -of netCDF"),
    (b"MM\0*", "a TIFF picture (GeoTIFF); convert it to NetCDF, e.g. with gdal_translate -of netCDF"),
    (b"BUFR", "BUFR observations, not fields on a grid"),
    (b"ODA", "an ODB of observations, not fields on a grid"),
    (b"\x0e\x03\x13\x01", "HDF4; convert it to NetCDF, e.g. with h4tonccf"),
    (b"PAR1", "a Parquet table, not fields on a grid"),
    (b"\x93NUMPY", "a NumPy array without coordinates; write it as NetCDF with its times, latitudes and longitudes"),
    (b"\0\5\x16\7", "what macOS leaves beside a file (its name starts with ._); leave it out with source.exclude"),
    (b"version https://git-lfs", "a Git LFS pointer, not the file; fetch it with `git lfs pull`"),
)
_GRIB_INDEX = "an index of a GRIB file, not the file; name the file itself"


def foreign(start: bytes, name: str) -> str | None:
    """What a file is that starts with these bytes and is known to hold no fields, as a sentence; None for others."""
    text = start.lstrip(b"\xef\xbb\xbf \t\r\n")
    if text[:1] == b"<":
        kind = "an HTML page" if b"html" in text[:200].lower() else "an XML text"
        return f"it is {kind}, not data (starts with {_quote(text)}); {_AGAIN}"
    if text[:1] in (b"{", b"["):
        return _json(text)
    for magic, description in _MAGIC:
        if start.startswith(magic):
            return f"it is {description}"
    if start[257:262] == b"ustar":
        return "it is a tar archive; unpack it (tar xf) and give the files inside"
    if b"GRBIDX" in start[:32] or _is_wgrib_index(start) or (start[:1] == b"\x80" and name.endswith(".idx")):
        return f"it is {_GRIB_INDEX}"
    if all(byte >= 32 or byte in b"\t\r\n\f" for byte in start):
        return f"it is a text (starts with {_quote(text)}), not NetCDF, GRIB or Zarr"
    if not start.strip(b"\0"):
        return "it starts with zeros: the download was interrupted or the disk was full; fetch it again"
    return None


def unknown(start: bytes) -> str:
    """A sentence on a file that starts with bytes nobody knows."""
    return f"it is not NetCDF, GRIB or Zarr (starts with {start[:8]!r})"


def foreign_folder(path: str) -> str:
    """A sentence on a folder that is no Zarr group."""
    if is_zarr_array(path):
        return "it is a single Zarr array; name the group it stands in, the folder above"
    return "it is a folder but no Zarr group; name the files inside it, e.g. FOLDER/*.nc"


def is_zarr_array(path: str) -> bool:
    """True for the folder of one Zarr array."""
    if os.path.exists(os.path.join(path, ".zarray")):
        return True
    try:
        with open(os.path.join(path, "zarr.json"), "rb") as file:
            return bool(json.load(file).get("node_type") == "array")
    except (OSError, ValueError, AttributeError):
        return False


def _json(text: bytes) -> str:
    """A server's error, an index, or references to chunks in other files."""
    if b'"_offset"' in text and b'"param"' in text:
        return f"it is {_GRIB_INDEX}"
    if b'"refs"' in text or b'.zgroup"' in text:
        return "it is a list of references to chunks (kerchunk), which is not read; name the files it refers to"
    return f"it is a JSON text, perhaps an error message of the server (starts with {_quote(text)}); {_AGAIN}"


def _is_wgrib_index(start: bytes) -> bool:
    """True for lines such as `1:0:d=2018100618:UGRD:10 m above ground:anl:`."""
    first = start.split(b"\n", 1)[0].split(b":")
    return len(first) > 3 and first[1] == b"0" and any(part.startswith((b"d=", b"D=")) for part in first)


def _quote(text: bytes) -> str:
    return repr(text[:80].decode("utf-8", "replace").splitlines()[0][:80])
