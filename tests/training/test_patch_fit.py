"""Training on patches from a config to a grounded report: steps, sliding validation, checkpoint, resume, ours.yaml."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from patch_work import LESIONS, affine

from petground.labeling.errors import ConfigError
from petground.models.net_config import NetConfig
from petground.models.networks import build_network
from petground.pipeline.nifti import read_nifti, write_nifti
from petground.training.cli import main
from petground.training.grid import GridSpec
from petground.training.inference import ground_volumes, load_module
from petground.training.losses import deep_loss
from petground.training.module import GroundingModule
from petground.training.predict import sentences_at_once

SMALL = {
    "model.net.features": "[4,8,8,8]", "model.net.blocks_per_stage": 1, "model.net.fusion_stages": "[2]",
    "model.net.fusion": "{name: contextual_gate, num_heads: 4, norm: true, coordinates: fourier, form: residual_gate}",
    "model.grid.spacing_xyz_mm": "[8.0,8.0,8.0]", "model.grid.patch_zyx": "[16,16,24]",
}  # fmt: skip


def _flags(work: Path, run: Path, **more: Any) -> list[str]:
    flags = {
        "config": "ours", "data.work": work, "run_dir": run, **SMALL, "data.workers": 0, "data.test_fraction": 0,
        "data.validation_fraction": 0.3, "model.optimizer.warmup_steps": 2, "trainer.check_val_every_n_epoch": 1,
        "trainer.accelerator": "cpu", "trainer.precision": "32-true", "trainer.log_every_n_steps": 1,
        "trainer.enable_progress_bar": "false", "trainer.enable_model_summary": "false",
    }  # fmt: skip
    flags |= {name.replace("__", "."): value for name, value in more.items()}
    return ["fit", *(f"--{key}={value}" for key, value in flags.items())]


def _metrics(folder: Path, name: str) -> list[float]:
    with (folder / "metrics.csv").open() as file:
        return [float(row[name]) for row in csv.DictReader(file) if row.get(name)]


def test_ours_as_it_is_shipped_is_whole(patch_work: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["fit", "--config", "ours", f"--data.work={patch_work}", "--run_dir", "here", "--print_config"]) == 0
    said = yaml.safe_load(capsys.readouterr().out)
    config = NetConfig(**said["model"]["net"])
    assert config.fits(said["model"]["grid"]["patch_zyx"])
    with torch.device("meta"):
        net = build_network(config, 384)
    assert 80e6 < sum(p.numel() for p in net.parameters()) < 110e6, "nnU-Net's ResEnc M has 102 million"


def test_ours_shrunk_trains_validates_by_sliding_resumes_and_grounds(patch_work: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    assert main(_flags(patch_work, run, trainer__max_epochs=1, data__prompt="words+slice")) == 0
    assert main(_flags(patch_work, run, trainer__max_epochs=2, data__prompt="words+slice", ckpt_path="last")) == 0
    losses = _metrics(run / "version_0", "train/loss") + _metrics(run / "version_1", "train/loss")
    assert len(losses) == 2
    assert np.isfinite(losses).all()
    assert len(_metrics(run / "version_1", "val/f1")) == 1
    assert np.isfinite(_metrics(run / "version_1", "val/loss")).all()
    straight = tmp_path / "straight"
    assert main(_flags(patch_work, straight, trainer__max_epochs=2, data__prompt="words+slice")) == 0
    assert _metrics(straight / "version_0", "train/loss") == pytest.approx(losses, rel=1e-4)

    module = load_module(run / "checkpoints" / "last.ckpt", device="cpu")
    assert module.grid.patch_zyx == (16, 16, 24)
    assert module.prompt == "words+slice"
    pet = read_nifti(patch_work / "exams/e1/pet.nii.gz", "SUVbw")
    sentences = ["Avid left adrenal lesion, slice 148.", "Avid right axillary node, slice 97."]
    together = list(ground_volumes(module, pet, None, sentences))
    for sentence, answer in zip(sentences, together, strict=True):
        (alone,) = ground_volumes(module, pet, None, [sentence])
        np.testing.assert_allclose(alone.probability.array, answer.probability.array, atol=2e-3)
        np.testing.assert_array_equal(alone.mask, answer.mask)


def test_a_patch_without_its_lesion_teaches_no_presence_and_an_empty_mask() -> None:
    torch.manual_seed(0)
    net = {"features": [4, 8, 8], "fusion_stages": [1], "blocks_per_stage": 1, "coarse_heads": True, "presence": True}
    module = GroundingModule(net=net, grid=GridSpec(patch_zyx=(8, 8, 8)))  # type: ignore[arg-type]
    target = torch.zeros(1, 3, 8, 8, 8)
    target[0, 0, 2, 3, 5] = 1.0
    batch = {
        "exam_id": ["e"], "image": torch.rand(1, 2, 8, 8, 8), "sentences": [["left", "right", "liver"]],
        "target": target, "box": torch.tensor([[[-1.0, -0.2, 0.1], [0.3, 0.9, 1.0]]]),
    }  # fmt: skip
    decoded = module._decoded(batch)
    unknown = torch.tensor([[1.0, float("nan"), 0.0]])
    known = torch.tensor([[1.0, 1.0, 0.0]])
    module._losses(batch | {"present": unknown})["presence"].backward(retain_graph=True)
    assert decoded.presence is not None
    said = [deep_loss(decoded, target, module.loss_config, one)["presence"] for one in (unknown, known)]
    two = torch.nn.functional.binary_cross_entropy_with_logits(decoded.presence[0, [0, 2]], torch.tensor([1.0, 0.0]))
    assert float(said[0].detach()) == pytest.approx(float(two.detach()), rel=1e-5)
    assert float(said[0].detach()) != pytest.approx(float(said[1].detach()), rel=1e-3)


@pytest.mark.slow
def test_a_model_of_patches_learns_where_the_words_say(patch_work: Path, tmp_path: Path) -> None:
    """Right and left, high and low are told by words alone: the lesions are alike."""
    for exam in ("e0", "e1", "e2", "e3"):
        pet = read_nifti(patch_work / f"exams/{exam}/pet.nii.gz", "SUVbw")
        pet.array[pet.array > 2] = 8.0
        write_nifti(patch_work / f"exams/{exam}/pet.nii.gz", pet)
    run = tmp_path / "run"
    more = {"model.net.features": "[8,16,16,16]", "model.optimizer.lr": 3e-3, "data.exams_per_step": 2}
    flags = _flags(patch_work, run, trainer__max_epochs=150, data__validation_fraction=0, **more)
    assert main([*flags, "--data.place_fraction=0"]) == 0
    module = load_module(run / "checkpoints" / "last.ckpt", device="cpu")
    pet = read_nifti(patch_work / "exams/e0/pet.nii.gz", "SUVbw")
    sentences = [f"Avid {side} {site}." for site, side, *_ in LESIONS]
    answers = list(ground_volumes(module, pet, None, sentences, threshold=0.3))
    for (_, _, centre, _, _), answer in zip(LESIONS, answers, strict=True):
        assert answer.mask.any()
        at = pet.to_world_mm(np.argwhere(answer.mask)).mean(axis=0)
        assert np.linalg.norm(at - centre) < 20
    assert affine().shape == (4, 4)


def test_patches_must_fit_the_network_and_projections_have_none(patch_work: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"patch_zyx .*3 stages"):
        GroundingModule(net=NetConfig(features=[4, 8, 8], fusion_stages=[1]), grid=GridSpec(patch_zyx=(8, 8, 10)))
    with pytest.raises(ConfigError, match="projections"):
        GroundingModule(
            net=NetConfig(architecture="projections", features=[4, 8, 8], fusion_stages=[1]),
            grid=GridSpec(patch_zyx=(8, 8, 8)),
        )


def test_sentences_are_held_by_what_each_of_them_costs() -> None:
    plain = NetConfig(features=[4, 8, 8], fusion_stages=[1])
    shared = NetConfig(features=[4, 8, 8], fusion_stages=[1], coarse_heads=True, shared_stages=1)
    assert sentences_at_once(plain, (100, 100, 100), "cpu") == 2
    assert sentences_at_once(shared, (100, 100, 100), "cpu") == 16
    coarse = NetConfig(features=[4, 8, 8, 8], fusion_stages=[2], coarse_heads=True, shared_stages=2)
    assert sentences_at_once(coarse, (100, 100, 100), "cpu") == 16, "logits are as large however coarse the reading"
    assert sentences_at_once(plain, (400, 400, 400), "cpu") == 1
    assert sentences_at_once(plain, (100, 100, 100), "cuda") == 8
