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
    "faithful": "ConTEXTual Net 3D",
    "projections": "2.5D",
    "llmseg": "LLMSeg",
    "blind": "text-blind",
}
ASKED = {"text_step_ratio": 1.05, "ten_sentences_ratio": 0.35, "nnunet_predictor_ratio": 2.0}
COSTS = {
    "text_step_ratio": "a training step with one sentence, against the same network without text",
    "text_step_small_ratio": "the same on a patch of {window}",
    "text_step_float32_ratio": "the same on that patch in float32",
    "text_finer_step_ratio": "a step with one sentence on the config's patch where the next finer stage reads it, too",
    "text_steps_ratio": "a training step with {sentences} sentences, as the config trains, against one without text",
    "compiled_step_ratio": "a step with {sentences} sentences on a patch of {window}, compiled, against as it is",
    "ten_sentences_ratio": "ten sentences on one exam in one pass, against ten passes",
    "nnunet_predictor_ratio": "ten sentences in one pass, against nnU-Net's predictor with the network without text",
    "nnunet_own_ratio": "ten sentences in one pass, against nnU-Net's predictor with its own network of these sizes",
}
HEAD = """# Which model grounds, and what it costs

Written by `make bench-grounding` (`benchmarks/grounding.py` tells how, `grounding_cost.py` beside it of costs); each
model has a card in [models.md](models.md). The exams are phantoms whose lesions come in pairs of like SUVmax on both
sides: what is measured is whether the sentence is read, on made-up patients, not how well it would go in a hospital.
"""
READ = """
These are small networks on a coarse grid (about 10 mm), trained for minutes, made to tell mechanisms apart: not the
published models at 3 mm, whose configs ([models.md](models.md)) need a GPU and have not been trained here. Learning
rate and schedule were chosen for ours and are the same for all, and so are the eight sentences of a step.

F1 by the paper's rule: the mask overlaps the lesion and its SUVmax is within 0.1; in brackets 95 % over patients.
Against the first: the difference over the same drawings of patients, and p by exchanging answers within patients
(`petground compare`). Each row is one training: what another would give is not in these intervals (the last line
tells of others). Asked of ours: ahead of all, 0.85 or more, and less than 2 % on the other side than the sentence
says. Mean Dice: of the outlines that are reported, drawn anew on the PET around what the model marks
([patches.md](patches.md)), and of what the model itself marks. False alarms: answers to sentences about what is not
there, because they are another exam's; about the other side; or denied by the report (a dash: not asked). Shuffled:
F1 with another exam's sentences, near 0 if the model reads.
"""


def written(result: Mapping[str, Any] | None) -> str:
    """The page; `result` as grounding.json holds it, None where there is none."""
    if result is None:
        return HEAD + "\nNot measured yet.\n"
    figures = result["figures"]
    return "\n".join([HEAD, *_models(figures), "", *_costs(figures), "", _made(result)]) + "\n"


def _models(figures: Mapping[str, Any]) -> list[str]:
    rows = figures["models"]
    heads = ["model", "parameters", "F1", "against the first", "F1 by overlap", "mean Dice", "as marked",
             "other side", "false alarms: another exam's", "false alarms: other side", "false alarms: denied",
             "shuffled", "presence AUROC", "training"]  # fmt: skip
    cells = [
        [
            f"{NAMES[name]}, small",
            f"{row['parameters'] / 1e6:.2f} M" if "parameters" in row else "-",
            _interval(row["f1"], 3),
            _against(row.get("less_first")),
            _interval(row["f1_overlap"]),
            _interval(row["mean_dice"]),
            _interval(row.get("mean_dice_as_marked")),
            _share(row.get("left_right_confusion")),
            *(_share(row.get(f"false_positives_per_{kind}_sentence")) for kind in ("absent", "swapped", "denied")),
            f"{row['shuffled_f1']:.2f}" if row.get("shuffled_f1") is not None else "-",
            _interval(row.get("presence_auroc")),
            _training(row),
        ]
        for name in NAMES
        if (row := rows.get(name)) is not None
    ]
    lesions = next((row["references"] for row in rows.values() if "references" in row), None)
    about = (
        f"{figures['train_exams']} exams train every model alike; {figures['test_exams']} of another seed"
        + (f", with {lesions} lesions," if lesions else "")
        + " are grounded and scored against their true masks."
    )
    missing = [NAMES[name] for name in figures["not_run_yet"]]
    return [about, READ, *table(heads, cells), *(["", f"Not run yet: {', '.join(missing)}."] if missing else [])]


def _costs(figures: Mapping[str, Any]) -> list[str]:
    if "cost" not in figures:
        return ["What the text costs: not measured yet."]
    sizes = [" x ".join(map(str, figures[key])) for key in ("patch_zyx", "window_zyx", "exam_zyx")]
    cells = [
        [words.format(sentences=figures.get("sentences_in_a_step"), window=sizes[1]), _ratio(figures["cost"][key]),
         f"{ASKED[key]:.2f}" if key in ASKED else "-",
         f"{figures['cost'][key]['seconds']:.2f} s, {figures['cost'][key]['against_seconds']:.2f} s",
         str(figures["cost"][key]["pairs"])]
        for key, words in COSTS.items()
        if key in figures
    ]  # fmt: skip
    heads = ["what", "ratio", "goal: at most", "seconds of both", "pairs"]
    return [
        f"The full network of `ours.yaml` ({figures['parameters']['ours'] / 1e6:.0f} M parameters) on random numbers, "
        f"patch {sizes[0]}, exam {sizes[2]} in windows of {sizes[1]}, {figures['device']}. Both sides take turns in "
        "one process; the ratio is the median of the pairs' (their quartiles in brackets), the seconds are medians of "
        "their own:",
        "",
        *table(heads, cells),
    ]


def _ratio(cost: Mapping[str, Any]) -> str:
    low, high = cost["quartiles"]
    return f"{cost['ratio']:.2f} ({low:.2f} to {high:.2f})"


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


def _against(difference: Mapping[str, Any] | None) -> str:
    if difference is None:
        return "-"
    value, low, high = (f"{difference['f1'][key]:+.3f}" for key in ("value", "low", "high"))
    return f"{value} ({low} to {high}), p {difference['p']:.2g}"


def _share(figure: Mapping[str, Any] | None) -> str:
    """In per cent, with its interval and of how many."""
    if figure is None or figure.get("value") is None:
        return "-"
    value, low, high = (100 * figure[key] for key in ("value", "low", "high"))
    low, high = (f"{bound:.1f}" if 0 < bound < 10 else f"{bound:.0f}" for bound in (low, high))
    return f"{value:.1f} % ({low} to {high}) of {figure['n']}"


if __name__ == "__main__":
    kept = DOCS / "results" / "grounding.json"
    page = written(json.loads(kept.read_text(encoding="utf-8")) if kept.is_file() else None)
    (DOCS / "grounding.md").write_text(page, encoding="utf-8")
    sys.stdout.write(f"{DOCS / 'grounding.md'}\n")
