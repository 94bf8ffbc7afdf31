"""One field for each channel and time where files hold several."""
