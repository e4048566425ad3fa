"""Long benchmarks: a step runs once, goes on when it was stopped, and anew when what decides it has changed."""

from __future__ import annotations

import importlib
import json
import subprocess
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
from tiny_text import make_text_model

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
if sys.argv[1] == "train":
    time.sleep(60 if Path({slow!r}).exists() else 0.2)
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
    stopped = small.steps.seconds("fit_ours")
    assert small.steps.metrics("ours") is None, "figures of the old code are told of as today's"
    began.parent.mkdir(exist_ok=True), began.touch(), small.slow.unlink()
    assert small.call() == ["train", "evaluate"]
    assert began.is_file()
    assert small.steps.seconds("fit_ours") > stopped > 0.2, "the stopped attempt's seconds are lost"
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
    assert list(cost.PATCH) == model["grid"]["patch_zyx"]
    assert ours.fits(cost.PATCH)
    assert ours.fits(cost.WINDOW)
    finer = NetConfig(**cost.FINER)
    assert (finer.fusion_stages, finer.shared_stages) == ([min(ours.fusion_stages) - 1, *ours.fusion_stages], 1)
    assert replace(finer, fusion_stages=ours.fusion_stages, shared_stages=ours.shared_stages) == ours
    heads = {"fusion": {"name": "none"}, "coarse_heads": False, "shared_stages": 0, "presence": False}
    assert plain == replace(ours, **heads), "the plain network differs in more than the text"


def test_a_full_size_measurement_tells_steps_memory_and_exams_per_hour(
    bench: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On the CPU with a network of nothing, which says that it runs and counts, and no more."""
    full = bench("full_size")
    assert full.measure() is None or torch.cuda.is_available()
    monkeypatch.setattr(full, "BODY_ZYX", (16, 24, 16))
    monkeypatch.setattr(full, "WAYS", {"as it is": {}, "checkpointing": {}})
    took = iter(range(0, 10**6, 2))
    monkeypatch.setattr(full.time, "perf_counter", lambda: float(next(took)))
    net = {"features": [4, 8, 8], "blocks_per_stage": 1, "fusion_stages": [0, 1], "encoder": "plain"}
    text = {"name": str(make_text_model(tmp_path / "encoder", "bert")), "local_files_only": True}
    grid = {"spacing_xyz_mm": [8.0, 8.0, 8.0], "patch_zyx": [16, 16, 16]}
    config = {
        "model": {"net": {**net, "coarse_heads": True, "presence": True}, "text": text, "grid": grid},
        "data": {"sentences": 3, "exams_per_step": 2},
    }
    found = full.of_config(config, torch.device("cpu"), rounds=2)
    assert found["step"]["as it is"] == {"seconds": 2.0, "peak_gib": None, "exams_per_hour": 3600}
    assert found["ten_sentences"] == {"seconds": 2.0, "peak_gib": None, "exams_per_hour": 1800}

    def full_up(*_: Any) -> None:
        raise torch.OutOfMemoryError

    monkeypatch.setattr(full, "_step", full_up)
    assert full.of_config(config, torch.device("cpu"), rounds=2)["step"]["checkpointing"] == {"does_not_fit": True}


def test_a_ratio_is_told_with_the_spread_of_its_pairs(bench: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    cost = bench("grounding_cost")
    took = {"a": iter([9.0, 1.0, 2.0, 3.0, 4.0, 5.0]), "b": iter([9.0, *[2.0] * 5])}
    monkeypatch.setattr(cost, "_timed", lambda work, device: next(took[work]))
    told = cost._ratio("a", "b", 5, torch.device("cpu"))
    assert told == {"ratio": 1.5, "quartiles": [1.0, 2.0], "seconds": 3.0, "against_seconds": 2.0, "pairs": 5}


def test_every_part_of_the_cost_works_in_the_same_precision(bench: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    cost = bench("grounding_cost")
    monkeypatch.setattr(cost, "native_bf16", lambda device: True)
    monkeypatch.setattr(cost, "WINDOW", (8, 8, 8))
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


def test_the_cheapest_blocks_that_can_stand_in_the_gates_place_are_trained(bench: Any) -> None:
    trained = bench("blocks_trained")
    blocks = [("attention", "agent", "cross", 3), ("attention", "hedgehog", "cross", 1), ("fusion", "v2v_t2v", "", 4),
              *(("attention", same, "cross", 0.1) for same in ("softmax", "aaren", "size_switched", "kmeans_cross")),
              ("attention", "pointer", "cross", 2), ("attention", "halo", "self", 0.1), ("fusion", "loopback", "", 2),
              ("fusion", "contextual_gate", "", 0), ("fusion", "deepstack", "", 1), ("fusion", "lxmert_cross", "", 9),
              ("fusion", "gone", "", 0.1)]  # fmt: skip
    costs = {
        "blocks": [{"slot": s, "key": k, "pattern": p, "sizes": {trained.SIZE: {"ratio": r}}} for s, k, p, r in blocks],
        "whole": [
            {"stage": stage, "key": key, "step": {"ratio": ratio}}
            for stage, key, ratio in ((2, "flowcut", 0.9), (2, "cls_topk", 0.95), (1, "fopru", 0.1), (2, "lookup", 2.0))
        ],
    }
    found = trained.chosen(costs)
    assert found == {
        "fusion": ["deepstack", "loopback", "v2v_t2v"], "inside": ["hedgehog", "pointer"],
        "reductions": ["flowcut", "lookup"], "by": "costs",
    }  # fmt: skip
    own = trained.variants(found)
    assert [v.kind for v in own.values()] == ["gate", *["fusion"] * 3, *["inside"] * 2, "attention", *["reduction"] * 2]
    gate = trained.blocks_whole.DEMO["net"]["fusion"]
    inside = trained.blocks_whole.config(own["gate_hedgehog"].net)
    assert inside.fusion == {**gate, "attention": {"name": "hedgehog"}}
    assert inside.attention is None, "beside the gate is not in its place"
    assert own["attention_lookup"].against == "attention"
    alone = trained.blocks_whole.config(own["attention"].net)
    reduced = trained.blocks_whole.config(own["attention_lookup"].net)
    assert replace(reduced, token_reduction=None) == alone
    assert json.loads(trained.settings(own["attention"])[0].split("=", 1)[1]) == alone.attention
    ours = trained.variants(trained.chosen(None))
    assert len(ours) == 10
    assert all(trained._stands(variant.net) for variant in ours.values())
    everything = {key for keys in trained.FAMILIES.values() for key in keys}
    assert all(trained._stands(trained._reduced(key)) for key in everything)


def test_what_was_chosen_stays_until_costs_are_known_or_a_block_is_gone(bench: Any, tmp_path: Path) -> None:
    trained = bench("blocks_trained")
    path, results = tmp_path / "chosen.json", tmp_path / "blocks.json"
    assert trained.kept_choice(path, results)["by"] == "list"
    row = {"slot": "fusion", "key": "deepstack", "pattern": "", "sizes": {trained.SIZE: {"ratio": 2.0}}}
    results.write_text(json.dumps({"figures": {"blocks": [row]}}))
    first = trained.kept_choice(path, results)
    assert (first["by"], first["fusion"]) == ("costs", ["deepstack"])
    results.write_text(json.dumps({"figures": {"blocks": [{**row, "key": "loopback"}]}}))
    assert trained.kept_choice(path, results) == first, "a timing that differs begins other trainings"
    path.write_text(json.dumps({**first, "fusion": ["gone"]}))
    assert trained.kept_choice(path, results)["fusion"] == ["loopback"]


def test_figures_of_all_seeds_together_have_intervals_over_patients(bench: Any, tmp_path: Path) -> None:
    trained = bench("blocks_trained")

    def answers(name: str, dices: list[float]) -> Any:
        lines = ["exam_id,key,patient_id,right_answered,right_dice,right_hit_paper"]
        lines += [f"e{n},l,p{n},{dice > 0},{dice},{dice > 0.5}" for n, dice in enumerate(dices)]
        path = tmp_path / name
        path.write_text("\n".join(lines))
        return trained.read_answers(path)

    variant = trained.Variant("reduction", "lookup", {}, "attention")
    mine = {"0": answers("a", [0.8, 0.0, 0.4, 0.9]), "1": answers("b", [0.8, 0.9, 0.4, 0.9])}
    row = trained.row_of(variant, mine, {"1": answers("c", [0.7, 0.8, 0.3, 0.8])})
    # seed 0: 2 hits, 1 wrong answer, 2 missed; seed 1: 3 hits, 1 wrong answer, 1 missed
    assert row["f1"]["value"] == pytest.approx(2 * 5 / (2 * 5 + 2 + 3), abs=1e-3)
    assert row["f1"]["low"] < row["f1"]["value"] < row["f1"]["high"]
    assert row["f1_by_seed"] == {"0": pytest.approx(4 / 7, abs=1e-3), "1": 0.75}
    assert row["mean_dice"]["value"] == pytest.approx(5.1 / 8, abs=1e-3)
    assert row["mean_dice_against"] == {"value": 0.1, "low": 0.1, "high": 0.1, "n": 4}, "not paired at the same seed"
    assert row["f1_against"]["value"] == 0.0
    assert trained.row_of(variant, {}, mine) is None
    assert trained.row_of(variant, mine, {})["f1_against"] is None


def test_every_variant_is_trained_and_told_beside_what_it_changes(
    bench: Any, small: _Bench, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    trained = bench("blocks_trained")
    monkeypatch.setenv("PETGROUND_BENCH_FOLDER", str(tmp_path / "bench"))
    monkeypatch.setattr(trained, "ROOT", tmp_path)  # where no costs are known
    monkeypatch.setattr(trained, "SEEDS", (0, 1))
    asked: list[Any] = []
    monkeypatch.setattr(trained.blocks_whole, "kept", lambda folder, *nets, run: asked.append((*nets, run)) or {})
    answers = "exam_id,key,patient_id,right_answered,right_dice,right_hit_paper\\ne0,l,p0,True,0.5,True\\n"
    script = f"""
import sys
from pathlib import Path
word = dict(one.split("=", 1) for one in sys.argv if one.startswith("--") and "=" in one)
if sys.argv[1] == "evaluate":
    assert word["--controls"] == "false"
    Path(word["--out"]).mkdir(parents=True)
    (Path(word["--out"]) / "predictions.csv").write_text("{answers}")
"""
    monkeypatch.setattr(small.module, "COMMAND", (sys.executable, "-c", script))
    found = trained.measure()
    assert found["not_run_yet"] == []
    assert [row["kind"] for row in found["rows"].values()].count("reduction") == len(trained.FAMILIES)
    assert found["rows"]["attention_lookup"]["against"] == "attention"
    assert found["rows"]["attention_lookup"]["mean_dice_against"]["value"] == 0.0
    assert all(row["f1"] == {"value": 1.0, "low": None, "high": None, "n": 2} for row in found["rows"].values())
    alone = trained.blocks_whole.attention(trained.STAGE)
    assert ({**alone, "token_reduction": {"name": "lookup"}}, alone, True) in asked
    assert len(asked) == len(found["rows"]) - 1
    told = {"command": "x", "commit": "1a2b", "machine": "m", "libraries": {"torch": "2"}, "figures": found}
    (tmp_path / "blocks_trained.json").write_text(json.dumps(told))
    lines = bench("block_tables").trained_table({}, tmp_path)
    assert next(line for line in lines if line.startswith("| lookup |")).endswith("| time not measured |")
    assert any(line.startswith("| agent in place of the gate's softmax |") for line in lines)
    monkeypatch.setenv("PETGROUND_BENCH_MINUTES", "0")
    asked.clear()
    assert trained.measure()["rows"].keys() == found["rows"].keys()
    assert not any(run for *_, run in asked), "it goes on after its time"


def test_a_reduction_is_timed_with_the_whole_network_around_it(bench: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = bench("blocks_whole")
    plain, reduced = whole.pair(2, {"name": "lookup"})
    told = whole.compare(reduced, plain, (24, 8, 8), budget=0.0)
    assert told["parameters"][0] > told["parameters"][1]
    for part in ("step", "inference"):
        assert told[part]["pairs"] == whole.LEAST
        assert told[part]["seconds"] > 0 < told[part]["against_seconds"]
    clock = iter([0.0, 9.0, 9.0, 10.0, *(t for n in range(3) for t in (20.0 * n, 20.0 * n + 3, 50, 52))])
    monkeypatch.setattr(whole.time, "perf_counter", lambda: next(clock))
    turns: list[str] = []
    timed = whole._in_turn(lambda: turns.append("a"), lambda: turns.append("b"), budget=16.0)
    assert turns == ["a", "b"] * 4, "not in turn, or the first call counts"
    assert (timed["ratio"], timed["pairs"]) == (1.5, 3)


def test_a_comparison_is_made_once_and_one_that_fails_is_told(
    bench: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = bench("blocks_whole")
    calls: list[Any] = []

    def run(command: list[str], **_: Any) -> Any:
        calls.append(json.loads(command[-1]))
        return type("Told", (), {"returncode": len(calls) - 2, "stdout": json.dumps({"step": {}})})()

    monkeypatch.setattr(whole.subprocess, "run", run)
    plain, reduced = whole.pair(2, {"name": "lookup"})
    assert "left_out" in whole.kept(tmp_path, reduced, plain)
    assert whole.kept(tmp_path, reduced, plain) == {"step": {}}, "a failure is kept"
    assert whole.kept(tmp_path, reduced, plain) == {"step": {}}
    assert calls == [[reduced, plain]] * 2


def test_the_runner_tells_what_there_is() -> None:
    def said(*words: str) -> tuple[int, str]:
        command = [sys.executable, str(ROOT / "benchmarks" / "run.py"), *words]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        return done.returncode, " ".join((done.stdout + done.stderr).split())

    code, told = said("--help")
    assert code == 0
    assert all(name in told for name in ("gold", "blocks_trained", "not shipped"))
    code, told = said("nonsense")
    assert code == 1
    assert told.startswith("no benchmark 'nonsense'; there are gold, ")
