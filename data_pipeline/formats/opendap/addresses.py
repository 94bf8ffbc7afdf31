"""Which addresses are read by OPeNDAP, and where their parts are asked for."""

from __future__ import annotations

from urllib.parse import urlsplit

from weatherfm.errors import InputError

_SEGMENTS = {"dodsC", "opendap", "dods", "griddap"}
"""Parts of the addresses of THREDDS, Hyrax, GrADS and ERDDAP below which datasets are served."""


def is_opendap(address: str) -> bool:
    """By the name alone: nobody is asked."""
    place = urlsplit(address)
    if place.scheme in ("dap2", "dap4"):
        return True
    return place.scheme in ("http", "https") and bool(_SEGMENTS & set(place.path.split("/")[:-1]))


def web_address(address: str) -> str:
    """Where the parts of a dataset are asked for, over https where `dap2://` does not say.

    Raises:
        InputError: `dap4://`, which is another protocol.
    """
    scheme, _, rest = address.partition("://")
    if scheme == "dap4":
        raise InputError(
            f"DAP4 is not spoken here; most servers speak DAP2 for the same dataset: write it as dap2://{rest}"
        )
    return f"https://{rest}" if scheme == "dap2" else address
