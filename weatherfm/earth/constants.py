"""Physical constants, each once, with units and source."""

from __future__ import annotations

GRAVITY = 9.80665
"""Standard gravity in m s-2 (WMO, CIMO Guide), by which geopotential height becomes geopotential."""

ZERO_CELSIUS = 273.15
"""K at 0 degrees Celsius (BIPM, definition of the degree Celsius)."""

TRIPLE_POINT = 273.16
"""K of the triple point of water, T0 of the IFS (IFS documentation, Part IV, chapter 12)."""

WATER_DENSITY = 1000.0
"""kg m-3 of liquid water: 1 kg m-2 stands 1 mm deep, the convention of every archive."""

GAS_CONSTANT_DRY_AIR = 287.0597
"""J kg-1 K-1: 8.31451 J mol-1 K-1 over 28.9644 g mol-1, as in the IFS (documentation, Part IV, chapter 12)."""

GAS_CONSTANT_WATER_VAPOUR = 461.5250
"""J kg-1 K-1: 8.31451 J mol-1 K-1 over 18.0153 g mol-1, as in the IFS (documentation, Part IV, chapter 12)."""

SOLAR_CONSTANT = 1361.0
"""W m-2 of sunlight at the mean distance of the Earth (Kopp and Lean 2011, doi:10.1029/2010GL045777: 1360.8)."""

EARTH_RADIUS = 6_371_229.0
"""m, of the spherical Earth of weather models (WMO GRIB2, code table 3.2, entry 6)."""
