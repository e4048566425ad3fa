"""Plots of an evaluation and of a training run, as PNG files."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from petground.pipeline.files import write_bytes
from petground.training.metrics import RULES, Score, precision_recall
from petground.training.references import Reference

__all__ = ["curves_of_run", "logs_of_run", "plot_dice", "plot_precision_recall", "plot_training"]

Curves = dict[str, tuple[list[float], list[float]]]

RULE_NAMES = {"paper": "overlap and SUVmax within 0.1", "overlap": "overlap", "dice50": "Dice above 0.5"}
COLOURS = ("#1b6ca8", "#d1495b", "#2e8b57", "#8d6a9f", "#c77d00", "#5a5a5a", "#17a2a2", "#a23b72")


def plot_precision_recall(path: Path, references: Sequence[Reference], scores: Sequence[Score]) -> None:
    """One panel per rule of a hit, one curve per tracer and one for all, over falling presence score."""
    figure = _figure(4.4 * len(RULES), 4.4)
    groups = {"all": list(range(len(references)))} if len({r.tracer for r in references}) > 1 else {}
    groups |= {
        t: [i for i, r in enumerate(references) if r.tracer == t] for t in sorted({r.tracer for r in references})
    }
    for panel, rule in enumerate(RULES, start=1):
        axes = figure.add_subplot(1, len(RULES), panel)
        for (name, members), colour in zip(groups.items(), _colours(len(groups), skip="all" in groups), strict=True):
            curve = precision_recall([scores[i] for i in members], rule)
            label = f"{name}: n = {len(members)}, AP {curve.average_precision:.2f}"
            style = {"color": colour, "linewidth": 2.4 if name == "all" else 1.4, "label": label}
            if len(curve.recall) == 0:
                axes.plot([], [], **style)
                continue
            axes.step(np.append(0, curve.recall), np.append(curve.precision[0], curve.precision), where="pre", **style)
            axes.plot(curve.recall[-1], curve.precision[-1], "o", color=colour, markersize=5)
        axes.set(xlim=(0, 1.02), ylim=(0, 1.02), xlabel="recall", title=RULE_NAMES[rule])
        axes.set_ylabel("precision" if panel == 1 else "")
        axes.set_aspect("equal")
        axes.grid(alpha=0.3)
        axes.legend(loc="lower left", fontsize=8, frameon=True)
    figure.suptitle("Precision and recall over the presence score; dots: all answers count", fontsize=11)
    _save(path, figure)


def plot_dice(path: Path, references: Sequence[Reference], scores: Sequence[Score]) -> None:
    """Dice against the reference's volume and SUVmax, a point per lesion, coloured by tracer, with running medians."""
    from matplotlib.ticker import LogLocator, NullFormatter

    figure = _figure(11, 4.6)
    values = np.array([s.dice for s in scores])
    panels = (
        ("lesion volume [ml]", np.array([r.volume_ml for r in references], dtype=float)),
        ("lesion SUVmax [g/ml]", np.array([r.suv for r in references], dtype=float)),
    )
    tracers = sorted({r.tracer for r in references})
    for panel, (title, x) in enumerate(panels, start=1):
        axes = figure.add_subplot(1, 2, panel)
        for tracer, colour in zip(tracers, _colours(len(tracers)), strict=True):
            of = np.array([r.tracer == tracer for r in references])
            axes.scatter(x[of], values[of], s=22, alpha=0.65, color=colour, edgecolors="none", label=tracer)
        _running_median(axes, x, values)
        axes.set_xscale("log")
        axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        axes.xaxis.set_major_formatter("{x:g}")
        axes.xaxis.set_minor_formatter(NullFormatter())
        axes.set(xlabel=title, ylim=(-0.04, 1.04))
        axes.set_ylabel("Dice with the reference (missing = 0)" if panel == 1 else "")
        axes.grid(alpha=0.3)
    axes.legend(loc="center left", bbox_to_anchor=(1.01, 0.5), fontsize=9, frameon=False)
    _save(path, figure)


def plot_training(path: Path, logs: Sequence[Path]) -> bool:
    """Losses and scores of a run over its steps from its metrics.csv files; False when there is nothing to draw."""
    groups: dict[str, Curves] = {"loss": {}, "score": {}, "learning rate": {}}
    for name, curve in sorted(curves_of_run(logs).items()):
        is_loss = "loss" in name or name.startswith("train/")
        groups["learning rate" if name.startswith("lr") else "loss" if is_loss else "score"][name] = curve
    groups = {title: group for title, group in groups.items() if group}
    if not groups:
        return False
    figure = _figure(4.8 * len(groups), 3.8)
    for panel, (title, group) in enumerate(groups.items(), start=1):
        axes = figure.add_subplot(1, len(groups), panel)
        for (name, (steps, values)), colour in zip(group.items(), _colours(len(group)), strict=True):
            axes.plot(steps, values, color=colour, linewidth=1.5, label=name, marker="o" if len(steps) < 20 else None)
        axes.set(xlabel="optimiser step", title=title)
        axes.grid(alpha=0.3)
        axes.legend(fontsize=8)
    _save(path, figure)
    return True


def curves_of_run(logs: Sequence[Path]) -> Curves:
    """Column -> (steps, values) of every numeric column of Lightning's metrics.csv files; empty cells are left out.

    logs: one file per attempt, oldest first. What an attempt did after the step at which the next one took up the
    run again is not part of the run.
    """
    curves: Curves = {}
    for log in logs:
        with log.open(newline="", encoding="utf-8") as stream:
            rows = [(step, row) for row in csv.DictReader(stream) if (step := _number(row.get("step"))) is not None]
        first = min((step for step, _ in rows), default=float("inf"))
        for steps, values in curves.values():
            kept = sum(step < first for step in steps)
            del steps[kept:], values[kept:]
        for step, row in rows:
            for name, cell in row.items():
                value = _number(cell)
                if name not in (None, "step", "epoch") and value is not None:
                    steps, values = curves.setdefault(name, ([], []))
                    steps.append(step)
                    values.append(value)
    return curves


def logs_of_run(checkpoint: Path) -> list[Path]:
    """The metrics.csv files of Lightning's CSV logger in the checkpoint's folder, else the one above, oldest first."""
    for folder in list(checkpoint.resolve().parents)[:2]:
        found = {p for pattern in ("metrics.csv", "*/metrics.csv", "*/*/metrics.csv") for p in folder.glob(pattern)}
        if found:
            return sorted(found, key=lambda p: p.stat().st_mtime)
    return []


def _number(cell: Any) -> float | None:
    try:
        return float(cell) if cell not in (None, "") else None
    except (TypeError, ValueError):
        return None


def _running_median(axes: Any, x: np.ndarray[Any, Any], y: np.ndarray[Any, Any]) -> None:
    """Medians of equal-sized groups along x: with few points a line would say more than is known."""
    if len(x) < 20:
        return
    groups = np.array_split(np.argsort(x), min(8, len(x) // 8))
    points = [(float(np.median(x[g])), float(np.median(y[g]))) for g in groups]
    axes.plot(*zip(*points, strict=True), color="black", linewidth=1.8, marker="s", markersize=4, label="median")


def _colours(n: int, *, skip: bool = False) -> list[str]:
    first = ["black"] if skip else []
    return [*first, *(COLOURS[i % len(COLOURS)] for i in range(n))][:n]


def _figure(width: float, height: float) -> Any:
    """A figure without pyplot: no window system, no state kept between figures."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), layout="constrained")
    FigureCanvasAgg(figure)
    return figure


def _save(path: Path, figure: Any) -> None:
    content = io.BytesIO()
    figure.savefig(content, format="png", dpi=130)
    write_bytes(path, content.getvalue())
