"""OPeNDAP: datasets that a server hands out in parts, by DAP2."""
