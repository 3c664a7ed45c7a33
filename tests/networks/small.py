"""Options that make MONAI's networks small."""

from __future__ import annotations

from nnunetv2_lightm.networks import segresnet, swin_unetr, unetr

SMALL = {
    segresnet: {"init_filters": 8, "blocks_down": (1, 1, 1, 1)},
    unetr: {"feature_size": 2, "hidden_size": 24, "mlp_dim": 16, "num_heads": 2},
    swin_unetr: {"feature_size": 12, "depths": (1, 1, 1, 1), "num_heads": (1, 1, 1, 1), "window_size": 3},
}
