"""Settings of sources whose fields are pictures: cubes of rows, columns and bands, and simulated leaves."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar, Literal, Self

from pydantic import Field, model_validator

from weatherfm.config import Config
from weatherfm.data_pipeline.source_config import SourceConfig, absolute
from weatherfm.errors import InputError

CUBE, FOLDER = "{cube}", "{folder}"
"""Stand in names of files for the name of each cube, without its ending, and for its folder."""
_NO_PICTURES = (
    "static", "area", "regrid", "accumulation", "step", "step_offset", "daily", "exclude", "tendency_lead",
    "tendency_leads",
)  # fmt: skip
"""Settings of `data` that mean nothing where fields are pictures."""


class HeldOut(Config):
    """Which crops are kept for validation or test: those of whole cubes, or of the lower rows of every other cube."""

    cubes: list[str] = []
    """Names of cubes, or patterns, without ending (and without folder, unless several have the same name)."""
    rows: float | None = Field(None, gt=0, lt=1)
    """Share of the rows of each cube; crops do not reach over its edge."""

    @model_validator(mode="after")
    def _one_way(self) -> Self:
        if bool(self.cubes) == (self.rows is not None):
            raise ValueError("give either cubes, as [leaf_07, plot3_*], or rows, as 0.2")
        return self


class Plant(Config):
    """Which pixels are plant: all others are background, and hold 0 in every channel."""

    at: float | None = Field(None, gt=0)
    """Wavelength in nm: plant is where its reflectance is above `above`."""
    index: tuple[float, float] | None = None
    """Or two wavelengths in nm, as [800, 670]: plant is where (first - second) / (first + second) is above `above`."""
    above: float | None = None
    """Threshold of `at` or `index`."""
    image: str | None = None
    """Or a picture of one band (ENVI or .npy [row, column]) that is not 0 where the plant is; `{cube}` stands for the
    name of each cube, `{folder}` at the beginning for its folder."""

    @model_validator(mode="after")
    def _one_way(self) -> Self:
        if sum(given is not None for given in (self.at, self.index, self.image)) != 1:
            raise ValueError("give one of at, as 800, index, as [800, 670], and image")
        if (self.above is None) != (self.image is not None):
            raise ValueError("at and index need a threshold, above: 0.2; an image has none")
        return self


class CubesSource(SourceConfig):
    """Pictures of many bands (hyperspectral cubes) on disk: ENVI, and arrays of NumPy. Each crop is one time."""

    _places: ClassVar = ("paths",)
    kind: Literal["cubes"]
    paths: list[str] = Field(min_length=1)
    """Headers of ENVI (.hdr, the data beside it), .npy or .npz files, or patterns."""
    crop: int | tuple[int, int]
    """Pixels of a crop, one number or [rows, columns]: the grid of the store."""
    stride: int | tuple[int, int] | None = None
    """Pixels from one crop to the next; without it, `crop`: they lie side by side. Smaller, they overlap."""
    validation: HeldOut | None = None
    """Crops on which training measures itself, as `{rows: 0.2}` or `{cubes: [leaf_07]}`; they share no pixel with
    others."""
    test: HeldOut | None = None
    """Crops from which nothing is learned or chosen, as `{cubes: [leaf_09]}`, with the settings of `validation`."""
    tolerance: float = Field(2.0, gt=0)
    """nm by which the centre of the nearest band may miss a channel's wavelength."""
    band_width: float | None = Field(None, gt=0)
    """nm: a channel is the mean of all bands whose centres lie in this width about its wavelength (the lower end
    counts, the upper not); without it, the nearest band as it is."""
    wavelengths: list[float] | str | None = None
    """Centres of the bands, for files that do not say them: numbers, or a text file of numbers."""
    wavelength_units: Literal["nm", "um"] | None = None
    """Of the bands' centres, for files that do not say them."""
    axes: tuple[str, str, str] = ("row", "column", "band")
    """Order of the axes of .npy and .npz files."""
    byte_order: Literal["little", "big"] | None = None
    """Of ENVI files whose headers do not say it."""
    white: float | str | None = None
    """White reference: a number, or a file (ENVI or .npy: a picture with the cube's columns, or [band]), of which the
    mean over lines is taken for each column; `{cube}` stands for the name of each cube, `{folder}` at the beginning
    for its folder. Reflectance is then (value - dark) / (white - dark). Without it, values are divided by the header's
    `reflectance scale factor`, or taken as they are."""
    dark: float | str | None = None
    """Dark reference, likewise; without it, 0."""
    clip: bool = False
    """Bring reflectances below 0 to 0, and above 1 to 1: noise in the dark, and glare."""
    plant: Plant | None = None
    """Which pixels are plant; without it, all."""
    least_plant: float = Field(0.0, ge=0, le=1)
    """Crops with a smaller share of plant are left out."""

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if min(*self.crop_shape, *self.stride_shape) < 1 or min(self.crop_shape) < 2:
            raise InputError(f"source.crop {self.crop} and stride {self.stride} must be 2 and 1 pixels at least")
        if self.dark is not None and self.white is None:
            raise InputError("source.dark needs a white reference too; give source.white")
        if self.least_plant and self.plant is None:
            raise InputError("source.least_plant needs source.plant, which says what is plant")
        if sorted(self.axes) != ["band", "column", "row"]:
            raise InputError(f"source.axes {list(self.axes)} must be row, column and band, in the order of the files")
        rows = sum(own.rows or 0 for own in (self.validation, self.test) if own is not None)
        if rows >= 1:
            raise InputError(f"source.validation and source.test take {rows:g} of all rows: none are left to train on")
        return self

    @property
    def crop_shape(self) -> tuple[int, int]:
        """(rows, columns) of a crop."""
        return _pair(self.crop)

    @property
    def stride_shape(self) -> tuple[int, int]:
        """(rows, columns) from one crop to the next."""
        return self.crop_shape if self.stride is None else _pair(self.stride)

    def located(self) -> Self:
        """The same with absolute paths."""
        named = {name: getattr(self, name) for name in ("white", "dark", "wavelengths")}
        update: dict[str, Any] = {name: _placed(one) for name, one in named.items() if isinstance(one, str)}
        if self.plant is not None and self.plant.image is not None:
            update["plant"] = self.plant.model_copy(update={"image": _placed(self.plant.image)})
        return super().located().model_copy(update=update)


class LeavesSource(SourceConfig):
    """Simulated leaves (PROSPECT-D by the package prosail), a picture a day from 2001-01-01 on; never observations."""

    kind: Literal["leaves"]
    size: int | tuple[int, int] = 16
    """Pixels of a picture, one number or [rows, columns]; each takes one to four milliseconds."""
    seed: int = Field(0, ge=0)
    """Another seed is other leaves."""

    @model_validator(mode="after")
    def _large_enough(self) -> Self:
        if min(self.shape) < 2:
            raise InputError(f"source.size {self.size} must be 2 pixels at least")
        return self

    @property
    def shape(self) -> tuple[int, int]:
        """(rows, columns) of a picture."""
        return _pair(self.size)


PictureSource = CubesSource | LeavesSource


def refuse_for_pictures(source: object, settings: Mapping[str, Any]) -> None:
    """Refuse settings of `data` that mean nothing of pictures.

    Args:
        source: whatever `data.source` is; of other sources nothing is refused.
        settings: name -> value of those that were given and are not their defaults.

    Raises:
        InputError: names them all.
    """
    if not isinstance(source, PictureSource):
        return
    idle = [name for name in _NO_PICTURES if name in settings]
    if isinstance(source, CubesSource):
        idle += [name for name in ("period", "allow_gaps") if name in settings]
        if split := [name for name in ("train", "validation", "test") if name in settings]:
            raise InputError(
                f"data.{', data.'.join(split)} {'are' if split[1:] else 'is'} given in days, and crops of cubes have "
                "none: hold out cubes or rows with source.validation and source.test"
            )
    if idle:
        raise InputError(f"pictures (kind: {source.kind}) have no data.{', data.'.join(idle)}; leave that out")
    if settings.get("climatology_window", 0) is not None:
        raise InputError("pictures have no seasons; set data.climatology_window: null for one mean over the training")


def _placed(path: str) -> str:
    """An absolute path, or one in the folder of each cube."""
    return path if path.startswith(FOLDER) else absolute(path)


def _pair(given: int | tuple[int, int]) -> tuple[int, int]:
    return (given, given) if isinstance(given, int) else given
