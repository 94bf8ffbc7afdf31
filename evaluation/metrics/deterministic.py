"""Metrics of single forecasts: RMSE, MSE, MAE, bias, anomaly correlation, forecast activity.

With anomalies f' = forecast - climatology and o' = truth - climatology at the valid time, and means over space *and*
cases, area-weighted:

    ACC            = mean(f' o') / sqrt(mean(f'^2) mean(o'^2))
    activity       = sqrt(mean(f'^2))
    activity ratio = sqrt(mean(f'^2) / mean(o'^2))

as in WeatherBench-X (`metrics/deterministic.py`: ACC, PredictionActivity). The correlation is not centred (the region's
mean anomaly is not taken away) and not a mean of correlations, one a case, as in WeatherBench2. It is NaN, undefined,
where a forecast or the truth has no anomaly: that of climatology itself. A ratio below 1 tells of a forecast that is
smoother than the weather (ECMWF's newsletters call it a loss of activity).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from weatherfm.evaluation.metrics.spatial_means import pointwise_means

_ERRORS = ("error", "absolute_error", "squared_error")
_ANOMALIES = ("forecast_anomaly_squared", "truth_anomaly_squared", "anomaly_product")


def deterministic_means(
    forecast: np.ndarray, truth: np.ndarray, weights: np.ndarray, climatology: np.ndarray | None = None
) -> dict[str, np.ndarray]:
    """Spatial means of every case.

    A value that is not finite makes the means of its case and channel not finite: check before.

    Args:
        forecast: [B, C, H, W] in physical units, as the others.
        truth: at the valid time.
        weights: [R, X], rows sum to 1.
        climatology: at the valid time; without it there are no statistics of anomalies.

    Returns:
        Statistic -> [B, R, C] float64.
    """
    if climatology is None:
        return pointwise_means(_write_errors, _ERRORS, (forecast, truth), weights)
    return pointwise_means(_write_all, (*_ERRORS, *_ANOMALIES), (forecast, truth, climatology), weights)


def deterministic_metrics(mean: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Metrics of means over cases (any dims), in units of the channel (`mse`: squared; `acc`, `activity_ratio`: 1)."""
    metrics = {
        "rmse": np.sqrt(mean["squared_error"]),
        "mse": mean["squared_error"],
        "mae": mean["absolute_error"],
        "bias": mean["error"],
    }
    if "anomaly_product" in mean:
        forecast, truth = (np.sqrt(mean[f"{side}_anomaly_squared"]) for side in ("forecast", "truth"))
        metrics["acc"] = _ratio(mean["anomaly_product"], forecast * truth)
        metrics["activity"] = forecast
        metrics["activity_ratio"] = _ratio(forecast, truth)
    return metrics


def wind_vector_rmse(mean_squared_u: np.ndarray, mean_squared_v: np.ndarray) -> np.ndarray:
    """Root of the mean squared length of the error of the wind vector, from the mean squared errors of u and v."""
    return np.sqrt(mean_squared_u + mean_squared_v)


def _ratio(above: np.ndarray, below: np.ndarray) -> np.ndarray:
    return np.divide(above, below, out=np.full_like(above, np.nan), where=below > 0)


def _write_errors(fields: Sequence[np.ndarray], out: np.ndarray) -> None:
    np.subtract(fields[0], fields[1], out=out[0], dtype=np.float64)
    np.abs(out[0], out=out[1])
    np.square(out[0], out=out[2])


def _write_all(fields: Sequence[np.ndarray], out: np.ndarray) -> None:
    forecast, truth, climatology = fields
    _write_errors((forecast, truth), out)
    np.subtract(forecast, climatology, out=out[3], dtype=np.float64)
    np.subtract(truth, climatology, out=out[4], dtype=np.float64)
    np.multiply(out[3], out[4], out=out[5])
    np.square(out[3], out=out[3])
    np.square(out[4], out=out[4])
