"""docs/performance.md from docs/results/gpu.json."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

__all__ = ["written"]

_HEAD = """# Performance on a GPU

Written by `make bench-gpu` (`python benchmarks/gpu.py --help` says how it is measured). Goals, for an H200: masked
cross-attention from many voxels to few text tokens at 70 % (forward) and 50 % (backward) of the bandwidth of a plain
copy measured beside it, and 1.3 times as quick as the best of PyTorch's fused backends and compiled FlexAttention;
windows and neighbourhoods quicker than FlexAttention, natten (where installed; it takes no bias) and windows cut out by
a view and a copy for PyTorch's attention.
"""
_NONE = """
**No run on a GPU has been recorded.** Until one is, nothing is claimed about speed; what is proven without a GPU is in
[kernels.md](kernels.md).
"""


def written(result: Mapping[str, Any] | None, names: Sequence[str]) -> str:
    """The page; `result` as gpu.json holds it, or None where there is none."""
    if not result or not result["rows"]:
        return _HEAD + _NONE
    rows = result["rows"]
    versions = ", ".join(f"{name} {version}" for name, version in result["versions"].items())
    parts = [
        _HEAD,
        f"\n{result['gpu']}; {versions}; commit {result['commit']}; `{result['command']}`.\n",
        _checks({name: row for name, row in rows.items() if name.startswith("check:")}, result["limits"]),
        _times({name: row for name, row in rows.items() if not name.startswith("check:")}),
    ]
    missing = [name for name in names if name not in rows]
    if missing:
        parts.append(f"\nNot run yet: {', '.join(missing)}.\n")
    return "".join(parts)


def _checks(rows: Mapping[str, Any], limits: Mapping[str, float]) -> str:
    told = ", ".join(f"{dtype} {limit:g}" for dtype, limit in limits.items())
    text = f"""
## Against float64

Outputs and gradients of every call that the operators' `cases()` make. Error: RMS over the truth's RMS, the largest of
all tensors; most for an output: {told}; twice that for a gradient, 8 times that for any single row.

| operator | calls | of the configurations compiled ahead | largest error | wrong |
|---|---|---|---|---|
"""
    for name, row in rows.items():
        errors = (
            ", ".join(f"{dtype} {error:.1e}" for dtype, error in row["largest_error"].items()) or "a choice: the same"
        )
        ran = f"{row['configurations_run']} of {row['configurations']}"
        faults = "; ".join(f"{case}: {wrong}" for case, wrong in row["faults"].items()) or "none"
        text += f"| {name.removeprefix('check:')} | {row['calls']} | {ran} | {errors} | {_cell(faults)} |\n"
    return text


def _times(rows: Mapping[str, Any]) -> str:
    text = """
## Times

Share: bytes that must be moved, a second, as a part of the copy's. "Times as quick": median of the ratios within
rounds; the best library is the quickest that gave the right answer (eager ones, which hold all scores, are below).

| row | pass | ms | copy GB/s | share | goal | best library | its ms | times as quick | goal |
|---|---|---|---|---|---|---|---|---|---|
"""
    details = ""
    for row in rows.values():
        for index, (passed, found) in enumerate(row["passes"].items()):
            best = found.get("best_library")
            share, ratio = found.get("copy_share"), found.get("times_as_quick_as", {}).get(best)
            goal = row["share_goals"][index] if row["share_goals"] else None
            text += (
                f"| {row['what'] if index == 0 else ''} | {passed} | {found['ms'].get('petground', 'wrong')} "
                f"| {row['copy_gb_s']:.0f} | {_percent(share)} | {_goal(share, goal, _percent(goal))} "
                f"| {best or 'none'} | {found['ms'].get(best, '')} | {'' if ratio is None else ratio} "
                f"| {_goal(ratio, row['ratio_goal'], row['ratio_goal'])} |\n"
            )
        details += _details(row)
    return text + "\n## All contenders\n" + details


def _details(row: Mapping[str, Any]) -> str:
    passes = list(row["passes"])
    text = (
        f"\n{row['what']}:\n\n| contender | error |" + "".join(f" {p} ms | {p} MiB |" for p in passes) + "\n|---|---|"
    )
    text += "---|---|" * len(passes) + "\n"
    for name, entry in row["contenders"].items():
        if "left_out" in entry:
            text += f"| {name} | {_cell(entry['left_out'])} |" + " | |" * len(passes) + "\n"
            continue
        cells = (f" {row['passes'][p]['ms'].get(name, '')} | {entry.get(f'{p}_peak_mib') or ''} |" for p in passes)
        text += f"| {name} | {entry['error']:.1e} |" + "".join(cells) + "\n"
    return text


def _percent(share: float | None) -> str:
    return "" if share is None else f"{100 * share:.0f} %"


def _goal(value: float | None, goal: float | None, told: Any) -> str:
    if goal is None:
        return ""
    return f"{told}: {'reached' if value is not None and value >= goal else 'not reached'}"


def _cell(text: str) -> str:
    return text.replace("|", "/").replace("\n", " ")
