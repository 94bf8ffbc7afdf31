"""Four years of real reanalysis over Europe, prepared: three to learn from, one to test on."""

from __future__ import annotations

from pathlib import Path

from weatherfm.data_pipeline.config import DataConfig
from weatherfm.data_pipeline.prepare import prepare
from weatherfm.data_pipeline.store.training_store import Store

EUROPE_CHANNELS = ("z500", "t850", "msl")


def europe_store(real_data: Path, path: Path, window: int | None) -> Store:
    """Trained on 2001-2003, tested on 2004; `window` of the climatology in days."""
    files = sorted((real_data / "era_interim_europe").glob("*.nc"))
    return prepare(
        DataConfig.model_validate(
            {
                "store": str(path),
                "source": {"kind": "files", "paths": [str(file) for file in files], "levels": {"z": 500, "t": 850}},
                "channels": list(EUROPE_CHANNELS),
                "period": "2001-2004",
                "train": "2001-2003",
                "test": 2004,
                "climatology_window": window,
            }
        )
    )
