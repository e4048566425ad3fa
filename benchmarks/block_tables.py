"""The tables of docs/blocks.md that are made from figures: docs/results/blocks.json and blocks_trained.json."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

__all__ = ["cost_table", "table", "trained_table", "verdict"]

RESULTS = Path(__file__).resolve().parent.parent / "docs" / "results"
NOT_YET = ["Not measured yet: `make bench-blocks`."]
Links = Mapping[tuple[str, str], str]
"""(slot, key) -> a link to its entry."""


def table(heads: list[str], cells: Iterable[list[str]]) -> list[str]:
    """Markdown."""
    rows = [[cell.replace("|", "\\|") for cell in row] for row in cells]
    return ["| " + " | ".join(row) + " |" for row in (heads, ["---"] * len(heads), *rows)]


def cost_table(links: Links, results: Path = RESULTS) -> list[str]:
    """Each size's time over that of PyTorch's fused attention, floor, peak memory. Blocks that are gone: left out."""
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
        largest = next((row["sizes"][size] for size in reversed(sizes) if "ms" in row["sizes"].get(size, {})), {})
        peak, plain, floor = (largest.get(name) for name in ("peak_mib", "sdpa_peak_mib", "floor_ms"))
        growth = "-" if row["growth"] is None else f"{row['growth']:.1f}"
        parameters = "-" if row["parameters"] is None else f"{row['parameters']:,}"
        told = [_cost(row["sizes"].get(size, {})) for size in sizes]
        memory = "-" if peak is None else f"{peak:.0f}" + ("" if plain is None else f" ({plain:.0f})")
        cells.append(
            [
                f"{link} {row['pattern']}".strip(),
                *told,
                growth,
                "-" if floor is None else f"{floor:.3g}",
                memory,
                parameters,
            ]
        )
    heads = [
        "block",
        *(f"{int(size):,} voxels" for size in sizes),
        "N^x",
        "floor ms",
        "peak MiB (SDPA's)",
        "parameters",
    ]
    about = (
        f"{figures['channels']} channels in {figures['heads']} heads, {figures['text_tokens']} words, batch 1, "
        f"threads: {figures['threads']}. The block's time over that of PyTorch's fused attention on the same tokens, "
        "in turn in one process (in brackets: ms); of that among voxels "
        f"{figures['sdpa_queries']:,} queries are timed, and multiplied. N^x: how time grew between the two largest "
        "sizes measured. At the largest size measured: floor, the time to copy the answer; peak, memory alive together "
        "in a call (in brackets: in one of fused attention)."
    )
    whole = _whole_table(links, figures["whole"]) if figures.get("whole") else []
    return [about, "", *table(heads, cells), "", *whole, _made(result)]


def _whole_table(links: Links, rows: list[Mapping[str, Any]]) -> list[str]:
    """What each token reduction costs or saves the whole network, by the stage that its attention is at."""
    stages = sorted({row["stage"] for row in rows}, reverse=True)
    by_key: dict[str, dict[int, Mapping[str, Any]]] = {}
    for row in rows:
        if ("token_reduction", row["key"]) in links:
            by_key.setdefault(row["key"], {})[row["stage"]] = row
    cells = []
    for key, own in by_key.items():
        name = links["token_reduction", key]
        told = [_beside(own.get(stage, {}), part) for stage in stages for part in ("step", "inference")]
        cells.append([name, *told])
    said = []
    for stage in stages:
        quicker = [
            links["token_reduction", key] for key, own in by_key.items() if _pace(own.get(stage, {})) == "quicker"
        ]
        said.append(f"At stage {stage} a training step is quicker in every pair with: {', '.join(quicker) or 'none'}.")
    about = (
        "Token reductions in the whole network (configs/train/demo.yaml on its own grid, softmax self-attention among "
        "the voxels of one decoder stage): time with the reduction over time with that attention alone, choosing, "
        "merging and the way back included; median of pairs taken in turn, in brackets the least and the largest."
    )
    heads = ["token_reduction", *(f"stage {stage}, {part}" for stage in stages for part in ("step", "answer"))]
    return [about, "", *table(heads, cells), "", " ".join(said), ""]


KINDS = {"gate": "{}", "fusion": "{} in place of the gate", "inside": "{} in place of the gate's softmax"}
EQUAL, LEARNT = 0.02, 0.1  # Dice that may be lost at most, by the interval, for "equal Dice"; least to be equal in


def trained_table(links: Links, results: Path = RESULTS) -> list[str]:
    """F1 and Dice of each block in place of the gate, the best first; then attention with and without reductions."""
    result = _result(results / "blocks_trained.json")
    if result is None:
        return NOT_YET
    figures = result["figures"]
    rows: list[dict[str, Any]] = sorted(figures["rows"].values(), key=lambda row: -float(row["f1"]["value"]))
    about = (
        f"{figures['train_exams']} phantom exams and {figures['steps']} steps to train, {figures['test_exams']} exams "
        f"of another seed to test, seeds {', '.join(map(str, figures['seeds']))}. F1 and mean Dice: all seeds "
        "together, with the 95 % interval over patients, and the least and the largest seed; against: the difference "
        "at the same seeds, over the same drawings of patients. Intervals that overlap are not ranked. Step and "
        "answer: time of the whole network over that of the one it is compared with, in turn in one process. "
        + {
            "costs": "Trained are the cheapest, by the table of costs, that can stand there: not the best of all.",
            "list": "What was trained was a list made before anything was measured.",
        }[figures["chosen_by"]]
    )
    lines = [about, ""]
    scores = ["F1", "seeds", "mean Dice"]
    gates = [row for row in rows if row["kind"] in KINDS]
    if gates:
        cells = [
            [
                KINDS[row["kind"]].format(_named(links, row)),
                *_scores(row),
                *(_signed(row[f"{name}_against"]) for name in ("f1", "mean_dice")),
                *_times(row),
                "-" if row["parameters"] is None else f"{row['parameters']:,}",
            ]
            for row in gates
        ]
        heads = ["block", *scores, "F1 against the gate", "Dice against the gate", "step", "answer", "parameters"]
        lines += [*table(heads, cells), ""]
    beside = [row for row in rows if row["kind"] not in KINDS]
    if beside:
        cells = [
            [
                "no reduction" if row["kind"] == "attention" else _named(links, row),
                *_scores(row),
                *(
                    (_signed(row["mean_dice_against"]), *_times(row), verdict(row))
                    if row["kind"] == "reduction"
                    else ("-", "-", "-", "-")
                ),
            ]
            for row in sorted(beside, key=lambda row: row["kind"])
        ]
        heads = ["token_reduction", *scores, "Dice against none", "step", "answer", "does it pay?"]
        lines += [
            f"The gate and softmax attention among the voxels of stage {figures['stage']}, with and without token "
            f"reductions. Equal Dice: the interval of the difference stays above -{EQUAL}.",
            "",
            *table(heads, cells),
            "",
            *_gain_of_attention(rows),
        ]
    missing = figures.get("not_run_yet", [])
    rest = [f"Not run yet: {', '.join(missing)}.", ""] if missing else []
    return [*lines, *rest, _made(result)]


def _gain_of_attention(rows: list[dict[str, Any]]) -> list[str]:
    """What the attention itself brings, without which no reduction of it can pay."""
    for row in rows:
        if row["kind"] == "attention" and row["f1_against"] is not None:
            told = f"F1 {_signed(row['f1_against'])}, Dice {_signed(row['mean_dice_against'])}"
            step, answer = _times(row)
            return [f"That attention itself against the gate alone: {told}, step {step}, answer {answer}.", ""]
    return []


def verdict(row: Mapping[str, Any]) -> str:
    """Whether a reduction pays: the whole network's step quicker in every pair, at equal Dice."""
    pace, dice = _pace(row.get("cost", {})), row["mean_dice_against"]
    if pace != "quicker":
        return {"slower": "no: slower", "same": "no: no time gained"}.get(pace, "time not measured")
    if dice is None or dice["low"] is None:
        return "quicker; Dice not told"
    if (row["mean_dice"]["value"] or 0.0) < LEARNT:
        return "quicker; too little was learnt to compare Dice"
    if dice["high"] < 0:
        return "quicker, at lower Dice"
    return "yes: quicker at equal Dice" if dice["low"] > -EQUAL else "quicker; whether Dice is equal is not told"


def _pace(cost: Mapping[str, Any]) -> str:
    if "step" not in cost or cost["step"]["pairs"] < 3:
        return "unknown"
    low, high = cost["step"]["range"]
    return "quicker" if high < 1.0 else "slower" if low > 1.0 else "same"


def _named(links: Links, row: Mapping[str, Any]) -> str:
    slot = {"inside": "attention", "reduction": "token_reduction"}.get(row["kind"], "fusion")
    return links.get((slot, row["key"]), row["key"])


def _scores(row: Mapping[str, Any]) -> list[str]:
    by_seed = row["f1_by_seed"].values()
    return [
        _interval(row["f1"]),
        f"{min(by_seed):.2f} to {max(by_seed):.2f} ({len(by_seed)})",
        _interval(row["mean_dice"]),
    ]


def _times(row: Mapping[str, Any]) -> tuple[str, str]:
    cost = row.get("cost", {})
    return _beside(cost, "step"), _beside(cost, "inference")


def _beside(cost: Mapping[str, Any], part: str) -> str:
    if "left_out" in cost:
        return f"left out: {cost['left_out']}"
    if part not in cost:
        return "-"
    low, high = cost[part]["range"]
    return f"{cost[part]['ratio']:.2f} ({low:.2f} to {high:.2f})"


def _interval(figure: Mapping[str, Any] | None, form: str = ".2f") -> str:
    if figure is None or figure["value"] is None:
        return "-"
    value = format(figure["value"], form)
    return value if figure["low"] is None else f"{value} ({figure['low']:{form}} to {figure['high']:{form}})"


def _signed(figure: Mapping[str, Any] | None) -> str:
    return _interval(figure, "+.2f")


def _cost(cell: Mapping[str, Any]) -> str:
    if "left_out" in cell:
        return f"left out ({cell['left_out']})"
    return f"{cell['ratio']:.2g} ({cell['ms']:.3g})" if cell else "-"


def _result(path: Path) -> dict[str, Any] | None:
    return json.loads(path.read_text(encoding="utf-8")) if path.is_file() else None


def _made(result: Mapping[str, Any]) -> str:
    made = (
        f"`{result['command']}`, commit {result['commit']}, {result['machine']}, torch {result['libraries']['torch']}."
    )
    return f"{made} {result['note']}" if result.get("note") else made
