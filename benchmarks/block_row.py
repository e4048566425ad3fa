"""One row of blocks.py, as JSON: `python benchmarks/block_row.py SLOT KEY PATTERN`."""

from __future__ import annotations

import inspect
import json
import math
import statistics
import sys
import time
import traceback
from collections.abc import Callable, Iterable, Mapping
from functools import partial
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention as sdpa

from petground.kernels.memory import reuse_memory
from petground.models.blocks.contract import Grid
from petground.models.registry import build, find
from petground.training.runtime import use_threads

__all__ = ["CHANNELS", "EDGES", "FAILED", "HEADS", "SHARE", "TOKENS", "failed", "one", "row_of"]

EDGES, CHANNELS, HEADS, TOKENS, TEXT = (16, 32, 48), 128, 4, 64, 384
SPACING = (4.0, 3.0, 3.0)
SHARE = 2048  # queries that SDPA among voxels is timed on
LIMIT, PATIENCE, BUDGET = 120.0, 2.0, 4.0  # seconds: of one call; of one that is made again; of all pairs of a cell
STUCK, MEMORY_GIB = 600.0, 10  # seconds and memory of a size's process
FAILED, TOO_MUCH = "failed: ", f"more than {MEMORY_GIB} GiB"


def one(slot: str, key: str, pattern: str) -> dict[str, Any]:
    """A row: sizes from small to large, each in a child of this process, which computes nothing itself."""
    sizes: dict[str, dict[str, Any]] = {}
    for edge in EDGES:
        sizes[str(edge**3)] = _foreseen(sizes, edge**3) or _apart(partial(_cell, slot, key, pattern, edge))
    return row_of(slot, key, pattern, sizes)


def row_of(slot: str, key: str, pattern: str, sizes: dict[str, dict[str, Any]]) -> dict[str, Any]:
    return {
        "slot": slot,
        "key": key,
        "pattern": pattern,
        "reads_text": slot == "fusion" or pattern == "cross",
        "growth": _growth(sizes),
        "parameters": next((cell["parameters"] for cell in sizes.values() if "parameters" in cell), None),
        "sizes": sizes,
    }


def failed(cells: Iterable[Mapping[str, Any]]) -> bool:
    return any(cell.get("left_out", "").startswith("failed") for cell in cells)


def _apart(work: Callable[[], dict[str, Any]]) -> dict[str, Any]:
    """`work()` by a forked process with a limit to its memory; {"left_out": why} without an answer."""
    context = get_context("fork")
    answer, own = context.Pipe(duplex=False)
    child = context.Process(target=_tell, args=(own, work), daemon=True)
    child.start()
    own.close()
    try:
        told: dict[str, Any] = answer.recv() if answer.poll(STUCK) else {"left_out": f"more than {STUCK:.0f} s"}
    except EOFError:
        child.join()
        told = {"left_out": f"{FAILED}exit code {child.exitcode}"}
    child.kill()
    child.join()
    return told


def _tell(answer: Any, work: Callable[[], dict[str, Any]]) -> None:
    if sys.platform == "linux":  # what holds N x N must not take the whole machine
        import resource

        resource.setrlimit(resource.RLIMIT_DATA, (MEMORY_GIB << 30, MEMORY_GIB << 30))
    try:
        answer.send(work())
    except Exception as error:  # told in the table, whatever it is; the other sizes and rows are still measured
        traceback.print_exc()
        memory = isinstance(error, MemoryError) or "can't allocate memory" in str(error)
        answer.send({"left_out": TOO_MUCH if memory else f"{FAILED}{type(error).__name__}"})


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
    tokens, words = grid.flat(x).contiguous(), torch.randn(1, TOKENS, CHANNELS)

    def reduce() -> Tensor:
        # no scores: as in the network, the block finds its own
        reduced = module(tokens, grid=grid, text=words, text_mask=real)
        heads = reduced.tokens.unflatten(-1, (HEADS, -1)).transpose(1, 2)
        keep = None if bool(reduced.mask.all()) else reduced.mask[:, None, None, :]
        out = sdpa(heads, heads, heads, attn_mask=keep)
        back: Tensor = reduced.unmerge(out.transpose(1, 2).flatten(2))
        return back

    return reduce, module, (1, count, CHANNELS)


def _cell(slot: str, key: str, pattern: str, edge: int) -> dict[str, Any]:
    torch.manual_seed(0)
    use_threads()
    with torch.inference_mode():
        _call(slot, key, pattern, EDGES[0])[0]()  # what it loads and sets up once is not what it holds
        call, module, width = _call(slot, key, pattern, edge)
        peak = _peak(call)
        reuse_memory()
        cell = {"peak_mib": peak, **_beside(call, *_plain(slot == "fusion" or pattern == "cross", edge))}
        out = torch.empty(width)
        floor = statistics.median(_timed(out.clone) for _ in range(5))
    return {**cell, "floor_ms": _ms(floor), "parameters": sum(p.numel() for p in module.parameters())}


def _plain(reads_text: bool, edge: int) -> tuple[Callable[[], Any], float]:
    """SDPA of the voxels on text, or of a share of them on all; and what its time is to be multiplied with."""
    count, width = edge**3, CHANNELS // HEADS
    q = torch.randn(1, HEADS, count if reads_text else min(count, SHARE), width)
    k = torch.randn(1, HEADS, TOKENS if reads_text else count, width)
    return lambda: sdpa(q, k, k), count / q.shape[2]


def _beside(call: Callable[[], Any], plain: Callable[[], Any], times_plain: float) -> dict[str, Any]:
    """Time of the call, and its ratio to that of `plain`, in turn; of a slow call once."""
    plain()
    first, beside = _timed(call), _timed(plain)
    times = [(first, beside)]
    if first < PATIENCE:  # its first call with memory that is kept: not counted
        times = [(_timed(call), _timed(plain)) for _ in range(max(3, min(15, int(BUDGET / (first + beside)))))]
    return {
        "ms": _ms(statistics.median(a for a, _ in times)),
        "sdpa_ms": _ms(times_plain * statistics.median(b for _, b in times)),
        "ratio": round(statistics.median(a / b for a, b in times) / times_plain, 4),
        "pairs": len(times),
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


def _foreseen(sizes: dict[str, dict[str, Any]], count: int) -> dict[str, Any] | None:
    """Why `count` voxels are not tried; taken for quadratic where only one size is known."""
    why = [cell["left_out"] for cell in sizes.values() if "left_out" in cell and not failed([cell])]
    if why:
        return {"left_out": why[-1] if why[-1] == TOO_MUCH else "a smaller size took too long"}
    known = _measured(sizes)
    if not known:
        return None
    size, ms = known[-1]
    seconds = ms / 1000.0 * float(count / size) ** max(1.0, _growth(sizes) or 2.0)
    return {"left_out": f"would take about {seconds:.0f} s"} if seconds > LIMIT else None


if __name__ == "__main__":
    sys.stdout.write(json.dumps(one(*sys.argv[1:4]), indent=1) + "\n")
