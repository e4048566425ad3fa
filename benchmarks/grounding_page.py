"""Writes docs/grounding.md from docs/results/grounding.json: which model grounds best, and what the text costs.

python benchmarks/grounding_page.py
"""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from block_tables import table

__all__ = ["written"]

DOCS = Path(__file__).resolve().parent.parent / "docs"
NAMES = {
    "ours": "ours",
    "faithful": "ConTEXTual Net 3D, faithful",
    "projections": "2.5D",
    "llmseg": "LLMSeg",
    "blind": "text-blind",
}
ASKED = {"text_step_ratio": 1.05, "ten_sentences_ratio": 0.35, "nnunet_predictor_ratio": 2.0}
COSTS = {
    "text_step_ratio": "a training step with one sentence, against the same network without text",
    "ten_sentences_ratio": "ten sentences on one exam in one pass, against ten passes",
    "nnunet_predictor_ratio": "ten sentences in one pass, against nnU-Net's predictor with the network without text",
}
HEAD = """# Which model grounds, and what it costs

Written by `make bench-grounding` (`benchmarks/grounding.py` tells how, `grounding_cost.py` beside it of costs); each
model has a card in [models.md](models.md). The exams are phantoms whose lesions come in pairs of like SUVmax on both
sides: what is measured is whether the sentence is read, on made-up patients, not how well it would go in a hospital.
"""
READ = """
F1 by the paper's rule: the mask overlaps the lesion and its SUVmax is within 0.1; in brackets 95 % over patients. Other
side: answers that lie on the other side than the sentence says. False alarms: answers to sentences about what is not
there, because they are another exam's; about the other side; or told by the report as absent. Shuffled: F1 with another
exam's sentences, which a model that reads cannot keep.
"""


def written(result: Mapping[str, Any] | None) -> str:
    """The page; `result` as grounding.json holds it, None where there is none."""
    if result is None:
        return HEAD + "\nNot measured yet.\n"
    figures = result["figures"]
    return "\n".join([HEAD, *_models(figures), "", *_costs(figures), "", _made(result)]) + "\n"


def _models(figures: Mapping[str, Any]) -> list[str]:
    rows = figures["models"]
    heads = ["model", "F1", "F1 by overlap", "mean Dice", "other side", "false alarms", "shuffled", "presence AUROC",
             "training"]  # fmt: skip
    cells = [
        [
            NAMES[name],
            _interval(row["f1"], 3),
            _interval(row["f1_overlap"]),
            _interval(row["mean_dice"]),
            _share(row.get("left_right_confusion")),
            " / ".join(
                _share(row.get(f"false_positives_per_{kind}_sentence"), short=True)
                for kind in ("absent", "swapped", "denied")
            ),
            f"{row['shuffled_f1']:.2f}" if row.get("shuffled_f1") is not None else "-",
            _interval(row.get("presence_auroc")),
            _training(row),
        ]
        for name in NAMES
        if (row := rows.get(name)) is not None
    ]
    about = (
        f"{figures['train_exams']} exams train every model alike, {figures['test_exams']} of another seed are grounded."
    )
    missing = [NAMES[name] for name in figures["not_run_yet"]]
    return [about, READ, *table(heads, cells), *(["", f"Not run yet: {', '.join(missing)}."] if missing else [])]


def _costs(figures: Mapping[str, Any]) -> list[str]:
    if "cost" not in figures:
        return ["What the text costs: not measured yet."]
    cells = [
        [words, f"{figures[key]:.2f}", f"{ASKED[key]:.2f}",
         f"{figures['cost'][key]['seconds']:.2f} s, {figures['cost'][key]['against_seconds']:.2f} s"]
        for key, words in COSTS.items()
    ]  # fmt: skip
    heads = ["what", "ratio", "goal: at most", "seconds of both"]
    return [
        f"Network of `ours.yaml`, {figures['device']}; each pair side by side in one process:",
        "",
        *table(heads, cells),
    ]


def _training(row: Mapping[str, Any]) -> str:
    seconds = row.get("training_seconds")
    return "-" if seconds is None else f"{row['steps']} steps, {seconds / 60:.0f} min"


def _made(result: Mapping[str, Any]) -> str:
    note = result.get("note")
    versions = ", ".join(f"{name} {result['libraries'][name]}" for name in ("torch", "numpy"))
    made = f"`{result['command']}`, commit {result['commit']}, {result['machine']}, {versions}."
    return made + (f" {note}" if note else "")


def _interval(figure: Mapping[str, Any] | None, digits: int = 2) -> str:
    if figure is None or figure.get("value") is None:
        return "-"
    value, low, high = (f"{figure[key]:.{digits}f}" for key in ("value", "low", "high"))
    return f"{value} ({low} to {high})"


def _share(figure: Mapping[str, Any] | None, *, short: bool = False) -> str:
    if figure is None or figure.get("value") is None:
        return "-"
    told = f"{100 * figure['value']:.0f} %" if short else f"{100 * figure['value']:.1f} %"
    return told if short else f"{told} ({100 * figure['low']:.1f} to {100 * figure['high']:.1f})"


if __name__ == "__main__":
    kept = DOCS / "results" / "grounding.json"
    page = written(json.loads(kept.read_text(encoding="utf-8")) if kept.is_file() else None)
    (DOCS / "grounding.md").write_text(page, encoding="utf-8")
    sys.stdout.write(f"{DOCS / 'grounding.md'}\n")
