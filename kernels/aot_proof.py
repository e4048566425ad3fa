"""The proof that every launch compiles: a table with a row for each key, filled piece by piece and checked quickly."""

from __future__ import annotations

import csv
import os
import random
import sys
import time
from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import asdict, fields
from multiprocessing import get_context
from pathlib import Path

from petground.kernels._triton.runtime import Launch
from petground.kernels.aot_build import Built, build_key, keyed

__all__ = ["Wanted", "check", "compiled", "fill", "read", "sampled", "save", "say"]

# {key: (architecture, case, launch)}
Wanted = Mapping[str, tuple[int, str, Launch]]
_TOLD = 12  # faults that are said in full


def say(text: str) -> None:
    """A line on standard output, at once."""
    sys.stdout.write(text + "\n")
    sys.stdout.flush()


def read(path: Path) -> dict[str, Built]:
    """{key: row}; empty where there is no file. Raises ValueError for a table that `save` did not write."""
    if not path.is_file():
        return {}
    found = {}
    with path.open(newline="", encoding="utf-8") as file:
        for number, row in enumerate(csv.DictReader(file), start=2):
            try:
                typed = {f.name: int(row[f.name]) if f.type == "int" else row[f.name] for f in fields(Built)}
            except (KeyError, TypeError, ValueError) as error:
                columns = ",".join(f.name for f in fields(Built))
                raise ValueError(f"{path}, line {number}: not a row of {columns}") from error
            found[typed["key"]] = Built(**typed)
    return found


def save(path: Path, rows: Iterable[Built]) -> None:
    """Writes the table in a fixed order, all or nothing: whoever is killed leaves the old one or the new one."""
    part = path.with_name(path.name + ".part")
    path.parent.mkdir(parents=True, exist_ok=True)
    with part.open("w", newline="", encoding="utf-8") as file:
        table = csv.DictWriter(file, [f.name for f in fields(Built)], lineterminator="\n")
        table.writeheader()
        table.writerows(asdict(row) for row in sorted(rows, key=_order))
    os.replace(part, path)


def _order(row: Built) -> tuple[str, str, int, str, int, int, str]:
    return row.kernel, row.case, row.arch, row.blocks, row.warps, row.stages, row.key


def compiled(wanted: Wanted, jobs: int) -> Iterator[tuple[str, Built | str]]:
    """(key, what came of it or why nothing did) as they are ready, in `jobs` processes."""
    with ProcessPoolExecutor(jobs, mp_context=get_context("spawn")) as pool:
        tasks = {pool.submit(build_key, key, arch): key for key, (arch, _, _) in wanted.items()}
        try:
            for task in as_completed(tasks):
                yield tasks[task], task.result()
        finally:
            pool.shutdown(wait=True, cancel_futures=True)


def fill(path: Path, wanted: Wanted, jobs: int) -> int:
    """Compiles what the table lacks, each saved at once, then drops rows of what is no longer launched; the exit code.

    Killed at any moment, it goes on where it was. Rows of other launches stay, whatever `wanted` is a part of.
    """
    missing = {key: one for key, one in wanted.items() if key not in read(path)}
    say(f"{len(wanted) - len(missing)} of {len(wanted)} are in {path}; {len(missing)} to compile")
    start, failed = time.monotonic(), 0
    for done, (_, built) in enumerate(compiled(missing, jobs), start=1):
        left = (time.monotonic() - start) / done * (len(missing) - done)
        progress = f"{done} done, {len(missing) - done} left, about {left / 60:.0f} min: "
        if isinstance(built, str):
            failed += 1
            say(f"{progress}FAILED {built}")
            continue
        save(path, [*read(path).values(), built])  # read anew: another process may fill other launches
        say(f"{progress}{_name(built)}, {built.registers} registers{_arrow(built.fault)}")
    now = _current_keys()
    rows = read(path)
    kept = {key: row for key, row in rows.items() if key in now}
    if len(kept) < len(rows):
        save(path, kept.values())
        say(f"{len(rows) - len(kept)} rows of what is no longer launched dropped")
    faulty = [row for key, row in kept.items() if row.fault]
    for row in faulty[:_TOLD]:
        say(f"{_name(row)}: {row.fault}; choose other blocks or warps in the operator's plans.py")
    say(f"{len(kept)} of {len(now)} launches are proven, {len(faulty)} of them faulty, {failed} did not compile")
    return 1 if faulty or failed else 0


def _current_keys() -> set[str]:
    """Of all architectures, from the sources as they are now: a fill takes long, and they may have changed."""
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
        return pool.submit(_keys).result()


def _keys() -> set[str]:
    from petground.kernels.aot_build import SHARED_KIB

    return {key for arch in SHARED_KIB for key in keyed(arch)}


def sampled(wanted: Wanted, count: int, seed: int) -> list[str]:
    """So many of the keys, or all; the same for the same launches, seed and Triton."""
    return random.Random(seed).sample(sorted(wanted), min(count, len(wanted)))


def check(path: Path, wanted: Wanted, sample: int, seed: int, jobs: int) -> int:
    """Compares the table with today's launches, and `sample` of its rows with what compiling gives; the exit code."""
    rows = read(path)
    faults = list(_faults(rows, wanted))
    for fault in faults[:_TOLD]:
        say(fault)
    if len(faults) > _TOLD:
        say(f"... and {len(faults) - _TOLD} more")
    if faults:
        say(f"{len(faults)} of {len(wanted)} launches are not proven; prove them:")
        say(f"  python -m petground.kernels.aot --proof {path}")
        return 1
    chosen = sampled(wanted, sample, seed)
    say(f"{len(wanted)} launches are proven; compiling {len(chosen)} of them again (--sample {sample} --seed {seed})")
    wrong = 0
    for key, built in compiled({key: wanted[key] for key in chosen}, jobs):
        before = rows[key]
        if isinstance(built, str):
            told = built
        else:
            names = ("registers", "stack", "shared", "matrix")
            pairs = ((name, getattr(before, name), getattr(built, name)) for name in names)
            told = ", ".join(f"{name} {now}, the table says {then}" for name, then, now in pairs if now != then)
        wrong += bool(told)
        say(f"{_name(before)}: {told or 'as the table says'}")
    return 1 if wrong else 0


def _faults(rows: Mapping[str, Built], wanted: Wanted) -> Iterator[str]:
    for key, (arch, case, one) in wanted.items():
        name = f"{one.kernel.__name__} sm_{arch} {case}"
        if key not in rows:
            yield f"{name}: not in the table, or its source, blocks or Triton's version changed"
            continue
        row = rows[key]
        if (row.kernel, row.arch, row.warps, row.stages) != (one.kernel.__name__, arch, one.num_warps, one.num_stages):
            yield f"{name}: the row of its key is of {_name(row)}"
        elif row.fault:
            yield f"{name}: {row.fault}"


def _name(row: Built) -> str:
    return f"{row.kernel} sm_{row.arch} {row.case} [{row.blocks}] warps={row.warps} stages={row.stages}"


def _arrow(fault: str) -> str:
    return f"  <- {fault}" if fault else ""
