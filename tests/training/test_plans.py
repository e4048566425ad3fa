"""nnU-Net's plans: its own planner on an exported data set, a network of them, a step, a checkpoint; foreign ones."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from patch_work import make_work

from petground.labeling.errors import ConfigError, InputError
from petground.models.net_config import NetConfig
from petground.pipeline import cli
from petground.pipeline.executors import Outcome
from petground.pipeline.executors.outcome import guarded
from petground.pipeline.exports.folder import owned
from petground.pipeline.exports.layout import Options
from petground.pipeline.exports.run import draft, publish
from petground.training.cli import main
from petground.training.grid import GridSpec
from petground.training.inference import load_module
from petground.training.module import GroundingModule
from petground.training.plans import PlansConfig, resolve

OURS = NetConfig(
    fusion={"name": "contextual_gate", "num_heads": 8, "form": "residual_gate", "coordinates": "fourier"},
    fusion_stages=[1, 2, 3], coarse_heads=True, shared_stages=1, presence=True,
)  # fmt: skip


def _plans(stages: int = 6, network: str = "unet.ResidualEncoderUNet", **arch: Any) -> dict[str, Any]:
    """As nnunetv2 2.8 writes them, asymmetric in every axis, turned so that its first axis is our y."""
    blocks = "n_conv_per_stage" if "Plain" in network else "n_blocks_per_stage"
    return {
        "dataset_name": "Dataset501_Petground",
        "transpose_forward": [1, 0, 2],
        "configurations": {
            "2d": {"patch_size": [64, 48], "spacing": [3.0, 2.5], "architecture": {}},
            "3d_fullres": {
                "patch_size": [96, 128, 160],
                "spacing": [2.0, 5.0, 3.0],
                "architecture": {
                    "network_class_name": f"dynamic_network_architectures.architectures.{network}",
                    "arch_kwargs": {
                        "n_stages": stages,
                        "features_per_stage": [32, 64, 128, 256, 320, 320, 320][:stages],
                        "conv_op": "torch.nn.modules.conv.Conv3d",
                        "norm_op": "torch.nn.modules.instancenorm.InstanceNorm3d",
                        "nonlin": "torch.nn.LeakyReLU",
                        "dropout_op": None,
                        "kernel_sizes": [[3, 1, 3]] + [[3, 3, 3]] * (stages - 1),
                        "strides": [[1, 1, 1], [2, 1, 2]] + [[2, 2, 2]] * (stages - 2),
                        blocks: [1, 3, 4, 6, 6, 6, 6][:stages],
                        "n_conv_per_stage_decoder": [1] * (stages - 1),
                        **arch,
                    },
                },
            },
            "3d_lowres": {"inherits_from": "3d_fullres", "spacing": [4.0, 6.0, 5.0], "patch_size": [64, 96, 128]},
        },
    }


def _file(folder: Path, content: Any) -> Path:
    path = folder / "plans.json"
    path.write_text(json.dumps(content))
    return path


def test_axes_are_turned_back_and_what_plans_do_not_tell_stays(tmp_path: Path) -> None:
    file = _file(tmp_path, _plans())
    grid = GridSpec(suv_window=(0.0, 15.0), pet_value="max", fit_height=True)
    net, planned = resolve(PlansConfig(file), OURS, grid)
    assert planned.patch_zyx == (128, 96, 160)
    assert planned.spacing_xyz_mm == (3.0, 2.0, 5.0)
    assert (planned.suv_window, planned.pet_value) == ((0.0, 15.0), "max")
    assert net.features == [32, 64, 128, 256, 320, 320]
    assert net.encoder == "residual"
    assert net.blocks_per_stage == [1, 3, 4, 6, 6, 6]
    assert net.strides is not None
    assert net.kernel_sizes is not None
    assert net.strides[:3] == [[1, 1, 1], [1, 2, 2], [2, 2, 2]]
    assert net.kernel_sizes[:2] == [[1, 3, 3], [3, 3, 3]]
    assert net.decoder_convs == 1
    assert (net.fusion, net.presence) == (OURS.fusion, True)
    assert net.fits(planned.input_zyx)
    low = resolve(PlansConfig(file, "3d_lowres"), OURS, grid)
    assert low[1].spacing_xyz_mm == (5.0, 4.0, 6.0), "inherits the network"
    assert low[0].features == net.features


@pytest.mark.parametrize(("stages", "fused"), [(7, [3, 4, 5]), (6, [2, 3, 4]), (5, [1, 2, 3]), (4, [1, 2]), (3, [1])])
def test_text_goes_to_the_three_coarsest_decoder_stages_and_never_to_full_resolution(
    stages: int, fused: list[int], tmp_path: Path
) -> None:
    file = _file(tmp_path, _plans(stages))
    net, _ = resolve(PlansConfig(file), OURS, GridSpec())
    assert net.fusion_stages == fused
    assert net.shared_stages == fused[0]
    plain, _ = resolve(PlansConfig(file), NetConfig(), GridSpec())
    assert plain.shared_stages == 0
    given, _ = resolve(PlansConfig(file, fusion_stages=[1]), OURS, GridSpec())
    assert (given.fusion_stages, given.shared_stages) == ([1], 1)
    for net in (NetConfig(), OURS):
        deaf, _ = resolve(PlansConfig(file, fusion_stages=[]), net, GridSpec())
        assert (deaf.fusion_stages, deaf.shared_stages, deaf.presence) == ([], 0, False)


def test_plain_networks_and_single_numbers_are_read(tmp_path: Path) -> None:
    content = _plans(4, "unet.PlainConvUNet", kernel_sizes=3, n_conv_per_stage=2, n_conv_per_stage_decoder=2)
    net, _ = resolve(PlansConfig(_file(tmp_path, content)), OURS, GridSpec())
    assert (net.encoder, net.blocks_per_stage, net.decoder_convs) == ("plain", [2, 2, 2, 2], 2)
    assert net.kernel_sizes == [[3, 3, 3]] * 4


def test_plans_of_an_older_nnunet_are_read(tmp_path: Path) -> None:
    """The format before 2.5: no architecture, the network in keys of its own."""
    content = _plans(4)
    one = content["configurations"]["3d_fullres"]
    arch = one.pop("architecture")["arch_kwargs"]
    one |= {
        "UNet_class_name": "PlainConvUNet", "UNet_base_num_features": 32, "unet_max_num_features": 320,
        "n_conv_per_stage_encoder": [2, 2, 2, 2], "n_conv_per_stage_decoder": [2, 2, 2], "num_pool_per_axis": [3, 2, 3],
        "pool_op_kernel_sizes": arch["strides"], "conv_kernel_sizes": arch["kernel_sizes"],
    }  # fmt: skip
    net, _ = resolve(PlansConfig(_file(tmp_path, content)), OURS, GridSpec())
    assert net.features == [32, 64, 128, 256]
    assert net.encoder == "plain"


def test_foreign_plans_are_named_by_their_key(tmp_path: Path) -> None:
    def wrong(key: str, value: Any = None) -> Path:
        content = _plans()
        *path, last = key.split(".")
        found = content
        for part in path:
            found = found[part]
        if value is None:
            del found[last]
        else:
            found[last] = value
        return _file(tmp_path, content)

    arch = "configurations.3d_fullres.architecture.arch_kwargs"
    for key, value, told in (
        (f"{arch}.features_per_stage", None, "features_per_stage"),
        (f"{arch}.strides", None, "strides"),
        (f"{arch}.conv_op", "torch.nn.modules.conv.Conv2d", "conv_op is Conv2d"),
        (f"{arch}.norm_op", "torch.nn.modules.batchnorm.BatchNorm3d", "norm_op is BatchNorm3d"),
        (f"{arch}.nonlin", "torch.nn.ReLU", "nonlin is ReLU"),
        (f"{arch}.dropout_op", "torch.nn.Dropout3d", "dropout_op"),
        (f"{arch}.n_conv_per_stage_decoder", [1, 2, 1, 1, 1], "n_conv_per_stage_decoder"),
        ("configurations.3d_fullres.architecture.network_class_name", "x.y.Primus", "network_class_name is Primus"),
        ("configurations.3d_fullres.spacing", None, "spacing"),
        ("configurations.3d_fullres.architecture", None, "UNet_class_name"),
        ("transpose_forward", [0, 0, 1], "transpose_forward"),
        ("configurations", None, "configurations"),
    ):
        with pytest.raises(ConfigError, match=told):
            resolve(PlansConfig(wrong(key, value)), OURS, GridSpec())
    file = _file(tmp_path, _plans())
    with pytest.raises(ConfigError, match="3d_fullres, 3d_lowres"):
        resolve(PlansConfig(file, "3d_cascade"), OURS, GridSpec())
    with pytest.raises(ConfigError, match="patch_size"):
        resolve(PlansConfig(file, "2d"), OURS, GridSpec())
    with pytest.raises(ConfigError, match="llmseg"):
        resolve(PlansConfig(file), NetConfig(architecture="llmseg", features=[16, 32]), GridSpec())
    file.write_text("{")
    with pytest.raises(InputError, match="JSON"):
        resolve(PlansConfig(file), OURS, GridSpec())
    with pytest.raises(InputError, match="petground plans"):
        resolve(PlansConfig(tmp_path / "none.json"), OURS, GridSpec())


def _exported(tmp_path: Path) -> tuple[Path, Path]:
    """A work folder and the nnU-Net data set of it."""
    work = make_work(tmp_path / "work", ct=True)
    options = Options("nnunet", {"train": 1.0, "val": 0.0, "test": 0.0})
    folder = tmp_path / "raw" / options.dataset
    with owned(folder, "nnunet"):
        publish(work, folder, options, draft(work, options, run_cases=_here), name_of=None, run_cases=_here)
    return work, folder


def _here(function: Callable[..., Any], cases: Iterable[tuple[str, tuple[Any, ...]]]) -> Iterator[Outcome]:
    """Runs cases in this process: what is tested is not the processes."""
    return (guarded(function, case, arguments) for case, arguments in cases)


def _train(work: Path, run: Path, plans: Path) -> GroundingModule:
    """A step by the command with the plans' network, and what comes back of its checkpoint."""
    flags = {
        "config": "ours", "data.work": work, "run_dir": run, "model.plans.file": plans, "data.workers": 0,
        "data.validation_fraction": 0, "data.test_fraction": 0, "data.sentences": 2, "data.exams_per_step": 1,
        "trainer.max_steps": 1, "trainer.accelerator": "cpu", "trainer.precision": "32-true",
        "trainer.enable_progress_bar": "false", "trainer.enable_model_summary": "false",
    }  # fmt: skip
    assert main(["fit", *(f"--{key}={value}" for key, value in flags.items())]) == 0
    last = run / "checkpoints" / "last.ckpt"
    stored = torch.load(last, weights_only=True)
    plans.unlink()  # the checkpoint needs them no more
    module = load_module(last, device="cpu")
    assert "plans" not in stored["hyper_parameters"]
    assert module.provenance["step"] == 1
    return module


def test_nnunets_planner_plans_a_network_that_trains_and_comes_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Export, fingerprint (written by hand: reading images takes nnU-Net a process), planner, a step, a checkpoint."""
    work, folder = _exported(tmp_path)
    monkeypatch.setenv("nnUNet_raw", str(folder.parent))
    monkeypatch.setenv("nnUNet_preprocessed", str(tmp_path / "pre"))
    monkeypatch.setenv("nnUNet_results", str(tmp_path / "results"))
    monkeypatch.setenv("nnUNet_n_proc_DA", "1")
    made = tmp_path / "pre" / folder.name
    made.mkdir(parents=True)
    (made / "dataset_fingerprint.json").write_text(
        json.dumps(
            {
                "spacings": [[6.0, 6.0, 6.0]] * 4, "shapes_after_crop": [[64, 28, 44]] * 4,
                "median_relative_size_after_cropping": 1.0, "foreground_intensity_properties_per_channel": {},
            }
        )
    )  # fmt: skip
    from nnunetv2.experiment_planning.experiment_planners.residual_unets import (
        residual_encoder_unet_planners as planners,
    )

    planner = planners.nnUNetPlannerResEncM(501, 0.1)
    planner.UNet_base_num_features = 16
    planner.plan_experiment()
    plans = made / f"{planner.plans_identifier}.json"
    planned = json.loads(plans.read_text())["configurations"]["3d_fullres"]
    arch = planned["architecture"]["arch_kwargs"]
    module = _train(work, tmp_path / "run", plans)
    assert module.grid.patch_zyx == tuple(planned["patch_size"])
    assert module.net_config.features == arch["features_per_stage"]
    assert module.net_config.strides == arch["strides"]
    from nnunetv2.utilities.get_network_from_plans import get_network_from_plans

    theirs = get_network_from_plans(
        planned["architecture"]["network_class_name"], arch, planned["architecture"]["_kw_requires_import"], 2, 2
    )
    ours = {name: tuple(p.shape) for name, p in module.net.encoder.named_parameters()}
    assert ours == {name: tuple(p.shape) for name, p in theirs.encoder.named_parameters()}


@pytest.mark.slow
def test_the_commands_export_plan_and_train(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    work = make_work(tmp_path / "work", ct=True)
    raw = ["--to", "nnunet", "--out", str(tmp_path / "raw"), "--split", "80/20", "--workers", "1"]
    assert cli.main(["export", str(work), *raw]) == 0
    folder = tmp_path / "raw" / "Dataset501_Petground"
    out = tmp_path / "plans.json"
    flags = ["--gpu-memory-gb", "0.2", "--spacing", "8,9,10", "--workers", "1"]
    assert cli.main(["plans", str(folder), "--out", str(out), *flags]) == 0
    assert "nnUNetPlannerResEncM" in capsys.readouterr().out
    planned = json.loads(out.read_text())["configurations"]["3d_fullres"]
    assert planned["spacing"] == [10.0, 9.0, 8.0], "nnU-Net counts z, y, x"
    assert (tmp_path / "dataset_fingerprint.json").is_file()
    module = _train(work, tmp_path / "run", out)
    assert module.grid.spacing_xyz_mm == (8.0, 9.0, 10.0)


def test_what_is_no_data_set_is_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = ["--out", str(tmp_path / "plans.json")]

    def said(*arguments: str) -> str:
        assert cli.main(["plans", *arguments, *out]) == 2
        return " ".join(capsys.readouterr().err.split())

    folder = tmp_path / "Dataset007_Mine"
    folder.mkdir()
    assert "DatasetXXX_Name" in said(str(tmp_path))
    assert cli.main(["plans", str(folder), *out]) == 1
    assert "petground export" in " ".join(capsys.readouterr().err.split())
    (folder / "dataset.json").write_text("{}")
    (folder / "imagesTr").mkdir()
    assert cli.main(["plans", str(folder), *out]) == 1
    assert "no training images" in " ".join(capsys.readouterr().err.split())
    (folder / "imagesTr" / "a_0000.nii.gz").touch()
    assert "positive" in said(str(folder), "--gpu-memory-gb", "0")
    assert "millimetres" in said(str(folder), "--spacing", "abc")
    with pytest.raises(SystemExit):
        cli.main(["plans", str(folder), *out, "--planner", "Mine"])
