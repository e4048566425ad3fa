"""`petground compare`: several evaluations of the same references side by side, with paired tests."""

from __future__ import annotations

import csv
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rich import box
from rich.console import Console
from rich.table import Table

from petground.labeling.errors import InputError
from petground.pipeline.files import write_json
from petground.training.bootstrap import estimate, exchanged
from petground.training.metrics import RULES, f1
from petground.training.pages import LEARNT, cell, write_comparison

__all__ = ["compare"]

Key = tuple[str, str]
OUTLINES = {"model": "the model's", "pet": "the PET's"}
SHARES = ("left_right_confusion", *(f"false_positives_per_{kind}_sentence" for kind in ("absent", "swapped", "denied")))


@dataclass(frozen=True)
class Evaluation:
    """One folder of `petground evaluate`. counts: rule -> [N, 3] (TP, FP, FN) in the order of keys; dice [N].

    references: what was looked for under each key, as SUV and volume tell.
    """

    name: str
    keys: tuple[Key, ...]
    references: tuple[tuple[str, str], ...]
    patients: tuple[str, ...]
    counts: dict[str, NDArray[np.float64]]
    dice: NDArray[np.float64]
    metrics: dict[str, Any]

    @property
    def measured_against(self) -> str:
        return str(self.metrics["measured_against"])

    @property
    def split(self) -> str:
        """Which exams were asked: train, val, test, all."""
        return str(self.metrics["split"])

    @property
    def learnt_from(self) -> str | None:
        """In words, where the weights learnt from these exams."""
        seen = self.metrics.get("learnt_from") or {}
        return LEARNT.format(**seen, exams=self.metrics["exams"]) if any(seen.values()) else None

    @property
    def outlines(self) -> str:
        """Whose outlines were measured."""
        return " and ".join(OUTLINES[kind] for kind in sorted(self.metrics["outline"]))


def compare(evaluations: list[Path], out: Path) -> int:
    """Put evaluations on the same exams side by side; the first is what the others are held against.

    Writes OUT/compare.json and OUT/compare.html: F1, Dice and presence of each with 95 % intervals over patients; and
    for each against the first the difference of F1 over the same drawings of patients, and its p by exchanging both
    models' answers within patients. Evaluations against truth and against weak labels are not compared; whose outlines
    were measured is told.

    Args:
        evaluations: two or more folders of `petground evaluate`, e.g. evaluations/ours evaluations/faithful.
        out: Folder for the table and the page.
    """
    if len(evaluations) < 2:
        raise InputError("there is nothing to compare", fix="name two or more folders of `petground evaluate`")
    read = [_read(folder, name) for folder, name in zip(evaluations, _names(evaluations), strict=True)]
    first = read[0]
    for other in read[1:]:
        if other.keys != first.keys:
            shared = len(set(other.keys) & set(first.keys))
            raise InputError(
                f"{other.name} and {first.name} share {shared} of {len(first.keys)} references: no pairs to compare",
                fix="evaluate both on the same labels, truth and split",
            )
        if other.measured_against != first.measured_against:
            raise InputError(
                f"{other.name} was measured against {other.measured_against}, {first.name} against "
                f"{first.measured_against}",
                fix="evaluate both with the same --truth",
            )
        moved = sum(one != as_before for one, as_before in zip(other.references, first.references, strict=True))
        if moved:
            raise InputError(
                f"{moved} references of {other.name} have another SUV or outline than in {first.name}",
                fix="evaluate both on the same labels: they were labelled or redrawn in between",
            )
        if other.split != first.split:
            raise InputError(
                f"{other.name} was evaluated on split '{other.split}', {first.name} on '{first.split}': one may have "
                "learnt from exams that the other has not seen",
                fix="evaluate both with the same --split",
            )
    rows = [_row(one, first) for one in read]
    table = {
        "against": first.name,
        "measured_against": first.measured_against,
        "split": first.split,
        "references": len(first.keys),
        "patients": len(set(first.patients)),
        "rows": rows,
    }
    write_json(out / "compare.json", table)
    write_comparison(out / "compare.html", table)
    _show(Console(), table, out)
    return 0


def _names(folders: Sequence[Path]) -> list[str]:
    """The shortest ends of the paths that tell them apart."""
    for parts in range(1, max(len(folder.resolve().parts) for folder in folders) + 1):
        names = ["/".join(folder.resolve().parts[-parts:]) for folder in folders]
        if len(set(names)) == len(names):
            return names
    raise InputError("a folder is named twice", fix="name each evaluation once")


def _read(folder: Path, name: str) -> Evaluation:
    try:
        metrics = json.loads((folder / "metrics.json").read_text(encoding="utf-8"))
        with (folder / "predictions.csv").open(encoding="utf-8", newline="") as stream:
            rows = sorted(csv.DictReader(stream), key=lambda row: (row["exam_id"], row["key"]))
        hits = {rule: np.array([row[f"right_hit_{rule}"] == "True" for row in rows]) for rule in RULES}
        answered = np.array([row["right_answered"] == "True" for row in rows])
        one = Evaluation(
            name=name,
            keys=tuple((row["exam_id"], row["key"]) for row in rows),
            references=tuple((row["suv"], row["volume_ml"]) for row in rows),
            patients=tuple(row["patient_id"] for row in rows),
            counts={rule: np.stack([hit, answered & ~hit, ~hit], axis=-1).astype(float) for rule, hit in hits.items()},
            dice=np.array([float(row["right_dice"]) for row in rows]),
            metrics=metrics,
        )
        _ = one.measured_against, one.outlines, one.split
        return one
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise InputError(
            f"{folder} is no evaluation of this release ({type(error).__name__})", fix="run `petground evaluate` again"
        ) from error


def _row(one: Evaluation, first: Evaluation) -> dict[str, Any]:
    right = one.metrics["runs"]["right"]
    row: dict[str, Any] = {
        "name": one.name,
        "checkpoint": one.metrics.get("checkpoint"),
        "peer": one.metrics.get("peer"),
        "f1": right["f1"],
        "mean_dice": right["mean_dice"],
        "mean_dice_as_marked": right["mean_dice_as_marked"],
        "outlines": one.outlines,
        "learnt_from": one.learnt_from,
        "by": {name: {k: v["f1"]["paper"] for k, v in groups.items()} for name, groups in one.metrics["by"].items()},
    }
    for key in (*SHARES, "presence_auroc"):
        row[key] = one.metrics.get(key)
    row["presence_calibration_error"] = one.metrics.get("presence_calibration", {}).get("error")
    if one is not first:
        row["minus_first"] = {rule: _difference(one, first, rule) for rule in RULES}
    return row


def _difference(one: Evaluation, first: Evaluation, rule: str) -> dict[str, Any]:
    """F1 of one minus F1 of the first, its p, and how many references only one of them finds."""
    both = np.concatenate([one.counts[rule], first.counts[rule]], axis=1)
    change = estimate(both, one.patients, lambda sums: f1(sums[..., :3]) - f1(sums[..., 3:])).as_json()
    p = exchanged(one.counts[rule], first.counts[rule], one.patients, f1)
    mine, theirs = one.counts[rule][:, 0] > 0, first.counts[rule][:, 0] > 0
    gained, lost = int((mine & ~theirs).sum()), int((theirs & ~mine).sum())
    return {"f1": change, "p": p, "only_this": gained, "only_first": lost}


def _show(console: Console, table: Mapping[str, Any], out: Path) -> None:
    title = f"{table['references']} references of {table['patients']} patients; differences against {table['against']}"
    found = _table(title, "F1 (paper)", "F1 (overlap)", "difference", "p")
    says_no = _table("sides, and whether it says no", "other side", "false alarms", "AUROC", "calibration error")
    for row in table["rows"]:
        against = row.get("minus_first", {}).get("paper")
        found.add_row(
            row["name"],
            _lines(row["f1"]["paper"]),
            _lines(row["f1"]["overlap"]),
            "" if against is None else _lines(against["f1"], sign=True),
            "" if against is None or against["p"] is None else f"{against['p']:.3g}",
        )
        names = ("left_right_confusion", "false_positives_per_absent_sentence", "presence_auroc")
        says_no.add_row(row["name"], *(_lines(row[key]) for key in (*names, "presence_calibration_error")))
    console.print(found)
    console.print(says_no)
    for row in table["rows"]:
        if row["learnt_from"]:
            console.print(f"{row['name']}: {row['learnt_from']}", style="bold yellow", highlight=False)
    for name in ("compare.json", "compare.html"):
        console.print(f"  {out / name}", highlight=False, soft_wrap=True)


def _table(title: str, *columns: str) -> Table:
    shown = Table(title=title, title_justify="left", box=box.SIMPLE_HEAD)
    shown.add_column("model", overflow="fold")
    for name in columns:
        shown.add_column(name, justify="right", no_wrap=True)
    return shown


def _lines(figure: Mapping[str, Any] | float | None, *, sign: bool = False) -> str:
    """A figure above its interval: side by side they do not fit a terminal."""
    return cell(figure, sign).replace(" (", "\n").rstrip(")")
