"""What went wrong with a request, in our words: what the user can mend, and what waiting may mend."""

from __future__ import annotations

import errno
import json
import re
from dataclasses import dataclass
from typing import Any

from weatherfm.data_pipeline.cds.key import WEB_SITE, Key, how_to_set
from weatherfm.data_pipeline.cds.requests import Request

_FULL = (errno.ENOSPC, errno.EDQUOT)
_QUOTED = 300
"""Characters of the store's own words in a message."""


@dataclass(frozen=True)
class Failure:
    """Why a request brought nothing."""

    text: str
    lasting: bool
    """Trying again would end the same way: the user has to do something."""


def refusal(error: Exception, key: Key) -> Failure:
    """Why the store does not let this user in, or cannot be reached."""
    status, said = _answer(error)
    if status in (401, 403):
        return Failure(
            f"the Climate Data Store refuses the key in {key.origin} ({said}): it is mistyped, or was renewed on the "
            f"web site; {how_to_set()}",
            lasting=True,
        )
    return Failure(f"the Climate Data Store cannot be reached at {key.url} ({said})", lasting=False)


def explain(error: Exception, request: Request, key: Key) -> Failure:
    """Why one request failed; `error` is what the engine raised.

    The store tells by HTTP status and, for requests that were accepted and failed later, by the text of the job:
    401 key, 403 licence or size, 400 and 422 request, 429 and 5xx "later".
    """
    status, said = _answer(error)
    low = said.lower()
    if isinstance(error, OSError) and error.errno in _FULL:
        return Failure(f"the disk is full ({error}); free some space or choose another source.cache", lasting=True)
    if status == 401:
        return refusal(error, key)
    if "licence" in low and status == 403:
        return Failure(
            f"{request.dataset}: its licence is not accepted yet; log in, open {WEB_SITE}/datasets/{request.dataset}"
            "?tab=download#manage-licences, accept it at the end of the page, and start again",
            lasting=True,
        )
    if status == 403 or "cost limits exceeded" in low or "request is too large" in low:
        return Failure(
            f"{request.label}: the Climate Data Store refuses this request ({said}); narrow data.area, raise "
            "source.grid or data.step, or ask for fewer levels",
            lasting=True,
        )
    if "available yet" in low or "latest date available" in low:
        return Failure(f"{request.label}: {_not_published(said)}", lasting=True)
    if "nodata" in low.replace(" ", ""):
        return Failure(f"{request.label}: the Climate Data Store has no such fields ({said})", lasting=True)
    if status in (400, 404, 422) and "job" not in low and "queued requests" not in low:
        return Failure(
            f"{request.label}: the Climate Data Store does not understand this request ({said}); sent was "
            f"{json.dumps(request.body)}",
            lasting=True,
        )
    return Failure(f"{request.label}: {said}", lasting=False)


def _not_published(said: str) -> str:
    latest = re.search(r"latest date available[^:]*:\s*(\d{4}-\d\d-\d\d)", said, re.IGNORECASE)
    end = f"it goes to {latest[1]}; end data.period the day before" if latest else "end data.period earlier"
    return f"ERA5 is not published so far yet: {end} (it comes five days behind the present)"


def _answer(error: Exception) -> tuple[int | None, str]:
    """(HTTP status or None, what the store said, on one line) of whatever an engine raised."""
    response = getattr(error, "response", None)
    status = getattr(response, "status_code", None)
    said = _said(response) if response is not None else ""
    text = " ".join((said or str(error) or type(error).__name__).split())
    if status is not None and not said:
        text = f"HTTP status {status}"
    return status, text if len(text) <= _QUOTED else text[:_QUOTED] + " ..."


def _said(response: Any) -> str:
    """Title, detail and traceback of an error body; empty where it is no JSON."""
    try:
        body = response.json()
    except ValueError:
        return ""
    parts = [str(body[name]) for name in ("title", "detail", "traceback") if body.get(name)]
    return ": ".join(dict.fromkeys(parts))
