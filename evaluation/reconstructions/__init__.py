"""How well a masked autoencoder fills in what it does not see: scores, pictures and a page."""
