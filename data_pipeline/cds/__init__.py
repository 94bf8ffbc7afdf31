"""Downloads from the Copernicus Climate Data Store: what to ask, the key, the queue, and what is kept."""
