"""What is asked of `petground train` by flags: stop early, a learning rate, one batch, MLflow; and the run's folder."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from lightning.pytorch.loggers import mlflow as lightning_mlflow
from small_fit import logged, small_flags

from petground.labeling.errors import ConfigError, PetgroundError
from petground.pipeline.nifti import read_nifti, write_nifti
from petground.pipeline.schemas import read_table, write_table
from petground.training.cli import main
from petground.training.provenance import data_hashes, git_state


def test_early_stop_by_our_flag_and_by_lightnings(patch_work: Path, tmp_path: Path) -> None:
    flat = {"trainer__max_epochs": 9, "model__optimizer__lr": 1e-9, "trainer__limit_train_batches": 1}
    assert main(small_flags(patch_work, tmp_path / "a", **flat, early_stop=2)) == 0
    assert len(logged(tmp_path / "a" / "version_0", "val/f1")) == 3  # the first, and two no better
    lightnings = [
        "--trainer.callbacks+=EarlyStopping", "--trainer.callbacks.monitor=val/loss", "--trainer.callbacks.patience=1",
        "--trainer.callbacks.min_delta=1",
    ]  # fmt: skip
    assert main([*small_flags(patch_work, tmp_path / "b", **flat), *lightnings]) == 0
    assert len(logged(tmp_path / "b" / "version_0", "val/f1")) == 2
    assert (tmp_path / "b" / "checkpoints" / "best.ckpt").is_file()
    for wrong in ({"early_stop": 0}, {"early_stop": 3, "data__validation_fraction": 0}):
        with pytest.raises(ConfigError, match="early_stop"):
            main(small_flags(patch_work, tmp_path / "c", **wrong))


def test_the_learning_rate_finder_suggests_and_does_not_train(
    patch_work: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = tmp_path / "run"
    more = {"model__net__head_bias": -4, "data__exams_per_step": 3, "data__augment": "null"}
    more["trainer__enable_progress_bar"] = "true"  # the finder turns it off and on
    assert main(small_flags(patch_work, run, **more, find_lr=40, model__optimizer__ema=0.9)) == 0
    found = json.loads((run / "lr_find" / "lr_find.json").read_text())
    assert found["lr"][0] < 1e-5 < found["lr"][-1]
    assert len(found["lr"]) == len(found["loss"]) <= 40
    assert found["suggestion"] is not None
    assert 1e-5 < found["suggestion"] < 1
    assert f"--model.optimizer.lr {found['suggestion']:.1e}" in capsys.readouterr().out
    assert (run / "lr_find" / "lr_find.png").stat().st_size > 5000
    assert not (run / "checkpoints").exists()
    assert not list(run.rglob("*.ckpt"))
    with pytest.raises(ConfigError, match="too few"):
        main(small_flags(patch_work, run, find_lr=3))


def test_a_precision_that_is_not_given_is_that_of_the_device_that_trains(
    patch_work: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for has_it, wanted in ((True, "bf16-mixed"), (False, "32-true")):
        monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda has_it=has_it: has_it, raising=False)
        run = tmp_path / wanted
        assert main(small_flags(patch_work, run, trainer__precision=None, trainer__max_epochs=1)) == 0
        assert json.loads((run / "version_0" / "run.json").read_text())["precision"] == wanted


def test_one_batch_is_learnt_by_heart(patch_work: Path, tmp_path: Path) -> None:
    flags = small_flags(
        patch_work, tmp_path / "run", trainer__overfit_batches=1, trainer__max_epochs=40, data__validation_fraction=0,
        model__net__head_bias=-4, trainer__enable_checkpointing="false", model__optimizer__lr=0.02,
    )  # fmt: skip
    assert main(flags) == 0
    losses = list(logged(tmp_path / "run" / "version_0").values())
    assert len(losses) == 40
    assert np.mean(losses[-5:]) < 0.5 * losses[0]
    assert np.abs(np.diff(losses)).max() < losses[0]  # the same batch, not another each time


def test_the_run_folder_tells_what_made_it(patch_work: Path, tmp_path: Path) -> None:
    flags = small_flags(patch_work, tmp_path / "run", trainer__max_epochs=1, data__exams_per_step=3)
    assert main(flags) == 0
    folder = tmp_path / "run" / "version_0"
    run = json.loads((folder / "run.json").read_text())
    assert run["versions"]["torch"] == torch.__version__
    assert (run["device"], run["devices"], run["exams_per_step"]) == ("cpu", 1, 3)
    assert set(run["data"]["tables"]) == {"exams.parquet", "findings.parquet", "labels.parquet"}
    assert run["data"]["exams"] == 4
    stored = torch.load(tmp_path / "run" / "checkpoints" / "last.ckpt", weights_only=True)["petground"]
    assert stored["data"] == run["data"]
    assert stored["git"] == run["git"]
    config = yaml.safe_load((folder / "config.yaml").read_text())
    assert config["model"]["optimizer"]["lr"] == 0.01
    assert config["data"]["exams_per_step"] == 3

    assert main(small_flags(patch_work, tmp_path / "same", trainer__max_epochs=1)) == 0
    assert json.loads((tmp_path / "same/version_0/run.json").read_text())["data"] == run["data"]
    mask = next((patch_work / "labels" / "e2").glob("*.nii.gz"))
    volume = read_nifti(mask, "label")
    write_nifti(mask, volume.like(np.roll(volume.array, 1, axis=0), "label"))  # the table is as it was
    assert main(small_flags(patch_work, tmp_path / "other", trainer__max_epochs=1)) == 0
    other = json.loads((tmp_path / "other/version_0/run.json").read_text())["data"]
    assert other["tables"] == run["data"]["tables"]
    assert other["content"] != run["data"]["content"]


def test_tables_are_hashed_by_what_is_in_them(patch_work: Path) -> None:
    before = data_hashes(patch_work, {"e0": "a"})
    rows = read_table(patch_work / "labels.parquet", "labels")
    write_table(patch_work / "labels.parquet", "labels", rows)
    assert data_hashes(patch_work, {"e0": "a"}) == before
    write_table(patch_work / "labels.parquet", "labels", [*rows[:-1], {**rows[-1], "confidence": 0.1}])
    after = data_hashes(patch_work, {"e0": "b"})
    assert after["tables"]["labels.parquet"] != before["tables"]["labels.parquet"]
    assert after["tables"]["exams.parquet"] == before["tables"]["exams.parquet"]
    assert after["content"] != before["content"]


def test_git_state_tells_commit_and_changes(tmp_path: Path) -> None:
    assert git_state(tmp_path) is None

    def git(*words: str) -> None:
        who = ("-c", "user.name=a", "-c", "user.email=a@b.c")
        subprocess.run(["git", "-C", str(tmp_path), *who, *words], check=True, capture_output=True)

    git("init", "-q")
    assert git_state(tmp_path) is None  # no commit yet
    (tmp_path / "a.py").write_text("one = 1\n")
    git("add", "a.py")
    git("commit", "-qm", "one")
    clean = git_state(tmp_path)
    assert clean is not None
    assert (len(clean["commit"]), clean["dirty"], clean["diff"]) == (40, False, None)
    (tmp_path / "notes").write_text("no source")
    assert git_state(tmp_path) == clean
    (tmp_path / "a.py").write_text("one = 2\n")
    changed = git_state(tmp_path)
    assert changed is not None
    assert changed["dirty"]
    assert changed["commit"] == clean["commit"]
    assert changed["diff"]
    (tmp_path / "a.py").write_text("one = 1\n")
    (tmp_path / "b.py").write_text("")
    new = git_state(tmp_path)
    assert new is not None
    assert new["dirty"]


def test_an_image_that_is_no_number_is_named(patch_work: Path, tmp_path: Path) -> None:
    for exam in ("e0", "e1", "e2", "e3"):
        if exam == "e2":
            continue
        path = patch_work / "exams" / exam / "pet.nii.gz"
        pet = read_nifti(path, "SUVbw")
        spoilt = pet.array.astype(np.float32)
        spoilt[10:14, 10:14, 20:30] = np.nan
        write_nifti(path, pet.like(spoilt, "SUVbw"))
    with pytest.raises(PetgroundError) as caught:
        main(small_flags(patch_work, tmp_path / "run", data__validation_fraction=0))
    assert caught.value.case in ("e0", "e1", "e3")
    assert caught.value.fix


def test_what_other_commands_measure_is_refused_with_the_way_there(patch_work: Path, tmp_path: Path) -> None:
    for word, command in (("test", "petground evaluate"), ("predict", "petground ground"), ("validate", "--split val")):
        with pytest.raises(ConfigError, match=command):
            main([word, *small_flags(patch_work, tmp_path / "run")[1:]])


@pytest.mark.parametrize(
    ("flag", "value"), [("find_lr", -3), ("data__workers", -1), ("data__seed", -1), ("trainer__devices", 0)]
)
def test_numbers_that_make_no_sense_are_refused_by_name(
    flag: str, value: int, patch_work: Path, tmp_path: Path
) -> None:
    with pytest.raises(ConfigError, match=flag.rsplit("__", 1)[-1]):
        main(small_flags(patch_work, tmp_path / "run", **{flag: value}))


def test_a_training_without_an_end_is_refused(patch_work: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="max_epochs"):
        main(small_flags(patch_work, tmp_path / "run", trainer__max_epochs=-1, trainer__max_time="00:00:01:00"))


def test_mlflow_is_optional_and_its_extra_is_named(
    patch_work: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patched:
        patched.setattr(lightning_mlflow, "_MLFLOW_AVAILABLE", False)
        with pytest.raises(ConfigError, match=r"petground\[mlflow\]"):
            main(small_flags(patch_work, tmp_path / "a", mlflow__experiment="grounding"))
    pytest.importorskip("mlflow")
    flags = small_flags(
        patch_work, tmp_path / "run", trainer__max_epochs=1, mlflow__experiment="grounding", mlflow__run_name="first"
    )
    assert main(flags) == 0
    from mlflow.tracking import MlflowClient

    client = MlflowClient((tmp_path / "run" / "mlruns").as_uri())
    experiment = client.get_experiment_by_name("grounding")
    (run,) = client.search_runs([experiment.experiment_id])
    assert run.data.metrics["train/loss"] == pytest.approx(list(logged(tmp_path / "run" / "version_0").values())[-1])
    assert run.data.params["optimizer/lr"] == "0.01"
    written = "".join(p.read_text() for p in (tmp_path / "run" / "mlruns").rglob("*") if p.is_file())
    assert "e0" not in {word.strip("\"',") for word in written.split()}


def test_an_unknown_setting_is_answered_with_the_nearest_however_deep(
    patch_work: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    flags = {
        "--model.text.lora.rnak=8": "model.text.lora.rank",
        "--model.loss.plase=1": "model.loss.place",
        "--data.augment.rotate_rda=1": "data.augment.rotate_rad",
        "--trainer.max_epohcs=1": "trainer.max_epochs",
    }
    for flag, meant in flags.items():
        assert main([*small_flags(patch_work, tmp_path / "run"), flag]) == 2
        assert meant in capsys.readouterr().err
    settings: dict[str, dict[str, Any]] = {
        "model.optimizer.weight_decay": {"model": {"optimizer": {"wieght_decay": 1}}},
        "model.net.llmseg.prompts": {"model": {"net": {"llmseg": {"promptz": 1}}}},
        "mlflow.experiment": {"mlflow": {"experimnt": "a"}},
        "model.plans.file": {"model": {"plans": {"fil": "a"}}},
        "early_stop": {"early_stopp": 3},
        "callbacks.monitor": {
            "trainer": {"callbacks": [{"class_path": "EarlyStopping", "init_args": {"monitr": "val/f1"}}]}
        },
    }
    config = tmp_path / "c.yaml"
    for meant, nested in settings.items():
        config.write_text(yaml.safe_dump(nested))
        assert main(["fit", f"--config={config}", f"--data.work={patch_work}"]) == 2
        assert meant in capsys.readouterr().err
