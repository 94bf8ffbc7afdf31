"""Settings of a variable that the channel table does not have."""

from __future__ import annotations

from typing import Any

from pydantic import Field, model_validator

from weatherfm.config import Config

NAME = r"^[a-z][a-z0-9_]*$"


class VariableConfig(Config):
    """One physical quantity, as files hold it and the store keeps it."""

    long_name: str = Field(pattern=NAME)
    """Name on disk, in ERA5's manner, as `dust_optical_depth`."""
    units: str = Field(min_length=1)
    """Of the store, CF spelling, as `kg m-2`; files in multiples of them are converted."""
    bounds: tuple[float, float]
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

    @model_validator(mode="after")
    def _ascending(self) -> VariableConfig:
        if not self.bounds[0] < self.bounds[1]:
            raise ValueError(f"bounds {self.bounds[0]:g} and {self.bounds[1]:g} must ascend")
        return self

    @property
    def definition(self) -> dict[str, Any]:
        """As the channel table takes it (`weatherfm.earth.variables.add_variables`)."""
        told = self.model_dump(mode="json", exclude={"long_name"})
        return {**told, "era5": self.long_name}
