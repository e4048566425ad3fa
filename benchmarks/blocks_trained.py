"""Blocks in place of the plain gate, trained alike on small mirrored phantoms: what each is worth, and what it costs.

Run by `make bench-blocks`; alone: `python benchmarks/run.py blocks_trained`. About two hours on two cores; it may be
stopped at any moment and goes on where it was (PETGROUND_BENCH_FOLDER, build/bench_blocks_trained; it stops by itself
after PETGROUND_BENCH_MINUTES). Every variant is configs/train/bench_ours.yaml with one line changed, three seeds, 100
exams, 540 steps; 40 exams of another seed are grounded and scored against the truth.

F1 is the mean over the seeds, with the least and the largest; `paired` is the difference to the gate at the same seeds.
Three seeds of one small phantom set do not rank blocks whose intervals overlap. Seconds per step are those of the whole
training, its start and validations included.
"""

from __future__ import annotations

import statistics
from pathlib import Path
from typing import Any

from steps import Steps, from_environment

TRAIN, TEST, SEEDS, EPOCHS = (100, 21), (40, 22), (0, 1, 2), 6
BASE = ("--config=bench_ours", f"--trainer.max_epochs={EPOCHS}", "--trainer.check_val_every_n_epoch=3")
VARIANTS: dict[str, tuple[str, ...]] = {
    "contextual_gate": (),
    "lxmert_cross": ("--model.net.fusion={name: lxmert_cross, num_heads: 4, coordinates: fourier}",),
    "v2v_t2v": ("--model.net.fusion={name: v2v_t2v, num_heads: 4, coordinates: fourier}",),
    "mixed_attention": ("--model.net.fusion={name: mixed_attention, num_heads: 4, coordinates: fourier}",),
    "halo": ("--model.net.attention={name: halo, num_heads: 4, stages: [2]}",),
    "agent": ("--model.net.attention={name: agent, num_heads: 4, stages: [2]}",),
}
ROOT = Path(__file__).resolve().parent.parent


def measure() -> dict[str, Any]:
    steps = from_environment(ROOT / "build" / "bench_blocks_trained")
    steps.phantoms("train", *TRAIN)
    steps.phantoms("test", *TEST)
    for seed in SEEDS:  # a whole round of all variants first
        for name, changed in VARIANTS.items():
            steps.train_and_evaluate(f"{name}_{seed}", *BASE, *changed, f"--seed_everything={seed}")
    rows = {name: row for name in VARIANTS if (row := _row(steps, name))}
    plain = rows.get("contextual_gate", {}).get("f1_by_seed", {})
    for row in rows.values():
        pairs = [value - plain[seed] for seed, value in row["f1_by_seed"].items() if seed in plain]
        row["paired"] = round(statistics.mean(pairs), 3) if pairs else None
    missing = [f"{name}_{seed}" for name in VARIANTS for seed in SEEDS if not steps.done(f"evaluate_{name}_{seed}")]
    return {
        "train_exams": TRAIN[0],
        "test_exams": TEST[0],
        "seeds": list(SEEDS),
        "blocks": rows,
        "not_run_yet": missing,
    }


def _row(steps: Steps, name: str) -> dict[str, Any] | None:
    f1, seconds, parameters = {}, [], None
    for seed in SEEDS:
        metrics = steps.metrics(f"{name}_{seed}")
        if metrics is None:
            continue
        f1[str(seed)] = round(metrics["runs"]["right"]["f1"]["paper"]["value"], 3)
        record, spent = steps.record(f"{name}_{seed}"), steps.seconds(f"fit_{name}_{seed}")
        parameters = record.get("parameters")
        if spent and record.get("steps"):
            seconds.append(spent / record["steps"])
    if not f1:
        return None
    values = list(f1.values())
    return {
        "f1": round(statistics.mean(values), 3),
        "f1_range": [min(values), max(values)],
        "f1_by_seed": f1,
        "seconds_per_step": round(statistics.median(seconds), 3) if seconds else None,
        "parameters": parameters,
    }
