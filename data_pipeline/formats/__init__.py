"""From files of many formats and customs to fields: opening, naming, units, grids, times, choice."""
