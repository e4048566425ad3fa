"""What the launchers would launch, a key for each made of what is compiled, and its compilation without a GPU."""

from __future__ import annotations

import ast
import hashlib
import importlib
import json
import re
import subprocess
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from types import ModuleType
from typing import Any

from torch import Tensor

from petground.kernels._triton.runtime import Launch, capture

__all__ = ["MODULES", "SHARED_KIB", "Built", "build", "build_key", "key_of", "keyed", "launches", "source_of"]

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
_OPTIONS = {"enable_fp_fusion": True}  # as runtime.launch says
_POINTERS = {
    "torch.bfloat16": "bf16", "torch.float16": "fp16", "torch.float32": "fp32", "torch.uint8": "u8",
    "torch.int8": "i8", "torch.bool": "i1", "torch.int32": "i32", "torch.int64": "i64",
}  # fmt: skip


@dataclass(frozen=True)
class Built:
    """One kernel compiled for one architecture; its fields are the columns of the proof."""

    kernel: str
    case: str  # the first that reaches it
    arch: int
    blocks: str
    warps: int
    stages: int
    registers: int
    stack: int  # bytes: spilled registers
    shared: int  # bytes
    matrix: str
    triton: str
    key: str

    @property
    def fault(self) -> str:
        """What is wrong with it, or ""."""
        if self.stack > 0:
            return f"{self.stack} bytes of stack"
        most = SHARED_KIB[self.arch] * 1024
        return f"{self.shared} bytes of shared memory, there are {most}" if self.shared > most else ""


def launches(arch: int = 90, modules: tuple[str, ...] = MODULES) -> Iterator[tuple[str, Launch]]:
    """(case, launch) of every operator on an architecture, each compile-time configuration once."""
    yield from keyed(arch, modules).values()


@cache
def keyed(arch: int, modules: tuple[str, ...] = MODULES) -> dict[str, tuple[str, Launch]]:
    """{key: (case, launch)} of every operator on an architecture."""
    found: dict[str, tuple[str, Launch]] = {}
    for name in modules:
        cases = importlib.import_module(name).cases()
        while True:
            with capture(arch) as recorded:
                case = next(cases, None)
            if case is None:
                break
            for one in recorded:
                found.setdefault(key_of(one, arch), (case, one))
    return found


def key_of(one: Launch, arch: int) -> str:
    """Changes with whatever the machine code depends on; not with comments, docstrings or where a line stands."""
    import triton

    signature, constants, attributes = _specialise(one)
    parts = [
        triton.__version__, arch, one.num_warps, one.num_stages, sorted(_OPTIONS.items()), source_of(one.kernel),
        sorted(signature.items()), sorted((n, repr(v)) for n, v in constants.items()), sorted(attributes.items()),
    ]  # fmt: skip
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:16]


@cache
def source_of(kernel: Any) -> str:
    """A digest of the kernel, of every function of ours that it reaches, and of the module's constants they read.

    Raises TypeError for a global of a kind that is not known: it might change what is compiled unseen.
    """
    digest = hashlib.sha256()
    todo, seen = [kernel], set()
    while todo:
        function = todo.pop()
        if function in seen:
            continue
        seen.add(function)
        # what Triton keeps from when the module was imported, and compiles: the file may have changed since
        tree = ast.parse(function.src)
        digest.update(f"{getattr(function, 'noinline', False)}{_canonical(tree)}\n".encode())
        for name, value in sorted(_globals_of(tree, function.fn).items()):
            if _is_ours(value):
                todo.append(value)
            else:
                digest.update(f"{name}={value!r}\n".encode())
    return digest.hexdigest()


def _globals_of(tree: ast.Module, function: Any) -> dict[str, Any]:
    """{name as written: value} of the functions and constants that the source reads from its module or through it."""
    from triton.language import constexpr, dtype

    cells = zip(function.__code__.co_freevars, function.__closure__ or (), strict=True)
    names = {**function.__globals__, **{name: cell.cell_contents for name, cell in cells}}
    found: dict[str, Any] = {}
    for node in ast.walk(tree):
        written = ast.unparse(node) if isinstance(node, (ast.Name, ast.Attribute)) else ""
        first, *rest = written.split(".")
        if first not in names or not all(part.isidentifier() for part in rest):
            continue
        value = names[first]
        for part in rest:
            value = getattr(value, part, None) if isinstance(value, ModuleType) else None
        if isinstance(value, (bool, int, float, str, constexpr, dtype)) or _is_ours(value):
            found[written] = value
            continue
        inside = value.__name__ if isinstance(value, ModuleType) else str(getattr(value, "__module__", ""))
        # an attribute of a tensor; a module on the way; Triton's own, which its version stands for
        if value is not None and not isinstance(value, ModuleType) and inside.split(".")[0] != "triton":
            raise TypeError(f"{function.__module__}.{function.__name__} reads {written}, a {type(value).__name__}")
    return found


def _is_ours(value: Any) -> bool:
    """A function for Triton's compiler that is not Triton's own."""
    return hasattr(value, "fn") and hasattr(value, "src") and not value.fn.__module__.startswith("triton.")


def _canonical(node: Any) -> str:
    """A syntax tree as text that all versions of Python agree on, without docstrings."""
    if isinstance(node, list):
        return "[" + ",".join(_canonical(n) for n in node if not _is_docstring(n)) + "]"
    if not isinstance(node, ast.AST):
        return repr(node)
    left_out = ("ctx", "kind", "type_comment", "type_ignores", "type_params", "decorator_list")
    fields = ((name, value) for name, value in ast.iter_fields(node) if name not in left_out)
    text = ",".join(f"{name}={_canonical(value)}" for name, value in fields if value is not None and value != [])
    return f"{type(node).__name__}({text})"


def _is_docstring(node: Any) -> bool:
    return isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) and isinstance(node.value.value, str)


def _specialise(one: Launch) -> tuple[dict[str, str], dict[str, Any], dict[tuple[int], Any]]:
    """(signature, constants, attributes) as Triton's own launcher would find them from these arguments."""
    signature: dict[str, str] = {}
    constants: dict[str, Any] = {}
    attributes: dict[tuple[int], Any] = {}
    for place, parameter in enumerate(one.kernel.params):
        value = one.arguments[parameter.name]
        plain = parameter.do_not_specialize  # of a number the type counts alone
        if parameter.is_constexpr or value is None or (type(value) is int and value == 1 and not plain):
            signature[parameter.name] = "constexpr"
            constants[parameter.name] = value
        elif isinstance(value, Tensor):
            signature[parameter.name] = "*" + _POINTERS[str(value.dtype)]
            attributes[(place,)] = [["tt.divisibility", 16]]
        elif isinstance(value, float):
            signature[parameter.name] = "fp32"
        else:
            signature[parameter.name] = "i32" if -(2**31) <= value < 2**31 else "i64"
            if value % 16 == 0 and not plain:
                attributes[(place,)] = [["tt.divisibility", 16]]
    return signature, constants, attributes


def build_key(key: str, arch: int) -> Built | str:
    """What `keyed(arch)` has under the key, compiled; or why not. By key: kernels cannot be sent to another process."""
    if key not in keyed(arch):
        return "its source changed meanwhile; run again"
    case, one = keyed(arch)[key]
    try:
        return build(case, one, arch)
    except Exception as error:  # many kinds, of the compiler and of ptxas, not all of which pass between processes
        return f"{one.kernel.__name__} sm_{arch} {case}: {type(error).__name__}: {str(error)[-400:]}"


def build(case: str, one: Launch, arch: int) -> Built:
    """Compiles; raises what Triton raises."""
    import triton
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource

    signature, constants, attributes = _specialise(one)
    found = triton.compile(
        ASTSource(one.kernel, signature, constants, attributes),
        target=GPUTarget("cuda", arch, 32),
        options={"num_warps": one.num_warps, "num_stages": one.num_stages, **_OPTIONS},
    )
    registers, stack = _resources(found.asm["cubin"])
    counts = {name: found.asm["ptx"].count(name) for name in _MATRIX}
    return Built(
        kernel=one.kernel.__name__,
        case=case,
        arch=arch,
        blocks=" ".join(f"{n}={constants[n]}" for n in constants if n.isupper() and isinstance(constants[n], int)),
        warps=one.num_warps,
        stages=one.num_stages,
        registers=registers,
        stack=stack,
        shared=found.metadata.shared,
        matrix=" ".join(f"{name.split('.')[0]}:{count}" for name, count in counts.items() if count) or "none",
        triton=triton.__version__,
        key=key_of(one, arch),
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
