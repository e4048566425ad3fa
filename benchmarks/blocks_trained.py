"""Blocks in place of the plain gate, and attention with and without token reductions, trained alike on small phantoms.

Run by `make bench-blocks`; alone: `python benchmarks/run.py blocks_trained`. It may be stopped at any moment and goes
on where it was (PETGROUND_BENCH_FOLDER, build/bench_blocks_trained; it stops by itself after PETGROUND_BENCH_MINUTES).

Every variant is configs/train/demo.yaml with what its `Variant.net` changes and four sentences a step: three seeds, 80
exams, 216 steps; 20 exams of another seed are grounded and scored against the truth. Ten variants: the gate; five in
its place or that of its softmax; softmax attention among the voxels of stage 2 beside the gate; the same with three
token reductions. On two cores a little over two hours: 30 trainings of 216 steps at 0.8 to 1.0 s, 30 evaluations of 40
s without controls, 30 starts of 12 s, some minutes for the phantoms and for nine comparisons of time.

Which blocks: not the best, which only training tells, but those that cost least in docs/results/blocks.json (`chosen`;
without it a list of ours) and that are not the gate over again or untrainable there (NOT_INSIDE), written down in
chosen.json at the start, so that a benchmark that goes on trains the same; take that file away to choose anew.

F1 and Dice are those of all seeds together, with a 95 % interval over the patients; "against" is the difference to the
gate, for reductions to the attention without, at the same seeds, over the same drawings of patients; by_seed tells the
spread. Seconds are those of the whole network, beside the one it is compared with (blocks_whole.py).
"""

from __future__ import annotations

import csv
import inspect
import json
import math
import time
from collections.abc import Callable, Iterable, Mapping
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import blocks_whole
import numpy as np
from steps import Steps, from_environment

from petground.models.registry import BLOCKS, BlockError
from petground.pipeline.files import write_json
from petground.training.bootstrap import estimate, mean_of
from petground.training.metrics import f1

TRAIN, TEST, SEEDS, EPOCHS = (80, 21), (20, 22), (0, 1, 2), 3
BASE = (
    "--config=demo", "--data.sentences=4", f"--trainer.max_epochs={EPOCHS}",
    f"--trainer.check_val_every_n_epoch={EPOCHS}",
)  # fmt: skip
STAGE, SIZE = 2, "32768"  # of the voxels' attention; voxels at which the table of costs is read
FUSIONS, INSIDE = 3, 2  # how many blocks in place of the gate, and of its softmax
OURS = {  # where no costs are known
    "fusion": ("similarity_as_points", "mixed_attention", "v2v_t2v", "glca_pwca", "lxmert_cross"),
    "inside": ("agent", "hedgehog"),
}
NOT_INSIDE = {  # attentions that the gate's softmax is not replaced with
    "softmax": "it is the gate's own",
    "aaren": "equal to softmax where nothing is causal",
    "size_switched": "equal to softmax for no more words than channels: for any sentence at stage 2 (64 of both)",
    "kmeans_cross": "its queries and keys have no gradient: it wants a loss on its scores, which a gate has not",
}
FAMILIES = {  # of token reductions, of each one is trained; first what is taken where no costs are known
    "merging": ("recoverable_compression", "aim_merge_prune"),
    "by score": ("cls_topk", "cls_topk_ensemble", "flowcut", "hiprune", "vflowopt", "fopru", "kcenter_diversity"),
    "resampling": ("lookup", "similarity_resampler", "sparseformer_roi"),
}
ROOT = Path(__file__).resolve().parent.parent


class Variant(NamedTuple):
    """kind: gate, fusion (in the gate's place), inside (in the place of its softmax), attention (beside the gate),
    reduction (of that attention). net: what differs from the base. against: the variant it is compared with."""

    kind: str
    key: str
    net: dict[str, Any]
    against: str | None


def measure() -> dict[str, Any]:
    steps = from_environment(ROOT / "build" / "bench_blocks_trained")
    choice = kept_choice(steps.folder / "chosen.json", ROOT / "docs" / "results" / "blocks.json")
    own = variants(choice)
    steps.phantoms("train", *TRAIN)
    steps.phantoms("test", *TEST)
    for seed in SEEDS:  # a whole round of all variants first
        for name, variant in own.items():
            steps.train_and_evaluate(
                f"{name}_{seed}", *BASE, *settings(variant), f"--seed_everything={seed}", asked=("--controls=false",)
            )
    answers = {name: _answers(steps, name) for name in own}
    rows = {
        name: {**row, **_cost(steps, variant, own)}
        for name, variant in own.items()
        if (row := row_of(variant, answers[name], answers.get(variant.against or "", {})))
    }
    for name, row in rows.items():
        row["parameters"] = next((p for s in SEEDS if (p := steps.record(f"{name}_{s}").get("parameters"))), None)
    missing = [f"{name}_{seed}" for seed in SEEDS for name in own if str(seed) not in answers[name]]
    counted = [n for name in own for seed in SEEDS if (n := steps.record(f"{name}_{seed}").get("steps"))]
    return {
        "train_exams": TRAIN[0],
        "test_exams": TEST[0],
        "steps": max(counted, default=None),
        "seeds": list(SEEDS),
        "stage": STAGE,
        "chosen_by": choice["by"],
        "rows": rows,
        "not_run_yet": missing,
    }


def kept_choice(path: Path, results: Path) -> dict[str, Any]:
    """The choice that `path` holds; made anew without it, when costs came to be known, or a block of it is gone."""
    figures = json.loads(results.read_text(encoding="utf-8"))["figures"] if results.is_file() else None
    kept: dict[str, Any] = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
    if kept and (kept["by"] == "costs" or figures is None) and all(_stands(v.net) for v in variants(kept).values()):
        return kept
    choice = chosen(figures)
    write_json(path, choice)
    return choice


def chosen(figures: Mapping[str, Any] | None) -> dict[str, Any]:
    """{"fusion", "inside", "reductions": keys; "by": "costs" or "list"}: the cheapest first. figures: of blocks.json.

    Five in all take the gate's place: where too few attentions can, fusion blocks instead.
    """
    costs = _costs(figures or {})
    inside = [k for k, b in BLOCKS["attention"].items() if "cross" in b.patterns and k not in NOT_INSIDE]
    inside = _cheapest(inside, costs["inside"], OURS["inside"], lambda key: {"fusion": _gate_with(key)})[:INSIDE]
    fusion = [key for key in BLOCKS["fusion"] if key not in ("contextual_gate", "none")]
    fusion = _cheapest(fusion, costs["fusion"], OURS["fusion"], lambda key: {"fusion": _fusion(key)})
    reductions = [one for keys in FAMILIES.values() for one in _cheapest(keys, costs["reductions"], keys, _reduced)[:1]]
    return {
        "fusion": fusion[: FUSIONS + INSIDE - len(inside)],
        "inside": inside,
        "reductions": reductions,
        "by": "list" if figures is None else "costs",
    }


def _costs(figures: Mapping[str, Any]) -> dict[str, dict[str, float]]:
    """{"fusion", "inside": key -> time against SDPA; "reductions": key -> a step's time against one without}."""
    found: dict[str, dict[str, float]] = {"fusion": {}, "inside": {}, "reductions": {}}
    for row in figures.get("blocks", ()):
        ratio = row["sizes"].get(SIZE, {}).get("ratio")
        room = "fusion" if row["slot"] == "fusion" else "inside" if row["pattern"] == "cross" else None
        if room and ratio is not None:
            found[room][row["key"]] = ratio
    for row in figures.get("whole", ()):
        if row["stage"] == STAGE and "step" in row:
            found["reductions"][row["key"]] = row["step"]["ratio"]
    return found


def _cheapest(
    keys: Iterable[str], costs: Mapping[str, float], ours: Iterable[str], net: Callable[[str], dict[str, Any]]
) -> list[str]:
    """Keys that the network can hold, by their costs; those of `ours` where there are none."""
    wanted = sorted((key for key in keys if key in costs), key=lambda key: costs[key]) if costs else list(ours)
    return [key for key in wanted if _stands(net(key))]


def _stands(net: Mapping[str, Any]) -> bool:
    try:
        blocks_whole.config(net)
    except BlockError:
        return False
    return True


def variants(choice: Mapping[str, Any]) -> dict[str, Variant]:
    """Name -> what is trained under it."""
    found = {"contextual_gate": Variant("gate", "contextual_gate", {}, None)}
    for key in choice["fusion"]:
        found[key] = Variant("fusion", key, {"fusion": _fusion(key)}, "contextual_gate")
    for key in choice["inside"]:
        found[f"gate_{key}"] = Variant("inside", key, {"fusion": _gate_with(key)}, "contextual_gate")
    found["attention"] = Variant("attention", "softmax", blocks_whole.attention(STAGE), "contextual_gate")
    for key in choice["reductions"]:
        found[f"attention_{key}"] = Variant("reduction", key, _reduced(key), "attention")
    return found


def _fusion(key: str) -> dict[str, Any]:
    """Four heads and the voxels' coordinates, as the base's gate has, where the block has the option."""
    takes = inspect.signature(BLOCKS["fusion"][key].cls).parameters if key in BLOCKS["fusion"] else {}
    return {"name": key, **{k: v for k, v in {"num_heads": 4, "coordinates": "fourier"}.items() if k in takes}}


def _gate_with(key: str) -> dict[str, Any]:
    """The base's gate, another attention in the place of its softmax."""
    return {**blocks_whole.DEMO["net"]["fusion"], "attention": {"name": key}}


def _reduced(key: str) -> dict[str, Any]:
    return {**blocks_whole.attention(STAGE), "token_reduction": {"name": key}}


def settings(variant: Variant) -> list[str]:
    """The variant on the command line of `petground train`."""
    return [f"--model.net.{slot}={json.dumps(value)}" for slot, value in variant.net.items()]


Answered = Mapping[tuple[str, str], tuple[str, tuple[float, ...]]]
"""(exam, lesion) -> patient, and tp, fp, fn, Dice, 1."""


def _answers(steps: Steps, name: str) -> dict[str, Answered]:
    """By seed, of those that are done."""
    done = [seed for seed in SEEDS if steps.done(f"evaluate_{name}_{seed}")]
    return {str(s): read_answers(steps.folder / f"{name}_{s}" / "evaluation" / "predictions.csv") for s in done}


def read_answers(path: Path) -> Answered:
    found = {}
    with path.open(encoding="utf-8", newline="") as file:
        for row in csv.DictReader(file):
            hit, answered = row["right_hit_paper"] == "True", row["right_answered"] == "True"
            counts = (float(hit), float(answered and not hit), float(not hit), float(row["right_dice"]), 1.0)
            found[row["exam_id"], row["key"]] = row["patient_id"], counts
    return found


def _f1(sums: Any, at: int = 0) -> Any:
    return f1(sums[..., at : at + 3])


def _dice(sums: Any, at: int = 0) -> Any:
    return mean_of(sums[..., at + 3 : at + 5])


def row_of(variant: Variant, answers: Mapping[str, Answered], others: Mapping[str, Answered]) -> dict[str, Any] | None:
    """Figures of a variant, all seeds together; None before its first evaluation."""
    if not answers:
        return None
    patients = [patient for one in answers.values() for patient, _ in one.values()]
    table = np.array([counts for one in answers.values() for _, counts in one.values()])
    row: dict[str, Any] = {"kind": variant.kind, "key": variant.key, "net": variant.net, "against": variant.against}
    seeds = [seed for seed in answers if seed in others]
    both = [(p, [*a, *others[s][lesion][1]]) for s in seeds for lesion, (p, a) in answers[s].items()]
    for name, statistic in (("f1", _f1), ("mean_dice", _dice)):
        row[name] = _rounded(estimate(table, patients, statistic).as_json())
        by_seed = {s: float(statistic(sum(np.array(c) for _, c in one.values()))) for s, one in answers.items()}
        row[f"{name}_by_seed"] = _rounded(by_seed)
        difference = partial(_less, statistic)
        row[f"{name}_against"] = (
            _rounded(estimate(np.array([c for _, c in both]), [p for p, _ in both], difference).as_json())
            if both
            else None
        )
    return row


def _less(statistic: Callable[..., Any], sums: Any) -> Any:
    return statistic(sums) - statistic(sums, 5)


def _cost(steps: Steps, variant: Variant, own: Mapping[str, Variant]) -> dict[str, Any]:
    """Time of the whole network beside that of the one it is compared with."""
    if variant.against is None:
        return {}
    in_time = time.monotonic() < steps.until
    return {"cost": blocks_whole.kept(steps.folder, variant.net, own[variant.against].net, run=in_time)}


def _rounded(figures: Mapping[str, Any]) -> dict[str, Any]:
    return {
        key: round(value, 3) if isinstance(value, float) and math.isfinite(value) else value
        for key, value in figures.items()
    }
