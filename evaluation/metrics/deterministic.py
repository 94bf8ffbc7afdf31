"""Metrics of single forecasts: RMSE, MSE, MAE, bias, anomaly correlations, forecast activity.

With anomalies f' = forecast - climatology and o' = truth - climatology at the valid time, and means over space *and*
cases, area-weighted:

    ACC            = mean(f' o') / sqrt(mean(f'^2) mean(o'^2))
    centred ACC    = the same of f' - [f'] and o' - [o'], [] the region's mean of one case (WMO-No. 485)
    activity       = sqrt(mean(f'^2))
    activity ratio = sqrt(mean(f'^2) / mean(o'^2))

as in WeatherBench-X (`metrics/deterministic.py`: ACC, PredictionActivity), which has the first; the centred one knows
nothing of a bias that is the same everywhere. Neither is a mean of correlations, one a case, as in WeatherBench2. Both
are NaN, undefined, where the truth has no anomaly or the forecast's is less than a thousandth of it: that of
climatology itself, in the last bits of its numbers. A ratio below 1 tells of a forecast that is smoother than the
weather (ECMWF's newsletters call it a loss of activity).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from weatherfm.evaluation.metrics.spatial_means import pointwise_means

_ERRORS = ("error", "absolute_error", "squared_error")
_ANOMALIES = ("forecast_anomaly_squared", "truth_anomaly_squared", "anomaly_product", "truth_anomaly")
_LEAST_ACTIVITY = 1e-3
"""Of a forecast over the truth's: a field of less is climatology but for rounding, and its anomalies are noise."""


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
    means = pointwise_means(_write_all, (*_ERRORS, *_ANOMALIES), (forecast, truth, climatology), weights)
    true = means.pop("truth_anomaly")
    own = means["error"] + true
    means["forecast_mean_anomaly_squared"] = np.square(own)
    means["truth_mean_anomaly_squared"] = np.square(true)
    means["mean_anomaly_product"] = own * true
    return means


def deterministic_metrics(mean: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Metrics of means over cases (any dims), in units of the channel (`mse`: squared; correlations and ratios: 1)."""
    metrics = {
        "rmse": np.sqrt(mean["squared_error"]),
        "mse": mean["squared_error"],
        "mae": mean["absolute_error"],
        "bias": mean["error"],
    }
    if "anomaly_product" in mean:
        forecast, truth = (np.sqrt(mean[f"{side}_anomaly_squared"]) for side in ("forecast", "truth"))
        lively = forecast > _LEAST_ACTIVITY * truth
        metrics["acc"] = np.where(lively, _ratio(mean["anomaly_product"], forecast * truth), np.nan)
        if "mean_anomaly_product" in mean:
            metrics["acc_centred"] = _centred(mean)
        metrics["activity"] = forecast
        metrics["activity_ratio"] = _ratio(forecast, truth)
    return metrics


def _centred(mean: Mapping[str, np.ndarray]) -> np.ndarray:
    """Correlation of anomalies less the region's mean of each case."""
    product = mean["anomaly_product"] - mean["mean_anomaly_product"]
    forecast, truth = (
        np.sqrt(np.maximum(mean[f"{of}_anomaly_squared"] - mean[f"{of}_mean_anomaly_squared"], 0))
        for of in ("forecast", "truth")
    )
    return np.where(forecast > _LEAST_ACTIVITY * truth, _ratio(product, forecast * truth), np.nan)


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
    out[6] = out[4]
    np.square(out[3], out=out[3])
    np.square(out[4], out=out[4])
