"""Where data come from: one module a source, each with `open_source`, found by the `kind` of its settings."""

from __future__ import annotations

import importlib

from weatherfm.data_pipeline.fields.daily import by_day, samples_of
from weatherfm.data_pipeline.fields.source_data import SourceData
from weatherfm.data_pipeline.joined_config import ChainSource, JoinSource
from weatherfm.data_pipeline.store_config import DataConfig


def open_source(data: DataConfig) -> SourceData:
    """Open the source the settings name, on the grid they ask for; reads headers, no fields.

    Paths are made absolute here: what reads them may run in another folder.

    Raises:
        InputError: the source cannot give what the settings ask for.
    """
    data = data.located()
    module = importlib.import_module(f"weatherfm.data_pipeline.sources.{data.source.kind.replace('-', '_')}")
    if isinstance(data.source, JoinSource | ChainSource):
        whole: SourceData = module.open_source(data)
        return whole  # its parts are days and on its grid when they meet
    source: SourceData = module.open_source(samples_of(data))
    if data.daily is not None and data.channels:  # constant fields have no days
        source = by_day(source, data)
    if data.area is None and data.regrid is None:
        return source
    from weatherfm.data_pipeline.fields.regrid import place  # needs scipy, which most stores do not

    return place(source, data.area, data.regrid)
