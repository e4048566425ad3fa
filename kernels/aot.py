"""Compiles every Triton kernel in every configuration for GPUs that need not be there, or checks that this was done.

Triton needs no driver to compile: the kernels' real launchers are run on tensors without memory, what they would
launch is recorded and compiled to machine code for each architecture. For each it says registers, stack (spilled
registers: must be 0), shared memory (must fit) and which matrix instructions came out.

All of it takes an hour or two of one core. So the outcome is kept in a table (docs/results/aot.csv) under keys that
depend on all that is compiled: the sources that a kernel reaches, types, block sizes, warps, stages, architecture and
Triton's version. A changed kernel has a key that the table lacks.

  --proof FILE   compiles only what the table lacks. It may be stopped at any moment and goes on where it was.
  --check FILE   fails where a launch of today is not in the table, or has stack or too much shared memory, and
                 compiles some again to see that the table tells the truth. Quick: for every change.
  neither        compiles all that is chosen, or --sample of it, and prints it.
"""

from __future__ import annotations

import argparse
import json
import logging
import os
import random
import sys
from dataclasses import asdict
from pathlib import Path

from petground.kernels._triton.runtime import interpreting
from petground.kernels.aot_build import SHARED_KIB, Built, build, keyed, launches
from petground.kernels.aot_proof import Wanted, check, compiled, fill, sampled, say

__all__ = ["Built", "build", "launches", "main"]

_EXAMPLES = """examples:
  python -m petground.kernels.aot --proof docs/results/aot.csv             after a change to a kernel or a plan
  python -m petground.kernels.aot --check docs/results/aot.csv --sample 12   what CI runs
  python -m petground.kernels.aot --arch 90 --only topk                    a look at one operator
  python -m petground.kernels.aot --sample 150 --seed 1                    some of all, with another Triton

exit code: 0 all is well; 1 a launch is unproven, spills, needs too much memory or does not compile; 2 wrong usage"""


def main(argv: list[str] | None = None) -> int:
    """The command; returns its exit code."""
    parser = argparse.ArgumentParser(
        prog="python -m petground.kernels.aot", description=__doc__, epilog=_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )  # fmt: skip
    parser.add_argument("--proof", type=Path, metavar="FILE", help="compile what this table lacks and add it")
    parser.add_argument("--check", type=Path, metavar="FILE", help="compare this table with the launches of today")
    parser.add_argument("--sample", type=int, metavar="N", help="compile N (default: --check 12, alone all)")
    parser.add_argument("--seed", type=int, metavar="S", help="which N (default: others each time; it is told)")
    parser.add_argument("--arch", type=int, nargs="+", default=list(SHARED_KIB), choices=list(SHARED_KIB))
    parser.add_argument("--only", nargs="+", default=[""], metavar="NAME", help="kernels or cases named so, in part")
    parser.add_argument("--json", type=Path, help="without --proof and --check: write what is printed there as well")
    parser.add_argument("--jobs", type=int, default=1, help="processes (default 1)")
    given = parser.parse_args(argv)
    if interpreting():
        parser.error("TRITON_INTERPRET is set: kernels are interpreted, not compiled; unset it")
    if given.proof and given.check:
        parser.error("give --proof or --check, not both")
    if given.proof and given.sample is not None:
        parser.error("--proof compiles all that is missing; leave --sample out")
    if (given.sample or 0) < 0 or given.jobs < 1:
        parser.error("--sample takes 0 or more, --jobs 1 or more")
    wanted = _wanted(given.arch, given.only)
    if not wanted:
        parser.error(f"no kernel and no case has {' or '.join(given.only)} in its name")
    seed = random.randrange(10**6) if given.seed is None else given.seed
    try:
        if given.proof:
            return fill(given.proof, wanted, given.jobs)
        if given.check:
            # compiled anew, not looked up in Triton's cache; workers inherit it
            os.environ["TRITON_ALWAYS_COMPILE"] = "1"
            return check(given.check, wanted, 12 if given.sample is None else given.sample, seed, given.jobs)
    except ValueError as error:
        parser.error(str(error))
    if given.sample is not None:
        say(f"{given.sample} of {len(wanted)} launches (--sample {given.sample} --seed {seed})")
        wanted = {key: wanted[key] for key in sampled(wanted, given.sample, seed)}
    return _print(wanted, given.jobs, given.json)


def _wanted(archs: list[int], only: list[str]) -> Wanted:
    return {
        key: (arch, case, one)
        for arch in archs
        for key, (case, one) in keyed(arch).items()
        if any(name in case or name in one.kernel.__name__ for name in only)
    }


def _print(wanted: Wanted, jobs: int, path: Path | None) -> int:
    built: list[Built] = []
    failed = 0
    line = "{:<28} {:>3} {:<26} {:>5} {:>6} {:>4} {:>6} {:>7}  {:<18} {}"
    say(line.format("kernel", "sm", "blocks", "warps", "stages", "regs", "stack", "shared", "matrix", "case"))
    for _, b in compiled(wanted, jobs):
        if isinstance(b, str):
            failed += 1
            say(f"FAILED {b}")
            continue
        built.append(b)
        failed += bool(b.fault)
        text = line.format(
            b.kernel, b.arch, b.blocks, b.warps, b.stages, b.registers, b.stack, b.shared, b.matrix, b.case
        )
        say(text + (f"  <- {b.fault}" if b.fault else ""))
    if path:
        path.write_text(json.dumps([asdict(b) | {"fault": b.fault} for b in built], indent=1) + "\n", encoding="utf-8")
    say(f"{len(built)} compiled; {failed} with stack, too much shared memory, or not at all")
    return 1 if failed else 0


if __name__ == "__main__":
    logging.basicConfig()
    sys.exit(main())
