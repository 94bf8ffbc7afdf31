"""Which package reads an address, and what it is told: public clouds without a key, private ones with theirs."""

from __future__ import annotations

import logging
from functools import cache
from typing import Any

from zarr.storage import FsspecStore

from weatherfm.data_pipeline.access import Access
from weatherfm.errors import InputError

SILENCE = 60.0
"""Seconds without a byte after which a request has failed."""
GOOGLE = "https://storage.googleapis.com"
"""Where gs:// addresses are read: public buckets need no key there, and no package but aiohttp."""

_PACKAGES = {"s3": "s3fs", "gs": "gcsfs", "gcs": "gcsfs", "az": "adlfs", "abfs": "adlfs", "abfss": "adlfs"}
_WEB = ("anon", "client_kwargs", "headers", "sas_token", "token")
"""Options for http:// and https://; and for gs://, all but the token, which only gcsfs understands."""
_KEYS = {"key", "secret", "token", "profile", "requester_pays"}
"""Options of s3fs that mean: with a key."""


def open_address(address: str, access: Access) -> FsspecStore:
    """The store at an address, to read from.

    Raises:
        InputError: a package for such addresses is not installed, nobody knows such addresses, or an option is unknown.
    """
    protocol, options = address.partition(":")[0].lower(), access.options
    web, google = protocol in ("http", "https"), protocol in ("gs", "gcs")
    if google and not options.keys() - {*_WEB, "endpoint_url"} - {"token"} and options.get("token", "anon") == "anon":
        options.pop("token", None)
        address = f"{options.pop('endpoint_url', GOOGLE)}/{address.partition('://')[2]}"
        web = True
    try:
        if web:
            return _open_web(address, options)
        if protocol == "s3" and not options.keys() & _KEYS:
            options = {"anon": True, **options}
        return FsspecStore.from_url(address, storage_options=options, read_only=True)
    except ImportError as error:
        package = "" if web else _PACKAGES.get(protocol, "")
        raise InputError(
            f"reading from {protocol}:// {'so ' if google and not web else ''}needs a package that is not installed "
            f"({error}); pip install 'weatherfm[cloud]'{' ' * bool(package)}{package}"
        ) from error
    except (ValueError, TypeError) as error:
        text = access.masked(str(error))
        if "rotocol" not in text:
            raise InputError(f"it cannot be opened with these source.storage_options ({text}); correct them") from None
        raise InputError(f"such an address is not understood ({text}); write gs://, s3://, az:// or https://") from None


def _open_web(address: str, options: dict[str, Any]) -> FsspecStore:
    import aiohttp  # only needed, and perhaps only installed, for these
    from fsspec.implementations.http import HTTPFileSystem

    if unknown := sorted(options.keys() - set(_WEB)):
        raise InputError(
            f"source.storage_options has {', '.join(unknown)}, which https:// does not know; it knows {', '.join(_WEB)}"
        )
    timeout = aiohttp.ClientTimeout(total=None, sock_connect=SILENCE, sock_read=SILENCE)
    client = {"timeout": timeout, "trust_env": True, **options.get("client_kwargs", {})}
    headers = {**client.get("headers", {}), **options.get("headers", {})}
    if token := options.get("token"):
        headers["Authorization"] = f"Bearer {token}"
    client |= {"headers": headers} if headers else {}
    query = str(options.get("sas_token", "")).lstrip("?")
    if query:
        logging.getLogger("fsspec.http").setLevel(logging.INFO)  # at DEBUG it names every address, with its signature
    filesystem = (
        _signed_kind()(query=query, asynchronous=True, encoded=True, client_kwargs=client)
        if query
        else HTTPFileSystem(asynchronous=True, client_kwargs=client)
    )
    return FsspecStore(filesystem, read_only=True, path=address)


@cache
def _signed_kind() -> type[Any]:
    """A web file system whose every request carries the query that a shared access signature is."""
    from fsspec.implementations.http import HTTPFileSystem

    class Signed(HTTPFileSystem):
        def __init__(self, query: str, **options: Any) -> None:
            super().__init__(**options)
            self._query = query

        def encode_url(self, url: str) -> Any:
            return super().encode_url(f"{url}?{self._query}")

    return Signed
