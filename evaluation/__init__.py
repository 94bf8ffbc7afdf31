"""From weights to forecasts, their scores beside baselines, significance, maps and the page that shows them."""
