"""How sure it is that one forecast is better than another: p-values, intervals of skill, and the table of all pairs."""
