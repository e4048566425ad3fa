"""Kernels compiled for GPUs that are not there: no stack, matrix instructions; and the pattern Hopper miscompiles."""

from __future__ import annotations

import ast
import importlib
from pathlib import Path

import pytest

KERNELS = Path(__file__).resolve().parents[2] / "kernels"


def test_every_kernel_is_among_the_launches_and_one_of_each_compiles() -> None:
    pytest.importorskip("triton", reason="Triton is not installed: pip install 'petground[triton]'")
    aot = importlib.import_module("petground.kernels.aot")
    found = list(aot.launches())
    written = {name for file in KERNELS.rglob("*.py") for name in _kernels(ast.parse(file.read_text()))}
    assert {one.kernel.__name__ for _, one in found} == written
    case, one = next((case, one) for case, one in found if one.kernel.__name__ == "attention_forward")
    built = aot.build(case, one, 90)
    assert built.fault == ""
    assert built.matrix.startswith("wgmma")
    assert built.registers > 32


def _kernels(tree: ast.Module) -> set[str]:
    """Kernels: jitted functions that ask for their program's number (others are helpers of theirs)."""
    return {
        one.name
        for one in tree.body
        if isinstance(one, ast.FunctionDef)
        and any("triton.jit" in ast.unparse(d) for d in one.decorator_list)
        and "tl.program_id" in ast.unparse(one)
    }


def _transposed_results(tree: ast.Module) -> list[str]:
    """tl.dot operands that are transposes of something other than what was loaded."""
    wrong = []
    for function in (f for f in tree.body if isinstance(f, ast.FunctionDef)):
        made: dict[str, list[str]] = {}
        for node in ast.walk(function):
            if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name):
                made.setdefault(node.targets[0].id, []).append(ast.unparse(node.value))
        for node in ast.walk(function):
            if not (isinstance(node, ast.Call) and ast.unparse(node.func) == "tl.dot"):
                continue
            for operand in node.args[:2]:
                if isinstance(operand, ast.Call) and ast.unparse(operand.func) == "tl.trans":
                    name = ast.unparse(operand.args[0])
                    sources = made.get(name, ["?"])
                    if not all(s.startswith(("load_tile(", "tl.load(", f"{name}.to(")) for s in sources):
                        wrong.append(f"{function.name}: {ast.unparse(operand)}")
    return wrong


def test_no_product_takes_the_transpose_of_a_result() -> None:
    """tl.dot(tl.trans(p), y) with p a product's result is wrong on Hopper; neither interpreter nor compiler says so."""
    bad = "def f():\n    p = tl.dot(a, b)\n    c = tl.dot(tl.trans(p), d)\n"
    assert _transposed_results(ast.parse(bad)) == ["f: tl.trans(p)"]
    files = [file for file in KERNELS.rglob("*.py") if "tl.dot" in file.read_text()]
    assert len(files) >= 3
    for file in files:
        assert _transposed_results(ast.parse(file.read_text())) == [], file.name
