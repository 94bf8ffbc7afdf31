"""Metrics of forecasts (numpy only at import), each in three steps: statistic -> mean -> metric.

A statistic is a number at every point, such as the squared error. Its mean over the cells of a region (weights: cell
areas) is taken for every case, one initial time at one lead time; cases are all alike and are summed
(`state.AggregationState`); and only then is it made a metric, such as the root mean squared error: never a square root
before the mean. Sums of parts of the cases therefore add up to those of the whole, however they are split.

Legend: B case, M member, C channel, R region, L lead time, E event, H lat, W lon, X grid point (H * W).
"""
