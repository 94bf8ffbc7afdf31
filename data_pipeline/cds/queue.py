"""What is missing is asked of the Climate Data Store: a few requests at a time, nothing twice."""

from __future__ import annotations

import logging
import warnings
from datetime import UTC, date, datetime
from functools import partial

from weatherfm.data_pipeline.cds.box import Box
from weatherfm.data_pipeline.cds.downloads import Downloads
from weatherfm.data_pipeline.cds.engines import Patience, client_for, open_engine
from weatherfm.data_pipeline.cds.failures import refusal
from weatherfm.data_pipeline.cds.grouping import requests_for
from weatherfm.data_pipeline.cds.held import not_held
from weatherfm.data_pipeline.cds.key import Key, find_key
from weatherfm.data_pipeline.cds.request_threads import RequestThreads
from weatherfm.data_pipeline.cds.requests import Request
from weatherfm.data_pipeline.cds.wanted import Wanted
from weatherfm.data_pipeline.machine.cache_folder import check_room, check_writable
from weatherfm.data_pipeline.source_config import CdsSource
from weatherfm.errors import InputError, OutsideError
from weatherfm.home import expanded

PATIENCE = Patience()
_log = logging.getLogger(__name__)


def downloads_of(source: CdsSource) -> Downloads:
    """The folder that the settings name."""
    return Downloads(expanded(source.cache))


def today() -> date:
    """UTC, as the store counts days."""
    return datetime.now(UTC).date()


def missing(wanted: Wanted, box: Box, source: CdsSource) -> list[Request]:
    """The requests that bring what no file holds, and final ERA5 where only ERA5T is here and final ERA5 is due."""
    return requests_for(not_held(wanted, box, downloads_of(source).held(), today()), box)


def bring(wanted: Wanted, box: Box, source: CdsSource) -> None:
    """Download the fields that are not there yet.

    What has come stays when this is interrupted; the same call then goes on. Requests that wait in the queue of the
    store go on waiting there, and their answers are handed out at once when they are asked for again.

    Raises:
        InputError: no key or a refused one, an engine that is not installed, a folder without room or that cannot be
            written to, a licence, or a request that the store cannot answer.
        OutsideError: the store could not be reached or failed again and again.
    """
    downloads = downloads_of(source)
    if not (requests := missing(wanted, box, source)):
        return
    check_writable(downloads.folder, "downloads")
    check_room(downloads.folder, sum(one.bytes for one in requests), "the downloads")
    key = find_key()
    with downloads.arriving() as folder:
        requests = missing(wanted, box, source)  # another process may have brought them
        downloads.remove_replaced(today())
        with open_engine(source.engine, folder, partial(client_for, key, PATIENCE)) as retrieve:
            _knock(key)
            RequestThreads(downloads, retrieve, key, PATIENCE).run(requests, source.concurrent)


def _knock(key: Key) -> None:
    """One cheap question, so that a bad key or a machine without internet is told now and not after a long wait."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)  # of its news page, when there is no internet
            client = client_for(key, Patience(tries=1))
        client.client.check_authentication()
    except (OSError, ValueError) as error:  # every error of requests is an OSError
        failure = refusal(error, key)
        if failure.lasting:
            raise InputError(failure.text) from error
        raise OutsideError(
            f"{failure.text}; what was downloaded is kept: start again where there is a way to the internet"
        ) from error
