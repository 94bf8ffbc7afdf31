"""weatherfm: from ERA5 to a verified forecast.

The folder beside this file hold the pipeline (`weatherfm.data_pipeline`), training (`weatherfm.training`)
and verification (`weatherfm.evaluation`); the modules in this one are the model, mathematics only.
"""

__version__ = "0.1.0"
