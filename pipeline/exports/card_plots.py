"""The plots of a data card, drawn from its masked figures: what the card does not tell, no plot can."""

from __future__ import annotations

import io
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.patches import Patch

from petground.pipeline.exports.card_data import FEWEST, STAGES

__all__ = ["PLOTS", "draw"]

BLUE, GREY = "#2b6c99", "#b8b8b8"
COLOURS = {
    "report": "#b8b8b8",
    "image": "#d98c3f",
    "run": "#8c2d2d",
    "review": "#8a5aa8",
    "release": "#c9b037",
    "exported": "#3c8d5a",
}
PARTS = {"train": "#2b6c99", "val": "#d98c3f", "test": "#3c8d5a"}
STYLE = {"font.size": 9, "axes.spines.top": False, "axes.spines.right": False, "axes.titleweight": "bold"}
Card = Mapping[str, Any]


def draw(card: Card) -> dict[str, bytes]:
    """PNG by file name; the same bytes for the same card."""
    with mpl.rc_context(STYLE):
        return {name: _png(make(card)) for name, make in PLOTS.items()}


def _composition(card: Card) -> Figure:
    groups = {
        "Exams by tracer": card["exams_by"]["tracer"],
        "Labels by region": card["labels_by"]["region"],
        "Labels by side": card["labels_by"]["side"],
    }
    figure = Figure(figsize=(11, 3.4), layout="constrained")
    for axes, (title, counts) in zip(figure.subplots(1, 3), groups.items(), strict=True):
        _bars(axes, list(counts), list(counts.values()), [BLUE] * len(counts))
        axes.set_title(title, loc="left")
    return figure


def _fates(card: Card) -> Figure:
    rows = card["fates"]
    figure = Figure(figsize=(10, 1.5 + 0.27 * len(rows)), layout="constrained")
    axes = figure.subplots()
    _bars(
        axes,
        [r["fate"].replace("_", " ") for r in rows],
        [r["count"] for r in rows],
        [COLOURS[r["stage"]] for r in rows],
    )
    axes.set_title("What became of every SUV mention", loc="left")
    axes.set_xlabel("mentions")
    stages = [stage for stage in STAGES if any(row["stage"] == stage for row in rows)]
    handles = [Patch(color=COLOURS[stage], label=STAGES[stage]) for stage in stages]
    figure.legend(handles=handles, loc="outside lower left", frameon=False, ncols=2, fontsize=8)
    return figure


def _distributions(card: Card) -> Figure:
    figure = Figure(figsize=(11, 3.2), layout="constrained")
    for axes, one in zip(figure.subplots(1, 3), card["distributions"].values(), strict=True):
        heights = [_height(value) for value in one["counts"]]
        colours = [GREY if isinstance(value, str) else BLUE for value in one["counts"]]
        bars = axes.bar(range(len(heights)), heights, width=0.92, align="edge", color=colours)
        for bar, value in zip(bars, one["counts"], strict=True):
            bar.set_hatch("///" if isinstance(value, str) else "")
            bar.set_edgecolor("white")
        labels = [f"{edge:g}" for edge in one["edges"]]
        axes.set_xticks(range(len(labels)), labels, rotation=60 if len(labels) > 11 else 0, fontsize=8)
        axes.set_xlabel(one["title"])
        axes.set_ylabel("labels")
        if one["median"] is not None:
            axes.set_title(f"median {one['median']:g}", loc="right", fontweight="normal", fontsize=9)
    if any(isinstance(value, str) for one in card["distributions"].values() for value in one["counts"]):
        handles = [Patch(facecolor=GREY, hatch="///", edgecolor="white", label="there are some; how many is not told")]
        figure.legend(handles=handles, loc="outside lower left", frameon=False, fontsize=8)
    return figure


def _splits(card: Card) -> Figure:
    """Shares of train, val and test for every trait whose cells may be told."""
    parts = [part for part in PARTS if card["options"]["shares"].get(part, 0) > 0]
    rows = card["split_in_patients"]
    told = [row for row in rows if all(isinstance(row[part], int) for part in parts) and sum(row[p] for p in parts)]
    figure = Figure(figsize=(10, 1.6 + 0.27 * max(len(told), 1)), layout="constrained")
    axes = figure.subplots()
    axes.set_title("Patients by part, trait for trait", loc="left")
    left = [0.0] * len(told)
    for part in parts:
        shares = [100 * row[part] / sum(row[p] for p in parts) for row in told]
        bars = axes.barh(range(len(told)), shares, left=left, color=PARTS[part], label=part, height=0.75)
        axes.bar_label(bars, [f"{row[part]}" for row in told], label_type="center", color="white", fontsize=8)
        left = [a + b for a, b in zip(left, shares, strict=True)]
    axes.set_yticks(range(len(told)), [row["trait"] for row in told])
    axes.invert_yaxis()
    axes.set_xlim(0, 100)
    axes.set_xlabel("per cent of the patients with the trait; dashed: the shares asked for")
    if told:
        edge = 0.0
        for part in parts[:-1]:
            edge += 100 * card["options"]["shares"][part]
            axes.axvline(edge, color="black", lw=1, ls="--")
        figure.legend(loc="outside lower right", frameon=False, ncols=3, fontsize=8)
    else:
        axes.set_axis_off()
        axes.text(0.5, 0.5, "too few patients to be shown", ha="center", transform=axes.transAxes, color="#555555")
    if told and len(told) < len(rows):
        axes.set_title(
            f"{len(rows) - len(told)} traits with 1 to 4 patients in a part are not drawn",
            loc="right",
            fontweight="normal",
            fontsize=8,
        )
    return figure


def _bars(axes: Axes, names: Sequence[str], values: Sequence[int | str], colours: Sequence[str]) -> None:
    """Horizontal bars from the top; a masked count is a short hatched bar with "<5" beside it."""
    heights = [_height(value) for value in values]
    bars = axes.barh(range(len(names)), heights, color=colours, height=0.75)
    for bar, value in zip(bars, values, strict=True):
        if isinstance(value, str):
            bar.set_hatch("///")
            bar.set_edgecolor("white")
    axes.bar_label(bars, [str(value) for value in values], padding=3, fontsize=8)
    axes.set_yticks(range(len(names)), list(names))
    axes.invert_yaxis()
    axes.set_xlim(0, 1.12 * max([*heights, 1]))


def _height(value: int | str) -> float:
    return float(FEWEST) if isinstance(value, str) else float(value)


def _png(figure: Figure) -> bytes:
    stream = io.BytesIO()
    FigureCanvasAgg(figure)
    figure.savefig(stream, format="png", dpi=110, metadata={"Software": None})
    return stream.getvalue()


PLOTS: dict[str, Callable[[Card], Figure]] = {
    "composition.png": _composition,
    "fates.png": _fates,
    "distributions.png": _distributions,
    "splits.png": _splits,
}
