"""Settings of the places data come from: one class a source, told apart by `kind`."""

from __future__ import annotations

import os
import re
from typing import Annotated, Any, ClassVar, Literal, Self

from pydantic import (
    BeforeValidator,
    Field,
    PlainSerializer,
    TypeAdapter,
    ValidationError,
    model_validator,
)

from weatherfm.config import Config, Hours
from weatherfm.data_pipeline.access import Access
from weatherfm.home import expanded

ADDRESS = re.compile(r"[a-zA-Z][a-zA-Z0-9+.-]+:(//|:)")
"""Start of gs://, s3://, https:// and the like, which are no paths of this machine."""

_ALL = "*"
_ECMWF = "https://arco.datastores.ecmwf.int"


def _parse_lead(value: Any) -> Any:
    if value == "shortest":
        return value
    try:
        return TypeAdapter(Hours).validate_python(value)
    except ValidationError:
        raise ValueError("write a whole time span with its unit, such as 6h, or shortest") from None


def _parse_sums(value: Any) -> Any:
    spans = value if isinstance(value, dict) else {_ALL: value}
    for name, said in spans.items():
        hours = re.fullmatch(r"(\d+)([hd])", str(said).replace(" ", ""))
        if said not in ("since_midnight", "since_start") and not (hours and int(hours[1])):
            of = "" if name == _ALL else f" for {name}"
            raise ValueError(f"write what sums span as 1h (or 6h, 1d), since_midnight or since_start, got {said!r}{of}")
    return {str(name): _in_hours(str(said).replace(" ", "")) for name, said in spans.items()}


def _in_hours(said: str) -> str:
    return f"{24 * int(said[:-1])}h" if re.fullmatch(r"\d+d", said) else said


Lead = Annotated[
    int | str,
    BeforeValidator(_parse_lead),
    PlainSerializer(lambda lead: lead if isinstance(lead, str) else f"{lead}h", when_used="json"),
]
"""Hours, or `shortest`."""


def _parse_experiment(value: Any) -> Any:
    """YAML reads 0001 as a number."""
    text = f"{value}" if isinstance(value, int) and not isinstance(value, bool) else value
    return text.zfill(4) if isinstance(text, str) and text.isdigit() else text


def absolute(path: str) -> str:
    """A path that means the same in every folder; an address is one already."""
    return path if ADDRESS.match(path) else os.path.abspath(expanded(path))


class SourceConfig(Config):
    """Base of the settings of all sources."""

    _places: ClassVar[tuple[str, ...]] = ()
    """Settings that hold a path, or a list of paths."""

    def located(self) -> Self:
        """The same with absolute paths."""
        found = {name: getattr(self, name) for name in self._places}
        return self.model_copy(
            update={
                name: [absolute(one) for one in value] if isinstance(value, list) else value and absolute(value)
                for name, value in found.items()
            }
        )


class _Stores(SourceConfig):
    """What sources of Zarr stores have in common."""

    storage_options: dict[str, Any] = Field({}, exclude=True, repr=False)
    """What opens private stores, by the names that fsspec's packages have for it: `{token: ...}`,
    `{key: ..., secret: ...}`, `{requester_pays: PROJECT}`, `{endpoint_url: ...}`, `{sas_token: ...}`,
    `{headers: {...}}`. Never written into manifests, logs or messages."""
    missing_chunks: Literal["refuse", "fill"] = "refuse"
    """A chunk that is not there: an error, or (`fill`) the array's fill value, for stores whose writers leave out
    chunks of nothing else, such as precipitation on dry days."""

    @property
    def access(self) -> Access:
        """How the stores are opened."""
        return Access.of(self.storage_options, self.missing_chunks)


class FilesSource(_Stores):
    """NetCDF, GRIB and Zarr files and Icechunk repositories on disk, Zarr stores by address (gs://, s3://, https://),
    datasets served by OPeNDAP (https://.../dodsC/..., dap2://)."""

    _places: ClassVar = ("paths", "static_paths")
    kind: Literal["files"]
    paths: list[Annotated[str, Field(min_length=1)]] = Field(min_length=1)
    """Files or patterns (`era5/*.nc`); formats may be mixed, and one variable may stand in many files."""
    static_paths: list[str] = []
    """Files that hold constant fields (orography, land-sea mask), where those are not among `paths`."""
    exclude: list[str] = []
    """Names or patterns (`*f003`) of files that `paths` match but that should be left out."""
    levels: dict[str, int] = {}
    """Pressure level in hPa of a variable whose file does not say it, e.g. `{z: 500, t: 850}`; a pattern with `*`
    (`{"z850_*.nc": 850}`) names files instead, where one name stands for several levels."""
    units: dict[str, str] = {}
    """Units of a variable whose file does not say them or says them wrongly, by the file's name for it."""
    rename: dict[str, str] = {}
    """The file's name -> our short name, for names the channel table does not know; of GRIB also the name at one layer,
    as `{"t:surface:0": skt}` (shortName:typeOfLevel:level; the level may be left out)."""
    kinds: list[str] = []
    """What fields are taken: none named, the state of the atmosphere; else fields that are all of these kinds, such as
    `[monthly_mean]` or `[ensemble_mean]` (listed in `formats/meaning/kinds.py`; a refusal names the kind of what it
    refuses)."""
    experiment: Annotated[str | None, BeforeValidator(_parse_experiment)] = None
    """The experiment (expver) to read where files hold several, e.g. `"0001"`."""
    number: int | None = Field(None, ge=0)
    """The ensemble member to read where files hold several."""
    lead_time: Lead | None = None
    """The forecast step to read where files hold several; the store's time is then the valid time. `shortest`: of
    forecasts that overlap, the latest for each time."""
    sums: Annotated[dict[str, str], BeforeValidator(_parse_sums)] = {}
    """What fields of an accumulated variable are sums over, where its file does not say: `1h`, `since_midnight` (from
    00 UTC, as ERA5-Land) or `since_start` (of the forecast); one value for all, or by the file's name for a variable
    (`{tp: 1h}`), which goes before what the file says. By the name of a rate (`{pr: 24h}`): each value is its mean over
    the time before."""
    snapshot: str | None = None
    """Of Icechunk repositories: the id of a snapshot, a tag or a branch to read; without it, the newest of branch main.
    When there is a newer one, an interrupted `prepare` names the one that it was begun with."""
    cache: str = "~/.cache/weatherfm/unpacked"
    """Folder where ZIP archives among `paths` are unpacked; it may be deleted at any time."""

    @property
    def access(self) -> Access:
        """How the stores are opened, and which snapshot of repositories."""
        return Access.of(self.storage_options, self.missing_chunks, self.snapshot)

    def sums_of(self, name: str, channel: str) -> str | None:
        """What `sums` says of the file's variable `name`, which holds `channel`."""
        return self.sums.get(name, self.sums.get(channel, self.sums.get(_ALL)))

    def names_sum(self, name: str, channel: str) -> bool:
        """`sums` speaks of this very variable, not of all."""
        return name in self.sums or channel in self.sums

    def located(self) -> Self:
        """The same with absolute paths; a pattern of `exclude` that is a name stays one."""
        places = [absolute(pattern) for pattern in self.exclude if "/" in pattern]
        return super().located().model_copy(update={"exclude": list(dict.fromkeys([*self.exclude, *places]))})

    @property
    def reading_rules(self) -> dict[str, Any]:
        """What of this holds for other files of the same kind, as plain JSON: names, levels, units, forecast step.

        Not which files, and which of their members or experiments: from any of them may be forecast.
        """
        of_these_files = {"kind", "paths", "static_paths", "exclude", "number", "experiment", "snapshot", "cache"}
        return self.model_dump(mode="json", exclude=of_these_files, exclude_defaults=True)


class PlanetSource(SourceConfig):
    """A simulated dry atmosphere (Held-Suarez), 6-hourly from 2001-01-01 on; never mistake it for observations."""

    _places: ClassVar = ("cache",)
    later = frozenset({"mountains", "turn", "contrast"})
    kind: Literal["planet"]
    seed: int = Field(0, ge=0)
    """Another seed is another weather history of the same planet."""
    mountains: float = Field(1.0, ge=0, le=2)
    """Factor of the heights of the mountains; 0: none, and no land. Another ground is another planet."""
    turn: float = Field(0.0, ge=0, lt=360)
    """Degrees by which the mountains lie further east, any number; 0 where there are none."""
    contrast: float = Field(60.0, ge=30, le=90)
    """K by which the equator is warmer than the poles in the temperature that the air is drawn to (Held and Suarez's
    dTy): larger, stronger jets and storms. Another climate is another planet."""
    cache: str = "~/.cache/weatherfm/planet"
    """Folder where finished months of simulation are kept (33 MB each); it may be deleted at any time."""

    @model_validator(mode="after")
    def _one_name(self) -> Self:
        """Else one planet had many names, and a model would be scored on days it has seen."""
        if self.turn and not self.mountains:
            raise ValueError(f"mountains: 0 leaves nothing to turn, but turn is {self.turn:g}; leave it out")
        return self


class WeatherBench2Source(_Stores):
    """ERA5 as WeatherBench2 keeps it on Google Cloud: public, no key; 6-hourly, several resolutions."""

    _places: ClassVar = ("address",)
    kind: Literal["weatherbench2"]
    resolution: Literal["64x32", "240x121", "512x256", "1440x721"] = "64x32"
    """Longitudes x latitudes of the copy to read, as WeatherBench2 writes it."""
    address: str | None = None
    """Another place of such a copy, instead of `resolution`: a folder, or a gs://, s3:// or https:// address."""


class ArcoSource(_Stores):
    """ARCO-ERA5 on Google Cloud: public, no key; hourly from 1940 on, 0.25 degrees, 37 levels in one chunk."""

    _places: ClassVar = ("address",)
    kind: Literal["arco"]
    address: str = "gs://gcp-public-data-arco-era5/ar/full_37-1h-0p25deg-chunk-1.zarr-v3"
    """A folder, or a gs://, s3:// or https:// address of a store laid out like it."""
    preliminary: bool = False
    """Also take the last months, which are ERA5T: `weatherfm append` replaces them once they are final."""


class CdsZarrSource(_Stores):
    """ERA5 as ECMWF itself keeps it in Zarr for the Climate Data Store (a beta service), which needs its (free) key;
    0.25 degrees, from 1940 on, single levels every hour and pressure levels every six."""

    _places: ClassVar = ("single_levels", "pressure_levels", "static_paths")
    kind: Literal["cds-zarr"]
    single_levels: str = f"{_ECMWF}/cadl-arco-time-002/arco/reanalysis_era5_single_levels/sfc/timeChunked.zarr"
    """The store of single levels: a folder or address of one laid out like it. ECMWF calls the copies whose chunks are
    whole fields `timeChunked`; those that it calls `geoChunked` hold long series of a few points."""
    pressure_levels: str = f"{_ECMWF}/cadl-arco-time-048/arco/reanalysis_era5_pressure_levels/pl/timeChunked.zarr"
    """The store of pressure levels, likewise."""
    static_paths: list[str] = []
    """Files that hold constant fields (orography, land-sea mask), which ECMWF's stores lack."""
    preliminary: bool = False
    """Also take the last months, which are ERA5T: `weatherfm append` replaces them once they are final."""


class CdsSource(SourceConfig):
    """ERA5 from the Copernicus Climate Data Store, which needs a (free) key; downloads are kept as they come."""

    _places: ClassVar = ("cache",)
    kind: Literal["cds"]
    cache: str = "~/.cache/weatherfm/cds"
    """Folder of what was downloaded; a request that is there is not sent again."""
    engine: Literal["climetlab", "earthkit"] = "climetlab"
    """The package that sends requests; climetlab comes with weatherfm[cds], earthkit-data is its successor."""
    grid: float = Field(0.25, gt=0)
    """Degrees between points of the regular grid that the store delivers; 0.25 is ERA5's own."""
    concurrent: int = Field(2, ge=1, le=8)
    """Requests in the queue at a time; the store serves each user only a few."""


OneSource = FilesSource | PlanetSource | WeatherBench2Source | ArcoSource | CdsZarrSource | CdsSource
"""Each by itself; `joined_config.py` has those that are made of several."""
