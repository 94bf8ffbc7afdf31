"""weatherfm: from ERA5 to a verified forecast.

`weatherfm.data_pipeline`, `weatherfm.training` and `weatherfm.evaluation` do what their names say; the modules of
this package itself are the model, mathematics only, and the command line. From Python:

    model = weatherfm.load("weights.safetensors")
    forecast = weatherfm.forecast(model, states, lead_times=["24h", "72h"])  # xarray in, xarray out

What cannot be is `weatherfm.InputError`, a ValueError whose message says what to do.
"""

from __future__ import annotations

import typing as _typing
from importlib import import_module as _import_module

if _typing.TYPE_CHECKING:
    from weatherfm.data_pipeline.store.training_store import open_store
    from weatherfm.errors import InputError
    from weatherfm.evaluation.forecasting.in_memory import forecast
    from weatherfm.model.weights import load

__version__ = "0.1.0"
__all__ = ["InputError", "__version__", "forecast", "load", "open_store"]

_PLACES = {
    "InputError": "weatherfm.errors",
    "forecast": "weatherfm.evaluation.forecasting.in_memory",
    "load": "weatherfm.model.weights",
    "open_store": "weatherfm.data_pipeline.store.training_store",
}
"""Imported when first asked for: the command answers `--help` without torch."""


def __getattr__(name: str) -> _typing.Any:
    if name not in _PLACES:
        raise AttributeError(f"module 'weatherfm' has no attribute {name!r}")
    value = getattr(_import_module(_PLACES[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__} - {"annotations"})
