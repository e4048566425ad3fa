"""Long benchmarks: a step runs once, goes on when it was stopped, and anew when what decides it has changed."""

from __future__ import annotations

import importlib
import json
import sys
import time
from dataclasses import replace
from importlib.resources import files
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
import yaml

from petground.models.grounding import GroundingNet
from petground.models.net_config import NetConfig
from petground.training.losses import LossConfig

ROOT = Path(__file__).resolve().parents[2]
COMMAND = """
import sys, time
from pathlib import Path
with open({log!r}, "a") as log:
    log.write(sys.argv[1] + "\\n")
out = [Path(word[6:]) for word in sys.argv if word.startswith("--out=")]
for folder in out:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "labels.parquet").write_text(Path({labels!r}).read_text())
if sys.argv[1] == "train" and Path({slow!r}).exists():
    time.sleep(60)
"""


@pytest.fixture
def bench(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Modules of benchmarks/ by name."""
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    return importlib.import_module


class _Bench:
    """Steps whose commands only write down that they ran, with a config and code of their own."""

    def __init__(self, steps: ModuleType, folder: Path, monkeypatch: pytest.MonkeyPatch):
        self.module, self.folder, self.log = steps, folder, folder / "log"
        self.config, self.labels, self.slow = folder / "small.yaml", folder / "labels", folder / "slow"
        self.code = {"models": "1"}
        self.config.write_text("lr: 1"), self.labels.write_text("1")
        script = COMMAND.format(log=str(self.log), labels=str(self.labels), slow=str(self.slow))
        monkeypatch.setattr(steps, "COMMAND", (sys.executable, "-c", script))
        monkeypatch.setattr(
            steps, "hashes", lambda *roots: dict(self.code) if "petground.training.cli" in roots else {}
        )

    def call(self, *, seconds: float = 60.0, rate: int = 1, run: bool = True) -> Any:
        """One call of a benchmark; the commands that it ran."""
        self.log.write_text("")
        steps = self.module.Steps(self.folder / "bench", time.monotonic() + seconds)
        steps.phantoms("train", 2, 1)
        steps.phantoms("test", 1, 2)
        steps.train_and_evaluate("ours", f"--config={self.config}", f"--lr={rate}", run=run)
        self.steps = steps
        return self.log.read_text().split()


@pytest.fixture
def small(bench: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> _Bench:
    return _Bench(bench("steps"), tmp_path, monkeypatch)


ALL = ["phantom", "label", "phantom", "label", "train", "evaluate"]


def test_a_step_runs_once_and_anew_with_what_hangs_on_it_when_something_changed(small: _Bench, capsys: Any) -> None:
    assert small.call() == ALL
    assert small.call() == []
    assert small.steps.seconds("fit_ours") > 0
    small.config.write_text("lr: 2")
    assert small.call() == ["train", "evaluate"]
    assert "fit_ours runs anew, for there changed: config " in capsys.readouterr().err
    small.code["models"] = "2"
    assert small.call() == ["train", "evaluate"]
    assert "fit_ours runs anew, for there changed: code of models" in capsys.readouterr().err
    assert small.call(rate=2) == ["train", "evaluate"]
    assert "changed: arguments" in capsys.readouterr().err
    assert small.call(rate=2) == []


def test_labels_that_came_out_the_same_teach_the_same(small: _Bench, capsys: Any) -> None:
    small.call()
    mark = small.folder / "bench" / "label_train.json"
    mark.write_text(json.dumps({**json.loads(mark.read_text()), "of": {"code of labeling": "another"}}))
    assert small.call() == ["label"]
    mark.unlink(), small.labels.write_text("2")
    assert small.call() == ["label", "train", "evaluate"]
    assert "for there changed: what label_train made" in capsys.readouterr().err


def test_a_stopped_training_goes_on_and_one_of_other_code_begins_again(small: _Bench) -> None:
    small.call()
    small.code["models"] = "2"
    small.slow.touch()
    began = small.folder / "bench" / "ours" / "last.ckpt"
    assert small.call(seconds=1.0) == ["train"]
    assert not small.steps.done("fit_ours")
    assert small.steps.metrics("ours") is None, "figures of the old code are told of as today's"
    began.parent.mkdir(exist_ok=True), began.touch(), small.slow.unlink()
    assert small.call() == ["train", "evaluate"]
    assert began.is_file()
    assert small.steps.seconds("fit_ours") > 1.0, "the stopped attempt's seconds are lost"
    small.code["models"] = "3"
    assert small.call(run=False) == []
    assert not small.steps.done("evaluate_ours")
    assert began.is_file()
    small.call()
    assert not began.is_file(), "a training that other code began was gone on with"


def test_the_newest_attempt_is_the_one_with_the_highest_number(bench: Any, tmp_path: Path) -> None:
    for number in (2, 10, 9):
        folder = tmp_path / "ours" / f"version_{number}"
        folder.mkdir(parents=True)
        (folder / "run.json").write_text(json.dumps({"steps": number}))
    assert bench("steps").Steps(tmp_path, 0.0).record("ours") == {"steps": 10}


def test_sources_are_what_is_imported_one_from_another(bench: Any) -> None:
    def names(*roots: str) -> set[str]:
        return {file.relative_to(ROOT).as_posix() for file in bench("sources").sources(*roots)}

    deepstack = names("petground.models.blocks.fusion.deepstack")
    assert {"models/blocks/contract.py", "models/blocks/fusion/parts.py", "kernels/_shared/dispatch.py"} <= deepstack
    assert "kernels/cross_attention/reference.py" in deepstack, "a kernel counts whole"
    assert not [name for name in deepstack if "attention/agent.py" in name or name.startswith("training/")]
    training = names("petground.training.cli")
    assert {"training/losses.py", "models/text/bank.py", "pipeline/prompts.py", "kernels/memory.py"} <= training
    assert not [name for name in training if name.startswith(("pipeline/dicom/", "pipeline/review/", "configs/"))]
    assert {"labeling/rules/context.yaml", "pipeline/exam_cases.py"} <= names(
        "petground.pipeline.commands.label", "petground.labeling"
    ) or list((ROOT / "labeling").rglob("*.yaml")) == []
    with pytest.raises(ModuleNotFoundError):
        names("petground.training.not_there")


def test_a_row_of_the_blocks_is_of_its_blocks_files_and_no_others(
    bench: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    blocks, found = bench("blocks"), bench("sources")
    before = {row: blocks._source(*row) for row in (("fusion", "deepstack"), ("attention", "softmax"))}
    read = Path.read_bytes
    changed = ROOT / "models" / "blocks" / "fusion" / "parts.py"
    monkeypatch.setattr(Path, "read_bytes", lambda self: read(self) + (b"#" if self == changed else b""))
    assert found.sources("petground.models.blocks.fusion.deepstack")
    assert blocks._source("fusion", "deepstack") != before["fusion", "deepstack"]
    assert blocks._source("attention", "softmax") == before["attention", "softmax"]


def test_the_cost_is_measured_on_the_shipped_network_and_loss(bench: Any) -> None:
    cost = bench("grounding_cost")
    model = yaml.safe_load(files("petground.configs.train").joinpath("ours.yaml").read_text(encoding="utf-8"))["model"]
    ours, plain = NetConfig(**cost.OURS), NetConfig(**cost.PLAIN)
    assert ours == NetConfig(**model["net"])
    assert LossConfig(**model["loss"]) == cost.LOSS
    assert cost.LOSS.place > 0 < cost.LOSS.presence
    assert ours.fits(cost.PATCH)
    heads = {"fusion": {"name": "none"}, "coarse_heads": False, "shared_stages": 0, "presence": False}
    assert plain == replace(ours, **heads), "the plain network differs in more than the text"


def test_every_part_of_the_cost_works_in_the_same_precision(bench: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    cost = bench("grounding_cost")
    monkeypatch.setattr(cost, "native_bf16", lambda device: True)
    monkeypatch.setattr(cost, "PATCH", (8, 8, 8))
    small = {"features": [4, 8], "blocks_per_stage": 1, "fusion_stages": [0], "encoder": "plain"}
    plain = GroundingNet(NetConfig(**small, fusion={"name": "none"}), cost.TEXT)
    kinds = []
    decode = plain.decode
    monkeypatch.setattr(
        plain, "decode", lambda *given: (said := decode(*given), kinds.append(said.stages[-1].dtype))[0]
    )
    image, device = torch.rand(1, 2, 8, 8, 8), torch.device("cpu")
    cost._Plain(plain, device)(image)
    tokens, mask = torch.randn(1, 3, cost.TEXT), torch.ones(1, 3, dtype=torch.bool)
    cost._slide(plain, image[0].numpy(), tokens, mask)
    assert kinds == [torch.bfloat16] * 2
