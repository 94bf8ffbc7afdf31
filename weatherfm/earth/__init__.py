"""What is known of the Earth without data: variables, grids, domains, the sun."""
