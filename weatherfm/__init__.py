"""weatherfm: from ERA5 to a verified forecast.

What the command does, with the same words, and what it makes, as xarray has it:

    store = weatherfm.prepare("my_run.yaml")                                 # store.times, store.read([0])
    trained = weatherfm.train("my_run.yaml", "training.steps=500")           # trained.weights, trained.validation
    weatherfm.write_forecast("my_run.yaml")                                  # weatherfm.open_forecast(...)
    scores = weatherfm.evaluate("my_run.yaml")                               # an xarray.Dataset
    weatherfm.report("my_run.yaml").page

    weatherfm.write_reconstruction("my_masked_autoencoder.yaml").page

    model = weatherfm.load("weights.safetensors")
    forecast = weatherfm.forecast(model, states, lead_times=["24h", "72h"])  # xarray in, xarray out

The front end that makes many channels cheap, around a model of one's own, on one rank or many (docs/front_end.md):

    front_end = weatherfm.ChannelFrontEnd(channels, size, patch, width, heads)  # fields -> tokens
    back_end = weatherfm.ChannelBackEnd(front_end)                              # tokens -> fields
    weatherfm.split_channels(model, mesh)                                       # a rank has some of the channels

What cannot be is `weatherfm.InputError`, a ValueError whose message says what to do; what the world outside has ended,
as a network or a process that is gone, is `weatherfm.OutsideError`.

`weatherfm.data_pipeline`, `weatherfm.training` and `weatherfm.evaluation` do what their names say.
"""

from __future__ import annotations

import typing as _typing
from importlib import import_module as _import_module

if _typing.TYPE_CHECKING:
    from weatherfm.data_pipeline.store.training_store import open_store
    from weatherfm.errors import InputError, OutsideError
    from weatherfm.evaluation.forecasting.in_memory import forecast
    from weatherfm.face.forecasting import write_forecast
    from weatherfm.face.opening import open_forecast, open_scores
    from weatherfm.face.planning import check, plan
    from weatherfm.face.reconstructing import write_reconstruction
    from weatherfm.face.results import evaluate, report
    from weatherfm.face.runs import read_run
    from weatherfm.face.stores import append, prepare
    from weatherfm.face.training import train
    from weatherfm.face.validation import validate
    from weatherfm.face.verification import verify
    from weatherfm.model.adapter import merge_adapter
    from weatherfm.model.front_end import ChannelBackEnd, ChannelFrontEnd
    from weatherfm.model.loading import load
    from weatherfm.model.reconstruct import reconstruct
    from weatherfm.training.parallel.foreign_model import split_channels, sum_shared_gradients

__version__ = "0.1.0"
__all__ = [
    "ChannelBackEnd",
    "ChannelFrontEnd",
    "InputError",
    "OutsideError",
    "__version__",
    "append",
    "check",
    "evaluate",
    "forecast",
    "load",
    "merge_adapter",
    "open_forecast",
    "open_scores",
    "open_store",
    "plan",
    "prepare",
    "read_run",
    "reconstruct",
    "report",
    "split_channels",
    "sum_shared_gradients",
    "train",
    "validate",
    "verify",
    "write_forecast",
    "write_reconstruction",
]

_PLACES = {
    "ChannelBackEnd": "weatherfm.model.front_end",
    "ChannelFrontEnd": "weatherfm.model.front_end",
    "InputError": "weatherfm.errors",
    "OutsideError": "weatherfm.errors",
    "append": "weatherfm.face.stores",
    "check": "weatherfm.face.planning",
    "evaluate": "weatherfm.face.results",
    "forecast": "weatherfm.evaluation.forecasting.in_memory",
    "load": "weatherfm.model.loading",
    "merge_adapter": "weatherfm.model.adapter",
    "open_forecast": "weatherfm.face.opening",
    "open_scores": "weatherfm.face.opening",
    "open_store": "weatherfm.data_pipeline.store.training_store",
    "plan": "weatherfm.face.planning",
    "prepare": "weatherfm.face.stores",
    "read_run": "weatherfm.face.runs",
    "reconstruct": "weatherfm.model.reconstruct",
    "report": "weatherfm.face.results",
    "split_channels": "weatherfm.training.parallel.foreign_model",
    "sum_shared_gradients": "weatherfm.training.parallel.foreign_model",
    "train": "weatherfm.face.training",
    "validate": "weatherfm.face.validation",
    "verify": "weatherfm.face.verification",
    "write_forecast": "weatherfm.face.forecasting",
    "write_reconstruction": "weatherfm.face.reconstructing",
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
