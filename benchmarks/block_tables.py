"""The tables of docs/blocks.md that are made from figures: docs/results/blocks.json and blocks_trained.json."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

__all__ = ["cost_table", "table", "trained_table"]

RESULTS = Path(__file__).resolve().parent.parent / "docs" / "results"
NOT_YET = ["Not measured yet: `make bench-blocks`."]
Links = Mapping[tuple[str, str], str]
"""(slot, key) -> a link to its entry."""


def table(heads: list[str], cells: Iterable[list[str]]) -> list[str]:
    """Markdown."""
    rows = [[cell.replace("|", "\\|") for cell in row] for row in cells]
    return ["| " + " | ".join(row) + " |" for row in (heads, ["---"] * len(heads), *rows)]


def cost_table(links: Links, results: Path = RESULTS) -> list[str]:
    """Each size's time over that of PyTorch's fused attention, and the peak memory. Blocks that are gone: left out."""
    result = _result(results / "blocks.json")
    if result is None:
        return NOT_YET
    figures = result["figures"]
    sizes = [str(edge**3) for edge in figures["edges"]]
    cells = []
    for row in figures["blocks"]:
        link = links.get((row["slot"], row["key"]))
        if link is None:
            continue
        peaks = [row["sizes"].get(size, {}).get("peak_mib") for size in sizes]
        peak = next((f"{mib:.0f}" for mib in reversed(peaks) if mib is not None), "-")
        growth = "-" if row["growth"] is None else f"{row['growth']:.1f}"
        told = [_cost(row["sizes"].get(size, {})) for size in sizes]
        cells.append([f"{link} {row['pattern']}".strip(), *told, growth, peak, f"{row['parameters']:,}"])
    heads = ["block", *(f"{int(size):,} voxels" for size in sizes), "N^x", "peak MiB", "parameters"]
    about = (
        f"{figures['channels']} channels in {figures['heads']} heads, {figures['text_tokens']} words, batch 1: the "
        "block's time over that of PyTorch's fused attention on the same tokens (in brackets: ms). N^x: how time grew "
        "between the two largest sizes measured. Peak: at the largest, above what was held before. Left out: too long."
    )
    return [about, "", *table(heads, cells), "", _made(result)]


def trained_table(links: Links, results: Path = RESULTS) -> list[str]:
    """F1 of each block in place of the plain gate, the best first."""
    result = _result(results / "blocks_trained.json")
    if result is None:
        return NOT_YET
    figures = result["figures"]
    names = {key: link for (_, key), link in links.items() if key != "none"}
    cells = []
    for key, row in sorted(figures["blocks"].items(), key=lambda item: -float(item[1]["f1"])):
        low, high = row["f1_range"]
        paired = "-" if row["paired"] is None or key == "contextual_gate" else f"{row['paired']:+.3f}"
        step = "-" if row["seconds_per_step"] is None else f"{row['seconds_per_step']:.2f}"
        count = "-" if row["parameters"] is None else f"{row['parameters']:,}"
        score = [f"{row['f1']:.3f}", f"{low:.3f} to {high:.3f}", paired]
        cells.append([names.get(key, key), *score, step, count, str(len(row["f1_by_seed"]))])
    heads = ["block", "F1", "range", "against the gate", "s per step", "parameters", "seeds"]
    about = (
        f"{figures['train_exams']} phantom exams to train on, {figures['test_exams']} of another seed to test on. F1: "
        "the mean over the seeds, beside it the least and the largest; against the gate: the mean difference at the "
        "same seeds. Intervals that overlap are not ranked."
    )
    missing = figures.get("not_run_yet", [])
    rest = [f"Not run yet: {', '.join(missing)}.", ""] if missing else []
    return [about, "", *table(heads, cells), "", *rest, _made(result)]


def _cost(cell: Mapping[str, Any]) -> str:
    if "left_out" in cell:
        return "left out"
    if "ms" not in cell:
        return "-"
    return f"{cell['ratio']:.2g} ({cell['ms']:.3g})" if "ratio" in cell else f"({cell['ms']:.3g})"


def _result(path: Path) -> dict[str, Any] | None:
    return json.loads(path.read_text(encoding="utf-8")) if path.is_file() else None


def _made(result: Mapping[str, Any]) -> str:
    return f"`{result['command']}`, {result['machine']}, torch {result['libraries']['torch']}."
