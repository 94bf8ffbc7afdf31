"""What forecasts are held against: persistence, climatologies, and what else is learned from training days alone."""
