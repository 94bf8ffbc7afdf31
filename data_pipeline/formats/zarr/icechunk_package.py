"""The package icechunk: whether it is there and fit, how it calls its options, and what its one kind of error means."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from typing import Any

from weatherfm.errors import InputError

_PASSING = ("dispatch failure", "timeout", "timed out", "io error", "service error")
_DENIED = ("AccessDenied", "InvalidAccessKeyId", "SignatureDoesNotMatch", "credentials")
_OPTIONS = ("key", "secret", "token", "endpoint_url", "region_name", "requester_pays", "anon")


class IcechunkFault(Exception):
    """A part of a snapshot is damaged or cannot be had, and trying again would not change it."""


def icechunk_package() -> Any:
    """The package itself.

    Raises:
        InputError: it is not installed, or too old.
    """
    try:
        import icechunk
    except ImportError as error:
        raise InputError(
            f"it is an Icechunk repository, and the package that reads those is not installed ({error}); pip install "
            "'weatherfm[icechunk]'"
        ) from error
    if int(icechunk.__version__.partition(".")[0]) < 1:
        raise InputError(
            f"it is an Icechunk repository, and icechunk {icechunk.__version__} is too old to read it; pip install "
            "'weatherfm[icechunk]'"
        )
    if "ICECHUNK_LOG" not in os.environ:
        icechunk.set_logs_filter("off")  # they go to stdout, and errors are raised all the same
    return icechunk


def icechunk_errors() -> type[Exception]:
    """What it raises."""
    error: type[Exception] = icechunk_package().IcechunkError
    return error


def s3_options(options: Mapping[str, Any]) -> dict[str, Any]:
    """What icechunk calls the options that s3fs has for the same.

    Raises:
        InputError: an option that it does not know.
    """
    if unknown := sorted(options.keys() - set(_OPTIONS)):
        raise InputError(
            f"source.storage_options has {', '.join(unknown)}, which an Icechunk repository on s3:// does not know; it "
            f"knows {', '.join(_OPTIONS)}"
        )
    endpoint = options.get("endpoint_url")
    keys = {"access_key_id": "key", "secret_access_key": "secret", "session_token": "token"}
    return {
        **{name: options[ours] for name, ours in keys.items() if ours in options},
        "anonymous": options.get("anon", "key" not in options),
        "endpoint_url": endpoint,
        "allow_http": str(endpoint).startswith("http://"),
        "force_path_style": endpoint is not None,
        "region": options.get("region_name", "us-east-1"),
        "requester_pays": bool(options.get("requester_pays", False)),
    }


def told_by_icechunk(error: Exception) -> Exception:
    """By what it is, in one line: icechunk has one kind of error for all."""
    text = str(error)
    lines = [re.sub(r"^[\s|`x>-]+", "", line) for line in text.splitlines() if re.match(r"\s*(x|\|->|`->)\s", line)]
    said = "; ".join(dict.fromkeys(lines))[:200] or text[:200]
    if any(word in said for word in _DENIED):
        return PermissionError(said)
    return ConnectionError(said) if any(word in said for word in _PASSING) else IcechunkFault(said)
