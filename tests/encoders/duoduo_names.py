"""Names and shapes of a published DuoduoCLIP checkpoint, as its code makes them (github.com/3dlg-hcvc/DuoduoCLIP)."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor


def duoduo(layers: int = 12, width: int = 768, patch: int = 32, grid: int = 7, dim: int = 512) -> dict[str, Any]:
    """Name -> shape; by default those of ``Four_1to6F_bs1600_LT6.ckpt``: a CLIP ViT-B/32 and the loss's scale."""
    visual = {
        "class_embedding": (width,),
        "positional_embedding": (grid * grid + 1, width),
        "proj": (width, dim),
        "conv1.weight": (width, 3, patch, patch),
        **_norm("ln_pre", width),
        **_norm("ln_post", width),
        **_blocks(layers, width),
    }
    text = {
        "positional_embedding": (77, 512),
        "text_projection": (512, dim),
        "token_embedding.weight": (49408, 512),
        **_norm("ln_final", 512),
        **_blocks(12, 512),
    }
    return {
        "contrastive_loss.logit_scale": (),
        "duoduoclip.logit_scale": (),
        **{f"duoduoclip.{name}": shape for name, shape in text.items()},
        **{f"duoduoclip.visual.{name}": shape for name, shape in visual.items()},
    }


def lightning(state: dict[str, Tensor]) -> dict[str, Any]:
    """A state dict as Lightning saves it, among its other entries."""
    return {
        "epoch": 79,
        "global_step": 4000,
        "pytorch-lightning_version": "2.2.4",
        "state_dict": state,
        "loops": {"fit_loop": {"state_dict": {}}},
        "callbacks": {
            "ModelCheckpoint{'monitor': None}": {"best_model_score": torch.tensor(0.5), "best_model_path": ""}
        },
        "optimizer_states": [{"state": {0: {"step": torch.tensor(1.0)}}, "param_groups": [{"lr": 5e-5}]}],
        "lr_schedulers": [{"T_max": 80, "_last_lr": [1e-7]}],
        "hparams_name": "cfg",
        "hyper_parameters": {"model": {"network": {"layers_threshold": 6, "base_name": "ViT-B-32"}}},
    }


def _norm(name: str, width: int) -> dict[str, tuple[int, ...]]:
    return {f"{name}.weight": (width,), f"{name}.bias": (width,)}


def _blocks(layers: int, width: int) -> dict[str, tuple[int, ...]]:
    one = {
        **_norm("ln_1", width),
        "attn.in_proj_weight": (3 * width, width),
        "attn.in_proj_bias": (3 * width,),
        "attn.out_proj.weight": (width, width),
        "attn.out_proj.bias": (width,),
        **_norm("ln_2", width),
        "mlp.c_fc.weight": (4 * width, width),
        "mlp.c_fc.bias": (4 * width,),
        "mlp.c_proj.weight": (width, 4 * width),
        "mlp.c_proj.bias": (width,),
    }
    return {f"transformer.resblocks.{i}.{name}": shape for i in range(layers) for name, shape in one.items()}
