"""What a store says about itself: the settings that made it and its manifest."""

from __future__ import annotations

from collections.abc import Mapping
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

from pydantic import ValidationError

from weatherfm.data_pipeline.design.store_design import StoreDesign
from weatherfm.data_pipeline.fields.time_ranges import to_ranges
from weatherfm.data_pipeline.store.records.manifest import CHUNK_CHECKSUMS, FORMAT, FORMAT_VERSION, seal
from weatherfm.data_pipeline.store_config import DataConfig
from weatherfm.data_pipeline.writing.skeleton import transforms_of
from weatherfm.earth.variables import VARIABLES, own_variables, parse_channel

if TYPE_CHECKING:
    from weatherfm.data_pipeline.fields.source_data import SourceData


_COUNT, _AREA = "none: every time and grid point counts once", "area: grid points count by the area of their cells"


def content_settings(config: DataConfig) -> dict[str, Any]:
    """The settings that decide a store's content: not its place, nor how its source is reached.

    Nor which snapshot of a repository was named: the one that was read is the identity of that source.
    """
    settings: dict[str, Any] = config.model_dump(mode="json", exclude={"store"})
    settings["source"] = _without_places(settings["source"])
    return settings


def _without_places(source: dict[str, Any]) -> dict[str, Any]:
    """Of a source and of those that it is made of: what decides on fields, not where downloads are kept."""
    kept = {name: value for name, value in source.items() if name not in ("cache", "engine", "concurrent", "snapshot")}
    if "parts" in kept:
        kept["parts"] = [{**part, "source": _without_places(part["source"])} for part in kept["parts"]]
    return kept


def with_defaults(settings: dict[str, Any]) -> dict[str, Any]:
    """Settings that an older version wrote, with the defaults of settings that came since."""
    try:
        return content_settings(DataConfig.model_validate({**settings, "store": "any"}))
    except ValidationError:  # it has settings that are gone: they differ from any of today
        return settings


def build_manifest(
    design: StoreDesign,
    source: SourceData,
    records: Mapping[str, Mapping[str, Any]],
    small: Mapping[str, Mapping[str, Any]],
) -> dict[str, Any]:
    """All that is known of a store, sealed; without time stamps, so that the same input gives the same bytes.

    Args:
        design: of the store.
        source: where it came from.
        records: name -> {`sha256`, `bytes`} of the records of its files.
        small: key -> the same of its files that are no shards: what training reads is checked against these.
    """
    config = design.config
    periods = {
        name: None if period is None else period.model_dump(mode="json") for name, period in design.periods.items()
    }
    settings = content_settings(config)
    weights = "one mean over all days" if config.climatology_window is None else "triangle, zero at both ends"
    return seal(
        {
            "format": FORMAT,
            "format_version": FORMAT_VERSION,
            "code_version": version("weatherfm"),
            "source": {
                "kind": config.source.kind,
                "simulated": source.simulated,
                "request": settings["source"],
                "attributes": source.attributes,
            },
            "request": settings,
            "channels": [_describe(name, source) for name in config.channels],
            "static": [{"name": name, "units": VARIABLES[name].units} for name in config.static],
            **({"variables": own} if (own := own_variables(config.channels)) else {}),
            **({"masks": list(design.masks)} if design.masks else {}),
            "grid": design.grid.to_dict(),
            **({"chunk_checksums": CHUNK_CHECKSUMS} if design.checked else {}),
            "times": _times(design),
            "periods": periods,
            "statistics": {"period": periods["train"], "weights": _AREA if config.area_weighted else _COUNT},
            **({"transforms": scales} if (scales := transforms_of(config)) else {}),
            "climatology": {
                "period": periods["train"],
                "window_days": config.climatology_window,
                "weights": weights,
                "hours": design.hours.tolist(),
            },
            "tendency": {
                "period": periods["train"],
                "lead_hours": design.tendency_lead,
                **({"more_lead_hours": list(design.more_leads)} if design.more_leads else {}),
            },
            "records": records,
            "small": small,
        }
    )


def _times(design: StoreDesign) -> dict[str, Any]:
    axis = design.axis
    return {
        "start": str(axis.times[0]),
        "end": str(axis.times[-1]),
        "count": len(axis.times),
        "step_hours": axis.step_hours,
        "missing": to_ranges(axis.missing, axis.step_hours),
        **({"empty": to_ranges(axis.empty, axis.step_hours)} if len(axis.empty) else {}),
        "preliminary": to_ranges(axis.times[design.preliminary], axis.step_hours),
    }


def _describe(name: str, source: SourceData) -> dict[str, Any]:
    channel = parse_channel(name)
    return {
        "name": channel.name,
        "era5": channel.variable.era5,
        "standard_name": channel.variable.standard_name,
        "units": channel.units,
        "level": channel.level,
        "accumulated": channel.variable.accumulated,
        "accumulation_hours": source.attributes.get("accumulation", {}).get(name, {}).get("window_hours"),
    }
