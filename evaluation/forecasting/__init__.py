"""From states to forecasts: initial times, the steps of the model, and who makes which; on disk and in memory."""
