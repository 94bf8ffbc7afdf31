"""From forecasts and truth to metrics: which cases, their statistics, the sums over them, and means by period."""
