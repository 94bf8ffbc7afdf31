"""A store before it is written: every check that needs no long reading, and what it will cost."""
