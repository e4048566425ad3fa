"""What docs/kernels.md says of backends: each is a module of its own, which knows neither the others nor the truth."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
TABLE = re.findall(r"^\| (`[\w`, ]+`) \|.*\| ([\w, ]+) \|$", (ROOT / "docs" / "kernels.md").read_text(), re.MULTILINE)
BACKENDS = {name.strip("` "): found.split(", ") for names, found in TABLE for name in names.split(",")}


def _imported(file: Path) -> set[str]:
    """Modules that a module names in its imports, those inside functions too."""
    nodes = list(ast.walk(ast.parse(file.read_text())))
    direct = {alias.name for node in nodes if isinstance(node, ast.Import) for alias in node.names}
    return direct | {str(node.module) for node in nodes if isinstance(node, ast.ImportFrom)}


def test_the_table_has_every_operator() -> None:
    assert set(BACKENDS) == {file.parent.name for file in (ROOT / "kernels").glob("*/reference.py")}


@pytest.mark.parametrize("operator", BACKENDS)
def test_backends_are_modules_apart(operator: str) -> None:
    package = f"petground.kernels.{operator}"
    backends = BACKENDS[operator]
    assert "reference" in backends
    for one in backends:
        file = ROOT / "kernels" / operator / f"{one}.py"
        assert file.is_file(), f"{operator}: no module of backend {one}"
        others = {f"{package}.{other}" for other in backends if other != one}
        assert not _imported(file) & others, f"{file.name} of {operator} imports another backend"
