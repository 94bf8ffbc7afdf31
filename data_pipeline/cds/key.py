"""The key of the Climate Data Store, looked for where cdsapi looks; never asked for."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass, field

from weatherfm.errors import InputError

WEB_SITE = "https://cds.climate.copernicus.eu"
ADDRESS = f"{WEB_SITE}/api"


@dataclass(frozen=True)
class Key:
    """What a client needs to speak to the store."""

    url: str
    token: str = field(repr=False)
    verify: bool
    """Whether the certificate of the store is checked."""
    origin: str
    """Where the token was found, for messages."""


def find_key() -> Key:
    """The key from CDSAPI_URL and CDSAPI_KEY, else from the file CDSAPI_RC or ~/.cdsapirc.

    Raises:
        InputError: no key, or one that cannot work; says where it goes, in which lines, and where to get one.
    """
    path = os.path.expanduser(os.environ.get("CDSAPI_RC", "~/.cdsapirc"))
    url, token = os.environ.get("CDSAPI_URL"), os.environ.get("CDSAPI_KEY")
    told: dict[str, str] = {}
    if url is None or token is None:
        told = _read(path)
    origin = "CDSAPI_KEY" if token is not None else path
    url, token = url or told.get("url"), token or told.get("key")
    if not url or not token:
        lacking = " and ".join(f"'{name}:'" for name, value in (("url", url), ("key", token)) if not value)
        what = f"{path} has no line {lacking}" if os.path.exists(path) else f"there is no file {path}"
        raise InputError(f"no key for the Climate Data Store: {what}; {how_to_set(path)}")
    _check(url, token, path, origin)
    return Key(url.rstrip("/"), token, told.get("verify", "1") != "0", origin)


def how_to_set(path: str = "~/.cdsapirc") -> str:
    """The cure for a missing or refused key."""
    return (
        f"register (free) and copy your key from {WEB_SITE}/how-to-api, then write these two lines into {path}:\n"
        f"  url: {ADDRESS}\n  key: YOUR-KEY\n(or set CDSAPI_URL and CDSAPI_KEY)"
    )


def _read(path: str) -> dict[str, str]:
    if not os.path.exists(path):
        return {}
    try:
        with open(path, encoding="utf-8") as file:
            pairs = [line.split(":", 1) for line in file if ":" in line]
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{path}, where the key of the Climate Data Store belongs, cannot be read: {error}") from error
    return {name.strip(): value.strip() for name, value in pairs}


def _check(url: str, token: str, path: str, origin: str) -> None:
    if re.fullmatch(r"\d+:\S+", token):
        raise InputError(
            f"the key in {origin} is of the old form UID:KEY, which the Climate Data Store no longer takes since "
            f"2024; {how_to_set(path)}"
        )
    if re.search(r"/api/v\d+/?$", url):
        raise InputError(
            f"{url} is the address of the old Climate Data Store, which was closed in 2024; {how_to_set(path)}"
        )
    if not re.fullmatch(r"https?://\S+", url):
        raise InputError(f"the address of the Climate Data Store must be {ADDRESS}, got {url!r}; {how_to_set(path)}")
    if not re.fullmatch(r"[0-9A-Za-z-]{16,}", token) or token == "YOUR-KEY":
        raise InputError(
            f"the key in {origin} is not one of the Climate Data Store's, which look like "
            f"01234567-89ab-cdef-0123-456789abcdef (no quotes, no brackets); {how_to_set(path)}"
        )
