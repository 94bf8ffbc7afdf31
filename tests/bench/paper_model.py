"""The model of the D-CHAG paper's memory tables (arXiv 2506.21411) at any size, and the forms it is compared in.

Image 128 x 256, patch 4, depth 32, 32 heads, MLP ratio 4, two samples for each group of `tp` ranks.

Their masked autoencoder of hyperspectral pictures is, by configuration and run scripts of the published artefact
(A2/configs/appl.yaml, A2/C5), of pictures of 192 x 384 pixels in patches of 6, 500 channels, width 4096, depth 32, 32
heads, and a decoder of width 128 and depth 2; a quarter of the patches is seen.
"""

from __future__ import annotations

import numpy as np

from weatherfm.config import parse_settings
from weatherfm.earth.domain import Domain
from weatherfm.earth.grid import plane_of, regular_grid
from weatherfm.training.parallel.layout import check_layout
from weatherfm.training.run_config import RunConfig

SHAPE, PATCH, DEPTH, HEADS = (128, 256), 4, 32, 32
PICTURES = {"shape": (192, 384), "patch": 6, "masked": {"mask_ratio": 0.75, "depth": 2, "width": 128, "heads": 8}}
"""Of the masked autoencoder; they have 4 heads in the decoder, which no 8 ranks can share."""

FORMS = {  # model.aggregation, parallel.channels; groups of the hierarchical ones: one a rank of `tp`
    "tp alone": ({"evaluate": "tokens"}, "whole"),
    "D-CHAG-C": ({"kind": "hierarchical", "local": "attention"}, "split"),
    "D-CHAG-L": ({"kind": "hierarchical", "local": "linear"}, "split"),
    "flat tokens": ({"evaluate": "tokens"}, "split"),
    "flat folded": ({}, "split"),
}


def paper_model(width, channels, layout, form="flat folded", block_mib=16, checkpointing="block", **changed):
    """A run on a layout and its domain; `changed`: shape, patch, depth, heads, samples (of each group of `tp` ranks)
    or, of a masked autoencoder of pictures, `masked`, its `model.reconstruction`."""
    aggregation, split = FORMS[form]
    groups = {"groups": layout.tp} if "kind" in aggregation else {}
    masked = changed.get("masked")
    settings = {
        "run": "unused",
        "data": {"store": "unused", "source": {"kind": "planet"}, "channels": ["z500"]},
        "model": {
            "patch_size": changed.get("patch", PATCH),
            "width": width,
            "depth": changed.get("depth", DEPTH),
            "heads": changed.get("heads", HEADS),
            "forcings": [],
            "drop_path": 0,
            "aggregation": aggregation | groups | {"block_mib": block_mib},
            "reconstruction": masked,
        },
        "training": {"batch_size": changed.get("samples", 2) * layout.dp}
        | ({"objective": "reconstruct"} if masked else {}),
        "parallel": {
            "tp": layout.tp,
            "dp_shard": layout.dp_shard,
            "dp_replicate": layout.dp_replicate,
            "channels": split,
            "activation_checkpointing": checkpointing,
        },
    }
    config, ones = parse_settings(RunConfig, settings, form), np.ones(channels)
    grid = (plane_of if masked else regular_grid)(tuple(changed.get("shape", SHAPE)))
    domain = Domain(tuple(f"c{i}" for i in range(channels)), grid, ones, ones, ones)
    check_layout(layout, config.parallel, config.model, domain, config.training.batch_size)
    return config, domain
