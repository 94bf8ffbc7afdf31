"""weatherfm: from ERA5 to a verified forecast.

`weatherfm.data_pipeline`, `weatherfm.training` and `weatherfm.evaluation` do what their names say; the modules of
this package itself are the model, mathematics only, and the command line.
"""

__version__ = "0.1.0"
