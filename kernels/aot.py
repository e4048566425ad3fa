"""`python -m petground.kernels.aot`: every kernel in every configuration, compiled for GPUs that need not be there.

Triton needs no driver to compile: the kernels' real launchers are run on tensors without memory, what they would
launch is recorded and compiled to machine code for each architecture. For each it says registers, stack (spilled
registers; must be 0), shared memory (must fit) and which matrix instructions came out. Exit code 1 where one fails.
"""

from __future__ import annotations

import argparse
import importlib
import json
import logging
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass
from functools import cache
from multiprocessing import get_context
from pathlib import Path
from typing import Any

from torch import Tensor

from petground.kernels._triton.runtime import Launch, capture, interpreting

__all__ = ["MODULES", "SHARED_KIB", "Built", "build", "launches", "main"]

# Each has `cases()`: a generator that runs the operator's launchers on meta tensors and yields a label for each case.
MODULES = tuple(
    f"petground.kernels.{operator}.triton"
    for operator in (
        "cross_attention", "text_to_voxel", "window_attention", "routed_attention",
        "linear_attention", "agent_attention", "token_merge", "topk",
    )
)  # fmt: skip
# Most shared memory of a program, by architecture (CUDA C++ programming guide, compute capabilities).
SHARED_KIB = {80: 163, 90: 227, 100: 227}
_MATRIX = ("wgmma.mma_async", "tcgen05.mma", "mma.sync")
_POINTERS = {
    "torch.bfloat16": "bf16", "torch.float16": "fp16", "torch.float32": "fp32", "torch.uint8": "u8",
    "torch.int8": "i8", "torch.bool": "i1", "torch.int32": "i32", "torch.int64": "i64",
}  # fmt: skip


@dataclass(frozen=True)
class Built:
    """One kernel compiled for one architecture."""

    kernel: str
    case: str
    arch: int
    blocks: str
    num_warps: int
    num_stages: int
    registers: int
    stack: int
    shared: int
    matrix: str

    @property
    def fault(self) -> str:
        """What is wrong with it, or ""."""
        if self.stack > 0:
            return f"{self.stack} bytes of stack"
        return f"{self.shared} bytes of shared memory" if self.shared > SHARED_KIB[self.arch] * 1024 else ""


def launches(arch: int = 90, modules: tuple[str, ...] = MODULES) -> Iterator[tuple[str, Launch]]:
    """(case, launch) of every operator on an architecture, each compile-time configuration once."""
    seen: set[str] = set()
    for name in modules:
        cases = importlib.import_module(name).cases()
        while True:
            with capture(arch) as found:
                case = next(cases, None)
            if case is None:
                break
            for one in found:
                key = f"{one.kernel.__name__}{_specialise(one)}{one.num_warps}{one.num_stages}"
                if key not in seen:
                    seen.add(key)
                    yield case, one


def _specialise(one: Launch) -> tuple[dict[str, str], dict[str, Any], dict[tuple[int], Any]]:
    """(signature, constants, attributes) as Triton's own launcher would find them from these arguments."""
    signature: dict[str, str] = {}
    constants: dict[str, Any] = {}
    attributes: dict[tuple[int], Any] = {}
    for place, parameter in enumerate(one.kernel.params):
        value = one.arguments[parameter.name]
        if parameter.is_constexpr or value is None or (type(value) is int and value == 1):
            signature[parameter.name] = "constexpr"
            constants[parameter.name] = value
        elif isinstance(value, Tensor):
            signature[parameter.name] = "*" + _POINTERS[str(value.dtype)]
            attributes[(place,)] = [["tt.divisibility", 16]]
        elif isinstance(value, float):
            signature[parameter.name] = "fp32"
        else:
            signature[parameter.name] = "i32" if -(2**31) <= value < 2**31 else "i64"
            if value % 16 == 0:
                attributes[(place,)] = [["tt.divisibility", 16]]
    return signature, constants, attributes


def build(case: str, one: Launch, arch: int) -> Built:
    """Compiles; raises what Triton raises."""
    import triton
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource

    signature, constants, attributes = _specialise(one)
    found = triton.compile(
        ASTSource(one.kernel, signature, constants, attributes),
        target=GPUTarget("cuda", arch, 32),
        options={"num_warps": one.num_warps, "num_stages": one.num_stages, "enable_fp_fusion": True},
    )
    registers, stack = _resources(found.asm["cubin"])
    counts = {name: found.asm["ptx"].count(name) for name in _MATRIX}
    blocks = ",".join(f"{n}={constants[n]}" for n in constants if n.isupper() and isinstance(constants[n], int))
    matrix = " ".join(f"{name.split('.')[0]}:{count}" for name, count in counts.items() if count) or "none"
    name = one.kernel.__name__
    return Built(
        name, case, arch, blocks, one.num_warps, one.num_stages, registers, stack, found.metadata.shared, matrix
    )


def _resources(cubin: bytes) -> tuple[int, int]:
    """(registers, bytes of stack) by the cuobjdump in Triton's wheel."""
    import triton

    tool = Path(triton.__file__).parent / "backends" / "nvidia" / "bin" / "cuobjdump"
    with tempfile.NamedTemporaryFile(suffix=".cubin") as file:
        file.write(cubin)
        file.flush()
        text = subprocess.run([tool, "-res-usage", file.name], check=True, capture_output=True, text=True).stdout
    usage = re.search(r"REG:(\d+) STACK:(\d+)", text)
    if usage is None:
        raise RuntimeError(f"cuobjdump says nothing about registers: {text[:200]}")
    return int(usage[1]), int(usage[2])


@cache
def _all(arch: int) -> list[tuple[str, Launch]]:
    return list(launches(arch))


def _build_number(number: int, arch: int) -> Built:
    case, one = _all(arch)[number]  # by number: kernels cannot be sent to another process
    return build(case, one, arch)


def main(argv: list[str] | None = None) -> int:
    """The command; returns its exit code."""
    parser = argparse.ArgumentParser(prog="python -m petground.kernels.aot", description=__doc__)
    parser.add_argument("--arch", type=int, nargs="+", default=list(SHARED_KIB), choices=list(SHARED_KIB))
    parser.add_argument("--only", default="", help="kernels or cases whose name contains this")
    parser.add_argument("--json", type=Path, help="write the table there as well")
    parser.add_argument("--jobs", type=int, default=1, help="processes")
    given = parser.parse_args(argv)
    if interpreting():
        parser.error("TRITON_INTERPRET is set: kernels are interpreted, not compiled; unset it")
    chosen = [
        (number, arch)
        for arch in given.arch
        for number, (case, one) in enumerate(_all(arch))
        if given.only in case or given.only in one.kernel.__name__
    ]
    built: list[Built] = []
    failed = 0
    line = "{:<28} {:>3} {:<26} {:>5} {:>6} {:>4} {:>6} {:>7}  {:<18} {}"
    _say(line.format("kernel", "sm", "blocks", "warps", "stages", "regs", "stack", "shared", "matrix", "case"))
    with ProcessPoolExecutor(given.jobs, mp_context=get_context("spawn")) as pool:
        tasks = [pool.submit(_build_number, number, arch) for number, arch in chosen]
        for task in tasks:
            b = task.result()
            built.append(b)
            failed += bool(b.fault)
            text = line.format(
                b.kernel, b.arch, b.blocks, b.num_warps, b.num_stages, b.registers, b.stack, b.shared, b.matrix, b.case
            )
            _say(text + (f"  <- {b.fault}" if b.fault else ""))
    if given.json:
        given.json.write_text(json.dumps([asdict(b) | {"fault": b.fault} for b in built], indent=1) + "\n")
    _say(f"{len(built)} compiled, {failed} with stack or too much shared memory")
    return 1 if failed or not built else 0


def _say(text: str) -> None:
    sys.stdout.write(text + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    logging.basicConfig()
    sys.exit(main())
