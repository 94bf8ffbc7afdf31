"""Fields of GRIB files through ecCodes: where their messages are, what their headers say, and reading them."""
