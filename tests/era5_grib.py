"""ERA5 as the Climate Data Store hands it out: GRIB messages of an invented atmosphere that answers any request."""

from __future__ import annotations

from itertools import product

import eccodes
import numpy as np

from weatherfm.earth.variables import VARIABLES

_NAMES = {"2m_temperature": "2t", "10m_u_component_of_wind": "10u", "10m_v_component_of_wind": "10v"}
_SIZE = {"z": (1e3, 9e2), "u10": (0.0, 9.0), "v10": (3.0, 9.0), "tp": (1e-3, 3e-4), "lsm": (0.5, 0.3)}
"""Mean (of z: where the pressure is 1000 hPa) and amplitude of variables that are no temperatures."""
_HOUR = np.timedelta64(3600, "s")


def invented(variable: str, level: int, time: np.datetime64, latitude: np.ndarray, longitude: np.ndarray) -> np.ndarray:
    """[lat, lon] in ERA5's units; constants do not depend on time."""
    mean, amplitude = _SIZE.get(variable, (280.0, 10.0))
    hours = 0.0 if variable == "lsm" or (variable == "z" and not level) else (time - np.datetime64(0, "s")) / _HOUR
    lat, lon = np.deg2rad(latitude)[:, None], np.deg2rad(longitude)
    wave = np.sin(lat + 0.1 * level) + 0.5 * np.cos(lon - 0.05 * hours)
    if variable == "z" and level:
        mean += 287.0 * 250.0 * np.log(1000 / level)  # of an atmosphere of 250 K
    return mean + amplitude * wave / 1.5


def answer(inputs: dict, first_era5t: str = "2100-01-01", last_day: str = "2100-01-01", **changes) -> bytes:
    """The file for a request; days from `first_era5t` on are experiment version 5, after `last_day` there are none."""
    inputs = {**inputs, **changes}
    on_levels = "pressure_level" in inputs
    days = [f"{y}-{m}-{d}" for y, m, d in product(inputs["year"], inputs["month"], inputs["day"])]
    levels = [int(level) for level in inputs.get("pressure_level", [0])]
    messages = []
    for name, day, clock, level in product(inputs["variable"], days, inputs["time"], levels):
        if day <= last_day:
            time = np.datetime64(f"{day}T{clock}", "s")
            short = next(v.short for v in VARIABLES.values() if v.era5 == name and (v.on_levels or not on_levels))
            messages.append(_message(short, level, time, inputs, "0005" if day >= first_era5t else "0001"))
    return b"".join(messages)


def _message(short: str, level: int, time: np.datetime64, inputs: dict, version: str) -> bytes:
    step = float(inputs.get("grid", "0.25/0.25").split("/")[0])
    north, west, south, east = inputs.get("area", (90.0, 0.0, -90.0, 360.0 - step))
    latitude, longitude = np.arange(north, south - step / 2, -step), np.arange(west, east + step / 2, step)
    message = eccodes.codes_grib_new_from_samples(f"regular_ll_{'pl' if level else 'sfc'}_grib1")
    start, steps = time, {}
    if short == "tp":  # forecasts from 06 and 18 UTC, each step the sum of its own hour
        start = time - (((time - np.timedelta64(6, "h")).astype(int) // 3600 - 1) % 12 + 1) * _HOUR
        lead = int((time - start) / _HOUR)
        steps = {"stepType": "accum", "stepRange": f"{lead - 1}-{lead}"}
    date, clock = (
        str(start.astype("datetime64[D]")).replace("-", ""),
        int((start - start.astype("datetime64[D]")) / _HOUR),
    )
    keys = {
        "class": "ea", "stream": "oper", "type": "fc" if steps else "an", "expver": version,
        "Ni": len(longitude), "Nj": len(latitude),
        "latitudeOfFirstGridPointInDegrees": north, "latitudeOfLastGridPointInDegrees": latitude[-1],
        "longitudeOfFirstGridPointInDegrees": west, "longitudeOfLastGridPointInDegrees": longitude[-1],
        "iDirectionIncrementInDegrees": step, "jDirectionIncrementInDegrees": step,
        "dataDate": int(date), "dataTime": clock * 100, "typeOfLevel": "isobaricInhPa" if level else "surface",
        **({"level": level} if level else {}), "shortName": _NAMES.get(VARIABLES[short].era5, short), **steps,
        "bitsPerValue": 16,
    }  # fmt: skip
    for key, value in keys.items():
        eccodes.codes_set(message, key, value)
    eccodes.codes_set_values(message, invented(short, level, time, latitude, longitude).ravel())
    encoded = bytes(eccodes.codes_get_message(message))
    eccodes.codes_release(message)
    return encoded
