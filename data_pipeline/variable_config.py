"""Settings of a variable that the channel table does not have."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

from pydantic import Field, model_validator

from weatherfm.config import Config
from weatherfm.earth.variables import Variable
from weatherfm.errors import InputError

Statistic = Literal["mean", "minimum", "maximum"]
"""Of the values of a day."""
NAME = r"^[a-z][a-z0-9_]*$"


class VariableConfig(Config):
    """One physical quantity, as files hold it and the store keeps it, or another one's daily statistic."""

    later = frozenset({"on_wavelengths"})

    of: str | None = None
    """Another variable by its short name, of which this is a statistic over each day (`data.daily`): of `t2m`, as in
    `{t2m_max: {of: t2m, daily: maximum}}`; it then has that one's units and bounds."""
    daily: Statistic | None = None
    """Which, where `of` is given."""
    long_name: str | None = Field(None, pattern=NAME)
    """Name on disk, in ERA5's manner, as `dust_optical_depth`; of a daily statistic it may be left out."""
    units: str | None = Field(None, min_length=1)
    """Of the store, CF spelling, as `kg m-2`; files in multiples of them are converted."""
    bounds: tuple[float, float] | None = None
    """Lowest and highest value that is possible, in these units: others are refused."""
    standard_name: str = ""
    """Of the CF table, where it has one."""
    aliases: list[str] = []
    """Other names that files have for it."""
    on_levels: bool = False
    """On pressure levels: channels are its name and the level in hPa, as `dust500`."""
    accumulated: bool = False
    """A sum over a span that ends at its time."""
    masked: bool = False
    """It has values over the sea alone, or over land alone."""
    on_wavelengths: bool = False
    """Of pictures: at wavelengths of light; channels are its name and the wavelength in nm, as `radiance550`."""

    @model_validator(mode="after")
    def _whole(self) -> VariableConfig:
        if (self.of is None) != (self.daily is None):
            raise ValueError("a daily statistic needs both: of, the variable, and daily: mean, minimum or maximum")
        own = {"units": self.units, "bounds": self.bounds}
        if self.of is not None and any(own.values()):
            raise ValueError(f"units and bounds are those of {self.of}; leave them out")
        lacking = [name for name, value in {"long_name": self.long_name, **own}.items() if value is None]
        if self.of is None and lacking:
            raise ValueError(f"{' and '.join(lacking)} missing; a variable needs long_name, units and bounds")
        if self.on_wavelengths and (self.on_levels or self.of is not None):
            raise ValueError("a variable at wavelengths has no pressure levels and no days; leave the others out")
        if self.bounds is not None and not self.bounds[0] < self.bounds[1]:
            raise ValueError(f"bounds {self.bounds[0]:g} and {self.bounds[1]:g} must ascend")
        return self

    def definition(self, known: Mapping[str, Variable]) -> dict[str, Any]:
        """As the channel table takes it (`weatherfm.earth.variables.add_variables`).

        Args:
            known: the table so far.

        Raises:
            InputError: a statistic of a variable that is not in it, or of a sum.
        """
        if self.of is None:
            told = self.model_dump(mode="json", exclude={"long_name", "of", "daily"})
            return {**told, "era5": self.long_name}
        base = known.get(self.of)
        if base is None or base.accumulated or base.constant:
            raise InputError(
                f"variables: there is no daily {self.daily} of {self.of!r}; name a variable of single times, such as "
                f"t2m{' (sums become those of the day)' if base is not None and base.accumulated else ''}"
            )
        return {
            "era5": self.long_name or f"{base.era5}_daily_{self.daily}",
            "standard_name": base.standard_name,
            "units": base.units,
            "bounds": list(base.bounds),
            "aliases": list(self.aliases),
            "on_levels": base.on_levels,
            "masked": base.masked,
        }
