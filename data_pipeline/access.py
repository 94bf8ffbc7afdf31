"""How stores are opened: the keys that private ones ask for, and whether chunks that are not there may be filled in."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from weatherfm.errors import InputError

_OPEN = ("endpoint_url", "account_name", "account_host", "project", "region_name", "anon")
"""Options that are no secrets: messages may show them."""
_SHORTEST = 4
"""Characters of a text that is worth hiding; shorter ones stand everywhere."""


@dataclass(frozen=True)
class Access:
    """Of the stores of one source. It is hashable, so that what was opened with it can be kept, and it pickles.

    What it holds is secret: it shows in no `repr`, and `masked` takes it out of messages.
    """

    options_json: str = field(default="{}", repr=False)
    """`source.storage_options` as JSON."""
    fill: bool = False
    """True where a chunk that is not there stands for fill values (`source.missing_chunks: fill`)."""
    snapshot: str = ""
    """Of an Icechunk repository: id, tag or branch to read (`source.snapshot`)."""

    @classmethod
    def of(cls, options: Mapping[str, Any], missing_chunks: str = "refuse", snapshot: str | None = None) -> Access:
        """As the settings of a source say it."""
        return cls(json.dumps(dict(options), sort_keys=True), missing_chunks == "fill", snapshot or "")

    @property
    def options(self) -> dict[str, Any]:
        """For what opens stores."""
        options: dict[str, Any] = json.loads(self.options_json)
        return options

    @property
    def secret(self) -> bool:
        """True where errors of the packages that read addresses may hold keys."""
        return bool(self.options)

    def masked(self, text: str) -> str:
        """A message without keys: none of the options, no query (where signatures stand) or password of an address."""
        for secret in sorted(_secrets(self.options), key=len, reverse=True):
            text = text.replace(secret, "***")
        text = re.sub(r"([a-zA-Z][a-zA-Z0-9+.-]*://)[^\s/@'\"]+:[^\s/@'\"]*@", r"\1***@", text)
        return re.sub(r"([a-zA-Z][a-zA-Z0-9+.-]*://[^\s'\"?]*)\?[^\s'\")]*", r"\1?***", text)


PUBLIC = Access()
"""Of stores that anybody may read."""


def refuse_secret_address(address: str) -> None:
    """Refuse an address that carries a signature or a password: addresses are written into manifests and messages.

    Raises:
        InputError: it does; without the secret.
    """
    host, _, query = address.partition("?")
    user = re.match(r"[a-zA-Z0-9+.-]+://([^/@]*:[^/@]*)@", host)
    if query or user:
        shown = PUBLIC.masked(address) if user is None else address.replace(user[1], "***").partition("?")[0]
        raise InputError(
            f"the address {shown} carries a {'password' if user else 'query'}, and addresses go into manifests and "
            "messages: give it as source.storage_options, e.g. {sas_token: ...} or {headers: {Authorization: ...}}"
        )


def _secrets(options: Mapping[str, Any]) -> Iterator[str]:
    for key, value in options.items():
        if key in _OPEN:
            continue
        yield from _texts(value)


def _texts(value: Any) -> Iterator[str]:
    if isinstance(value, Mapping):
        yield from _secrets(value)
    elif isinstance(value, list):
        for part in value:
            yield from _texts(part)
    elif not isinstance(value, bool) and value is not None and len(str(value)) >= _SHORTEST:
        yield str(value)
