"""Evaluations as HTML pages that need no network and no other file: one of a model, one of several side by side."""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from petground.pipeline.files import write_bytes

__all__ = ["LEARNT", "SAYS_NO", "cell", "write_comparison", "write_evaluation"]

GROUPS = ("tracer", "size", "uptake", "laterality", "site")
RUNS = {
    "right": "its own sentence",
    "shuffled": "another exam's sentence",
    "empty": "an empty sentence",
}
SAYS_NO = {
    "left_right_confusion": "answers on the other side than said",
    "false_positives_per_absent_sentence": "false alarms: answers to another exam's sentences, nothing there",
    "false_positives_per_swapped_sentence": "false alarms: answers about the other side, nothing there",
    "false_positives_per_denied_sentence": "false alarms: answers to what the report itself denies, nothing there",
    "false_positives_in_unlabelled_exams": "the same in exams without a label: answers to what their reports deny",
    "false_positives_per_empty_sentence": "answers to empty sentences",
    "presence_auroc": "how well presence tells findings that are there from those that are not (AUROC)",
}


LEARNT = (
    "Of these {exams} exams the weights trained on {trained}, and {validated} chose checkpoint and limits: this is no "
    "measure of new patients."
)
MOST_WRONG = 100  # rows of the page; predictions.csv has all


def write_evaluation(
    path: Path, figures: Mapping[str, Any], rows: Sequence[Mapping[str, Any]], pictures: Sequence[Path]
) -> None:
    """Writes the page of an evaluation's metrics.json and of what it missed, its plots inside.

    rows: of predictions.csv.
    """
    wrong = [{**row, "went": _went_wrong(row)} for row in rows if not row["right_hit_paper"]]
    drawn = [(one.stem.replace("_", " "), base64.b64encode(one.read_bytes()).decode("ascii")) for one in pictures]
    who = figures["peer"] or figures["checkpoint"]
    made = {key: who[key] for key in ("file", "sha256", "model", "image") if who.get(key) is not None}
    made |= who.get("versions", {})
    made |= {key: figures[key] for key in ("threshold", "presence_threshold") if figures[key] is not None}
    _write(
        path,
        "evaluation.html",
        name=who.get("peer") or who["file"],
        figures=figures,
        f1=[(RUNS[run], one["f1"]["paper"]) for run, one in figures["runs"].items()],
        by={group: [(k, one["f1"]["paper"]) for k, one in figures["by"][group].items()] for group in GROUPS},
        pictures=drawn,
        made=list(made.items()),
        runs=RUNS,
        says_no=SAYS_NO,
        learnt=LEARNT.format(**figures["learnt_from"], exams=figures["exams"]),
        groups=GROUPS,
        wrong=wrong[:MOST_WRONG],
        more_wrong=max(0, len(wrong) - MOST_WRONG),
    )


def _went_wrong(row: Mapping[str, Any]) -> str:
    if not row["has_sentence"]:
        return "has no sentence"
    if not row["right_answered"]:
        return f"no answer (presence {row['right_presence']:.2f})"
    where = "overlaps it" if row["right_hit_overlap"] else "elsewhere"
    return f"{where}, SUVmax {row['right_suv']:.1f}"


def write_comparison(path: Path, table: Mapping[str, Any]) -> None:
    """Writes the page of `compare.json`'s table."""
    groups = {name: list(dict.fromkeys(v for row in table["rows"] for v in row["by"].get(name, {}))) for name in GROUPS}
    f1 = [(row["name"], row["f1"]["paper"]) for row in table["rows"]]
    _write(path, "compare.html", table=table, f1=f1, groups={k: v for k, v in groups.items() if v})


def cell(figure: Mapping[str, Any] | float | None, sign: bool = False) -> str:
    """An estimate as a person reads it: 0.83 (0.78 to 0.89); a dash where there is none."""
    if figure is None or isinstance(figure, (int, float)):
        figure = {"value": figure, "low": None}
    if figure["value"] is None:
        return "–"
    form = "+.2f" if sign else ".2f"
    value = format(figure["value"], form)
    return value if figure["low"] is None else f"{value} ({figure['low']:{form}} to {figure['high']:{form}})"


def _write(path: Path, template: str, **values: Any) -> None:
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["figure"] = cell
    environment.filters["named"] = lambda name: {"laterality": "side"}.get(
        name, name.replace(">=", "≥ ").replace("<", "< ")
    )
    environment.filters["p"] = lambda p: "–" if p is None else "< 0.001" if p < 0.001 else f"{p:.3f}"
    write_bytes(path, environment.get_template(template).render(**values).encode("utf-8"))
