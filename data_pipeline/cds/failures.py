"""What went wrong with a request, in our words: what the user can mend, and what waiting may mend."""

from __future__ import annotations

import errno
import json
import re
import time
from dataclasses import dataclass
from email.utils import mktime_tz, parsedate_tz
from typing import Any

from weatherfm.data_pipeline.cds.key import WEB_SITE, Key, how_to_set
from weatherfm.data_pipeline.cds.requests import Request

_FULL = (errno.ENOSPC, errno.EDQUOT)
_QUOTED = 300
"""Characters of the store's own words in a message."""
_LONGEST = 3600.0
"""Seconds to wait at most, whatever the store says."""
_TOO_LARGE = re.compile(
    r"cost limits? exceeded|request (is )?too large|over \d+ limit|reduce your selection|too many (fields|items)",
    re.IGNORECASE,
)
"""The store's words for a request that it would take in parts; with status 403, or as the end of a job."""


@dataclass(frozen=True)
class Failure:
    """Why a request brought nothing."""

    text: str
    lasting: bool
    """Trying again would end the same way: the user has to do something."""
    too_large: bool = False
    """Asking for less at a time may help."""
    wait: float = 0.0
    """Seconds that the store wants to be left alone; 0 where it does not say."""


def refusal(error: Exception, key: Key) -> Failure:
    """Why the store does not let this user in, or cannot be reached."""
    status, said = _answer(error)
    if status in (401, 403):
        return Failure(
            f"the Climate Data Store refuses the key in {key.origin} ({said}): it is mistyped, or was renewed on the "
            f"web site; {how_to_set()}",
            lasting=True,
        )
    if _is_tls(error):
        return Failure(
            f"the certificate of {key.url} is not trusted ({said}): on a network that checks traffic, point "
            "REQUESTS_CA_BUNDLE to a file with its certificates; else look at this machine's clock",
            lasting=True,
        )
    return Failure(f"the Climate Data Store cannot be reached at {key.url} ({said})", lasting=False)


def explain(error: Exception, request: Request, key: Key) -> Failure:
    """Why one request failed; `error` is what the engine raised.

    The store tells by HTTP status and, for requests that were accepted and failed later, by the text of the job:
    401 key, 403 licence or size or account, 400 and 422 request, 429 and 5xx "later".
    """
    status, said = _answer(error)
    low = said.lower()
    if isinstance(error, OSError) and error.errno in _FULL:
        return Failure(f"the disk is full ({error}); free some space or choose another source.cache", lasting=True)
    if status == 401 or _is_tls(error):
        return refusal(error, key)
    if "licence" in low and status == 403:
        return Failure(
            f"{request.dataset}: its licence is not accepted yet; log in, open {WEB_SITE}/datasets/{request.dataset}"
            "?tab=download#manage-licences, accept it at the end of the page, and start again",
            lasting=True,
        )
    if _TOO_LARGE.search(said):
        return Failure(
            f"{request.label}: the Climate Data Store refuses even {_count(request.fields)} ({said}); narrow data.area "
            "or raise source.grid",
            lasting=True,
            too_large=True,
        )
    if status == 403:
        return Failure(
            f"{request.label}: the Climate Data Store does not let this account have it ({said}); log in to {WEB_SITE} "
            "and see what it says there",
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
    return Failure(f"{request.label}: {said}", lasting=False, wait=_wait(error))


def _count(fields: int) -> str:
    return f"{fields} fields" if fields > 1 else "a single field"


def _is_tls(error: BaseException) -> bool:
    """A certificate was refused: of requests' errors, which need not be installed here, told by name."""
    return any(kind.__name__ == "SSLError" for kind in type(error).__mro__)


def _wait(error: Exception) -> float:
    """Seconds that the store asks for in its header Retry-After, a number or a date; 0 where it does not."""
    headers = getattr(getattr(error, "response", None), "headers", None) or {}
    text = str(headers.get("Retry-After", "")).strip()
    if re.fullmatch(r"\d+(\.\d*)?", text):
        return min(float(text), _LONGEST)
    if (parts := parsedate_tz(text)) is None:
        return 0.0
    return min(max(mktime_tz(parts) - time.time(), 0.0), _LONGEST)


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
