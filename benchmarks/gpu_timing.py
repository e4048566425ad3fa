"""Time, memory and copy bandwidth of a GPU. The calls work on the CPU, for tests; figures from there mean nothing."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor

__all__ = ["Clock", "copy_rate", "in_turn", "peak_mib"]

_AHEAD = 2_000_000  # GPU cycles, about a millisecond, in which the CPU gets ahead: its own work is not timed


class Clock:
    """Milliseconds of one call by CUDA events, the L2 cache holding nothing of its operands before."""

    def __init__(self, device: torch.device) -> None:
        self._cuda = device.type == "cuda"
        cache = torch.cuda.get_device_properties(device).L2_cache_size if self._cuda else 1 << 10
        self._flush = torch.empty(4 * cache, dtype=torch.int8, device=device)

    def ms(self, call: Callable[[], Any]) -> float:
        self._flush.zero_()
        if not self._cuda:
            began = time.perf_counter()
            call()
            return 1e3 * (time.perf_counter() - began)
        start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        torch.cuda._sleep(_AHEAD)
        start.record()
        call()
        end.record()
        torch.cuda.synchronize()
        return float(start.elapsed_time(end))


def in_turn(
    clock: Clock, calls: Mapping[str, Callable[[], Any]], *, seconds: float = 4.0, least: int = 7, most: int = 51
) -> dict[str, list[float]]:
    """Milliseconds of every call in each of several rounds, one after the other, for about so many seconds.

    Two warm rounds first. What is slower than a fifth of the time takes part in `least` rounds all the same.
    """
    for _ in range(2):
        slowest = sum(clock.ms(call) for call in calls.values())
    rounds = max(least, min(most, int(1e3 * seconds / max(slowest, 1e-3))))
    found: dict[str, list[float]] = {name: [] for name in calls}
    for _ in range(rounds):
        for name, call in calls.items():
            found[name].append(clock.ms(call))
    return found


def copy_rate(clock: Clock, device: torch.device, mib: int = 1024) -> float:
    """Bytes a second, read and written ones counted, of copying `mib` MiB on the device: the median of 21."""
    source = torch.zeros(mib << 20, dtype=torch.int8, device=device)
    target = torch.empty_like(source)
    times = in_turn(clock, {"copy": lambda: target.copy_(source)}, least=21, most=21)["copy"]
    return 2.0 * source.numel() / (1e-3 * statistics.median(times))


def peak_mib(call: Callable[[], Tensor | tuple[Tensor, ...]], device: torch.device) -> float | None:
    """MiB that a call holds at most beyond what was held before it, its outputs among them; None on the CPU."""
    if device.type != "cuda":
        return None
    torch.cuda.synchronize()
    torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated()
    kept = call()
    torch.cuda.synchronize()
    found = (torch.cuda.max_memory_allocated() - before) / 2**20
    del kept
    return round(found, 1)
