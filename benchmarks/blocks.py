"""What every block costs: time and peak memory against PyTorch's fused attention (SDPA), over growing grids.

Run by `make bench-blocks`; alone: `python benchmarks/run.py blocks`. It may be stopped at any moment and goes on where
it was (PETGROUND_BENCH_FOLDER, build/bench_blocks: a file per row). A row is measured anew when this script changed, or
a file of models/blocks or kernels/ that its block imports, one from another. Times hold for one machine: what is
compared are ratios of times taken in turn in one process (median of the pairs' ratios).

Every block runs with its defaults at 128 channels in 4 heads, batch 1, on 16^3, 32^3 and 48^3 voxels, with 64 text
tokens where it reads text:

- attention "self": queries, keys and values are the voxels; "cross": queries are voxels, keys and values text. Against
  SDPA on the same tensors.
- token_reduction: choosing or merging, SDPA among what is left, and the way back. Against SDPA among all voxels.
- mixer: against SDPA among all voxels. fusion: against SDPA of voxels on text.

SDPA among 48^3 voxels takes longer than most blocks: above PATIENCE seconds it is taken from the softmax row of the
same run ("against": "row"). A size whose time, told by the growth so far, would pass LIMIT seconds is left out with
that time. floor_ms is a copy of the output: nothing that writes it can be quicker. peak_mib is the process's memory
above what it held before the call (Linux).

What a token reduction costs or saves the whole network is measured after that (blocks_whole.py): half an hour.
"""

from __future__ import annotations

import inspect
import json
import math
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention as sdpa

from petground.kernels.memory import reuse_memory
from petground.models.blocks.contract import Grid
from petground.models.registry import BLOCKS, build, find
from petground.pipeline.files import write_bytes
from petground.pipeline.stage import content_hash
from petground.training.runtime import use_threads

EDGES, CHANNELS, HEADS, TOKENS, TEXT = (16, 32, 48), 128, 4, 64, 384
SPACING = (4.0, 3.0, 3.0)
LIMIT, PATIENCE, BUDGET = 120.0, 2.0, 8.0  # seconds: of one call; of SDPA beside a block; of all pairs of a cell
ROOT = Path(__file__).resolve().parent.parent


def rows() -> list[tuple[str, str, str]]:
    """(slot, key, pattern) of everything that is measured; the softmax rows first, for others refer to them."""
    found = []
    for slot, blocks in BLOCKS.items():
        for key, block in blocks.items():
            patterns = sorted(block.patterns & {"self", "cross"} or block.patterns) if slot == "attention" else [""]
            found += [(slot, key, pattern) for pattern in patterns]
    return sorted(found, key=lambda row: row[1] != "softmax")


def measure() -> dict[str, Any]:
    folder = Path(os.environ.get("PETGROUND_BENCH_FOLDER", ROOT / "build" / "bench_blocks"))
    folder.mkdir(parents=True, exist_ok=True)
    table = []
    for slot, key, pattern in rows():
        path = folder / f"{slot}_{key}_{pattern or 'any'}_{_source(slot, key)}.json"
        if not path.is_file():
            sys.stderr.write(f"{slot} {key} {pattern} ...\n")
            told = subprocess.run(
                [sys.executable, "-P", __file__, slot, key, pattern], stdout=subprocess.PIPE, check=False, text=True
            )
            if told.returncode != 0:
                sys.stderr.write(f"{slot} {key} {pattern}: exit code {told.returncode}, left out\n")
                continue
            write_bytes(path, told.stdout.encode())
        table.append(json.loads(path.read_text(encoding="utf-8")))
    _compare_with_rows(table)
    whole = import_module("blocks_whole").reductions(folder)  # by name: a row's own process sees this folder not
    return {
        "edges": EDGES, "channels": CHANNELS, "heads": HEADS, "text_tokens": TOKENS, "blocks": table, "whole": whole,
    }  # fmt: skip


def _source(slot: str, key: str) -> str:
    """Changes when this file does, or a file that the block is made of: its own and what that imports."""
    from sources import hashes  # a row's own process, which sees this folder not, has no need of it

    block = find(slot, key)
    made_of = hashes(block.cls.__module__, "petground.models.blocks.contract", "petground.kernels.memory")
    return content_hash([Path(__file__).read_text(encoding="utf-8"), made_of, repr(block.preset)])[:12]


def _compare_with_rows(table: list[dict[str, Any]]) -> None:
    own = {row["pattern"]: row["sizes"] for row in table if row["key"] == "softmax" and row["slot"] == "attention"}
    for row in table:
        plain = own.get("cross" if row["reads_text"] else "self", {})
        for size, cell in row["sizes"].items():
            if "ms" in cell and "ratio" not in cell and "ms" in plain.get(size, {}):
                cell.update(ratio=round(cell["ms"] / plain[size]["ms"], 3), against="row")
            if "peak_mib" in cell and "peak_mib" in plain.get(size, {}):
                cell["sdpa_peak_mib"] = plain[size]["peak_mib"]


def one(slot: str, key: str, pattern: str) -> dict[str, Any]:
    """A row: in this process, sizes from small to large."""
    torch.manual_seed(0)
    reuse_memory()
    use_threads()
    sizes: dict[str, dict[str, Any]] = {}
    reads_text = slot == "fusion" or pattern == "cross"
    for edge in EDGES:
        expected = _expected(sizes, edge**3)
        if expected > LIMIT:
            sizes[str(edge**3)] = {"left_out": f"would take about {expected:.0f} s"}
            continue
        call, module, width = _call(slot, key, pattern, edge)
        q, k = torch.randn(1, HEADS, edge**3, CHANNELS // HEADS), torch.randn(1, HEADS, TOKENS, CHANNELS // HEADS)
        other = k if reads_text else q
        with torch.inference_mode():
            sizes[str(edge**3)] = _cell(call, lambda q=q, other=other: sdpa(q, other, other), torch.empty(width))
        sizes[str(edge**3)]["parameters"] = sum(p.numel() for p in module.parameters())
    return {
        "slot": slot,
        "key": key,
        "pattern": pattern,
        "reads_text": reads_text,
        "growth": _growth(sizes),
        "parameters": next(iter(sizes.values())).get("parameters", 0),
        "sizes": sizes,
    }


def _call(slot: str, key: str, pattern: str, edge: int) -> tuple[Callable[[], Any], torch.nn.Module, tuple[int, ...]]:
    """The block at work, the block, the shape of its output."""
    grid = Grid((edge,) * 3, SPACING)
    count, width = grid.tokens, CHANNELS // HEADS
    text, real = torch.randn(1, TOKENS, TEXT), torch.ones(1, TOKENS, dtype=torch.bool)
    takes = inspect.signature(find(slot, key).cls).parameters
    given = {"channels": CHANNELS, "num_heads": HEADS, "text_channels": TEXT}
    module = build(slot, key, **{name: value for name, value in given.items() if name in takes}).eval()
    x = torch.randn(1, CHANNELS, edge, edge, edge)
    if slot == "attention":
        q = torch.randn(1, HEADS, count, width)
        k, v = (q, q) if pattern != "cross" else torch.randn(2, 1, HEADS, TOKENS, width)
        mask = None if pattern != "cross" else real
        how = {pattern: True} if pattern != "self" else {}
        return lambda: module(q, k, v, grid=grid, mask=mask, **how), module, (1, count, CHANNELS)
    if slot == "mixer":
        return lambda: module(x), module, tuple(x.shape)
    if slot == "fusion":
        more = {"skip": torch.randn_like(x)} if "skip" in find(slot, key).serves else {}
        box = torch.tensor([[[-1.0] * 3, [1.0] * 3]])
        return lambda: module(x, text, real, box, **more), module, tuple(x.shape)
    tokens, words, scores = grid.flat(x).contiguous(), torch.randn(1, TOKENS, CHANNELS), torch.rand(1, count)

    def reduce() -> Tensor:
        reduced = module(tokens, grid=grid, text=words, text_mask=real, scores=scores)
        heads = reduced.tokens.unflatten(-1, (HEADS, -1)).transpose(1, 2)
        keep = None if bool(reduced.mask.all()) else reduced.mask[:, None, None, :]
        out = sdpa(heads, heads, heads, attn_mask=keep)
        back: Tensor = reduced.unmerge(out.transpose(1, 2).flatten(2))
        return back

    return reduce, module, (1, count, CHANNELS)


def _cell(call: Callable[[], Any], plain: Callable[[], Any], out: Tensor) -> dict[str, Any]:
    peak = _peak(call)  # the first call: also the warm-up
    first, beside = _timed(call), _timed(plain)
    pairs = max(3, min(15, int(BUDGET / (first + beside)))) if beside < PATIENCE else 1
    pairs = pairs if first < PATIENCE else 1
    floor = statistics.median(_timed(out.clone) for _ in range(5))
    cell: dict[str, Any] = {"peak_mib": peak, "floor_ms": _ms(floor), "pairs": pairs}
    if beside >= PATIENCE:
        return {**cell, "ms": _ms(first)}
    times = [(first, beside), *((_timed(call), _timed(plain)) for _ in range(pairs))]
    times = times[1:]
    ratio = statistics.median(a / b for a, b in times)
    return {
        **cell,
        "ms": _ms(statistics.median(a for a, _ in times)),
        "sdpa_ms": _ms(statistics.median(b for _, b in times)),
        "ratio": round(ratio, 3),
        "against": "beside",
    }


def _timed(work: Callable[[], Any]) -> float:
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def _ms(seconds: float) -> float:
    return round(1000.0 * seconds, 3)


def _peak(work: Callable[[], Any]) -> float | None:
    """MiB that the process holds at most during the call, above what it held before. None where Linux is not there."""
    try:
        Path("/proc/self/clear_refs").write_text("5")
        before = _status("VmRSS")
        work()
        return round((_status("VmHWM") - before) / 1024.0, 1)
    except OSError:
        work()
        return None


def _status(field: str) -> int:
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(field + ":"):
            return int(line.split()[1])
    raise OSError(f"no {field}")


def _measured(sizes: dict[str, dict[str, Any]]) -> list[tuple[int, float]]:
    return [(int(size), cell["ms"]) for size, cell in sizes.items() if "ms" in cell]


def _growth(sizes: dict[str, dict[str, Any]]) -> float | None:
    """The x of time ~ N^x between the two largest sizes."""
    known = _measured(sizes)
    if len(known) < 2:
        return None
    (small, quick), (large, slow) = known[-2:]
    return round(math.log(slow / quick) / math.log(large / small), 2)


def _expected(sizes: dict[str, dict[str, Any]], count: int) -> float:
    """Seconds at `count` voxels; quadratic where only one size is known."""
    known = _measured(sizes)
    if not known:
        return 0.0
    if len(known) < len(sizes):
        return math.inf
    size, ms = known[-1]
    return ms / 1000.0 * float(count / size) ** max(1.0, _growth(sizes) or 2.0)


if __name__ == "__main__":
    sys.stdout.write(json.dumps(one(*sys.argv[1:4]), indent=1) + "\n")
