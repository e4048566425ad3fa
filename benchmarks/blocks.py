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

SDPA among voxels is timed on SHARE queries with all keys, and multiplied: its time grows with the queries alone (within
4 % of the whole at 32^3), and so it can stand beside every block at every size.

Each size is measured in a process of its own, forked from one that has computed nothing: first peak_mib, the memory
above what was held before the call (Linux; what is freed is given back at once, so it is what is alive together), then,
with memory kept as in a training, time. A size is left out, with the reason, where a call would pass LIMIT seconds by
the growth so far, where more than MEMORY_GIB is asked for, and where the block fails; a row with a failure is measured
again by the next call. floor_ms is a copy of the output: nothing that writes it can be quicker.

On two quiet cores 5 to 10 s for a row that reads text; among voxels 40 to 60 s for most, much of it SDPA, and minutes
for exact attention, which is called twice at 48^3.
What a token reduction costs or saves the whole network is measured after that (blocks_whole.py): half an hour more.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import blocks_whole
from block_row import CHANNELS, EDGES, FAILED, HEADS, SHARE, TOKENS, failed, row_of
from sources import hashes

from petground.models.registry import BLOCKS, find
from petground.pipeline.files import write_bytes
from petground.pipeline.stage import content_hash
from petground.training.runtime import use_threads

ROOT = Path(__file__).resolve().parent.parent
ROW = Path(__file__).with_name("block_row.py")


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
        if path.is_file():
            table.append(json.loads(path.read_text(encoding="utf-8")))
            continue
        sys.stderr.write(f"{slot} {key} {pattern} ...\n")
        table.append(_in_own_process(slot, key, pattern))
        if not failed(table[-1]["sizes"].values()):  # else not kept: it may have been the machine's fault
            write_bytes(path, json.dumps(table[-1], indent=1).encode())
    own = {row["pattern"]: row["sizes"] for row in table if row["key"] == "softmax" and row["slot"] == "attention"}
    for row in table:
        plain = own.get("cross" if row["reads_text"] else "self", {})
        for size, cell in row["sizes"].items():
            if "peak_mib" in cell and "peak_mib" in plain.get(size, {}):
                cell["sdpa_peak_mib"] = plain[size]["peak_mib"]
    whole = blocks_whole.reductions(folder)
    named = [(f"{row['slot']} {row['key']} {row['pattern']}".strip(), row["sizes"].values()) for row in table]
    named += [(f"{row['key']} at stage {row['stage']}", [row]) for row in whole]
    return {
        "edges": EDGES, "channels": CHANNELS, "heads": HEADS, "text_tokens": TOKENS, "sdpa_queries": SHARE,
        "threads": use_threads(),
        "blocks": table, "whole": whole, "failed": [name for name, cells in named if failed(cells)],
    }  # fmt: skip


def _in_own_process(slot: str, key: str, pattern: str) -> dict[str, Any]:
    told = subprocess.run(
        [sys.executable, "-P", str(ROW), slot, key, pattern], stdout=subprocess.PIPE, check=False, text=True,
        env={**os.environ, "MALLOC_MMAP_THRESHOLD_": "65536"},  # glibc gives back what is freed, until reuse_memory
    )  # fmt: skip
    if told.returncode == 0:
        row: dict[str, Any] = json.loads(told.stdout)
        return row
    return row_of(slot, key, pattern, {str(e**3): {"left_out": f"{FAILED}exit code {told.returncode}"} for e in EDGES})


def _source(slot: str, key: str) -> str:
    """Changes when this file or the row's does, or a file that the block is made of: its own and what that imports."""
    block = find(slot, key)
    made_of = hashes(block.cls.__module__, "petground.models.blocks.contract", "petground.kernels.memory")
    own = [file.read_text(encoding="utf-8") for file in (Path(__file__), ROW)]
    return content_hash([*own, made_of, repr(block.preset), use_threads()])[:12]
