"""Blocks that work in mm learn how large the voxels of their stage are, from the grid that the model is given."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import numpy as np
import pytest
import torch

from petground.labeling.errors import ConfigError
from petground.models.net_config import NetConfig
from petground.training.grid import GridSpec
from petground.training.inference import load_module
from petground.training.module import GroundingModule
from petground.training.plans import with_spacing

NET: dict[str, Any] = {
    "features": [4, 8, 8],
    "encoder": "plain",
    "blocks_per_stage": 1,
    "decoder_convs": 1,
    "strides": [[1, 1, 1], [1, 2, 2], [2, 2, 1]],
    "fusion_stages": [1],
    "attention": {"name": "swin_v2_cosine_3d", "num_heads": 2, "window": [2, 2, 2], "hidden": 8},
}
GRID = GridSpec((2.0, 3.0, 5.0), (8, 8, 16))  # x, y, z in mm


def test_the_networks_spacing_is_the_grids_and_its_stages_that_times_their_strides(tmp_path: Path) -> None:
    torch.manual_seed(0)
    module = GroundingModule(net=NET, grid=GRID)  # type: ignore[arg-type]
    module.provenance["precision"] = "32-true"  # bfloat16 rounds otherwise in another memory format
    assert module.net_config.spacing_zyx_mm == (5.0, 3.0, 2.0)
    stage = module.net.decoder.stages[0]
    assert stage.spacing_zyx_mm == (5.0, 6.0, 4.0)
    torch.nn.init.normal_(stage.voxels.outward.weight)
    seen = []
    stage.voxels.attention.register_forward_pre_hook(lambda _, __, given: seen.append(given["grid"]), with_kwargs=True)
    image = np.random.default_rng(0).random((2, 8, 8, 16), dtype=np.float32)
    said = module.predict(image, ["Avid node."])
    assert seen[0].shape_zyx == (8, 4, 8)
    assert seen[0].spacing_zyx_mm == (5.0, 6.0, 4.0)

    trainer = pl.Trainer(accelerator="cpu", logger=False, enable_checkpointing=False, default_root_dir=tmp_path)
    trainer.strategy.connect(module)
    trainer.save_checkpoint(tmp_path / "one.ckpt")
    again = load_module(tmp_path / "one.ckpt", device="cpu")
    assert again.net_config == module.net_config
    assert np.array_equal(again.predict(image, ["Avid node."]).probabilities, said.probabilities)


def test_another_spacing_than_the_grids_is_refused() -> None:
    told = with_spacing(NetConfig(), GRID)
    assert with_spacing(told, GRID) == told
    with pytest.raises(ConfigError, match=r"leave model\.net\.spacing_zyx_mm out"):
        with_spacing(NetConfig(spacing_zyx_mm=(2.0, 3.0, 5.0)), GRID)
    llmseg = NetConfig(architecture="llmseg", features=[16, 16])
    assert with_spacing(llmseg, GRID) == llmseg  # it does not read it
