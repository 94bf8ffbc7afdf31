"""How the line of a forecast looks on every figure: colour, dashes and marker, each enough to tell it apart."""

from __future__ import annotations

from typing import Any

import xarray as xr

from weatherfm.evaluation.results.lookup import means_of, models_of

_COLOURS = ("#0072B2", "#CC79A7", "#009E73", "#56B4E9", "#8C564B", "#332288", "#882255", "#44AA99")
"""After Okabe and Ito, and Tol's muted ones."""
_MARKERS = ("o", "D", "v", "P", "X", "h", "p")
"""Not as many as colours: the ninth model, of the first one's colour, has another marker."""
_DASHES = ("-", (0, (9, 1.5)), (0, (9, 1.5, 1.5, 1.5)))
"""Of the first eight models, the next eight, and the next."""
_BASELINES: dict[str, dict[str, Any]] = {
    "persistence": {"color": "#D55E00", "linestyle": (0, (5, 2)), "marker": "s"},
    "climatology": {"color": "#4D4D4D", "linestyle": (0, (1.5, 1.5)), "marker": "^"},
    "damped_persistence": {"color": "#B07D00", "linestyle": (0, (6, 2, 1.5, 2)), "marker": "<"},
    "ridge_regression": {"color": "#5B7F2B", "linestyle": (0, (4, 1.5)), "marker": "*"},
    "probabilistic_climatology": {"color": "#7A5195", "linestyle": (0, (3, 1, 1, 1, 1, 1)), "marker": ">"},
}

_MEAN = {"linestyle": (0, (3.5, 1.5)), "linewidth": 1.7, "markerfacecolor": "white"}


def line_look(name: str, scores: xr.Dataset) -> dict[str, Any]:
    """Matplotlib's properties of the line of a forecast in `scores`: models thick, baselines thin and dashed.

    The mean of an ensemble is a dashed line of its colour.
    """
    known = name.partition(" (")[0]  # in merged scores `persistence (run)`
    if name not in models_of(scores) and known in _BASELINES:
        return {**_BASELINES[known], "linewidth": 1.5 if name == known else 0.9}
    if ensemble := means_of(scores).get(name):
        return line_look(ensemble, scores) | _MEAN
    place = models_of(scores).index(name)
    return {
        "color": _COLOURS[place % len(_COLOURS)],
        "linestyle": _DASHES[place // len(_COLOURS) % len(_DASHES)],
        "marker": _MARKERS[place % len(_MARKERS)],
        "linewidth": 2.4,
        "zorder": 3,
    }
