"""The wheel holds every package, and nothing that would sit at the top of site-packages."""

from __future__ import annotations

import ast
import re
import sys
from importlib.metadata import packages_distributions
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
ROOMS = ("configs", "kernels", "labeling", "models", "pipeline", "training")


@pytest.mark.skipif(sys.version_info < (3, 11), reason="tomllib came with Python 3.11")
def test_every_folder_with_code_is_listed() -> None:
    import tomllib

    listed = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]["packages"]
    found = {
        "petground." + ".".join(file.parent.relative_to(ROOT).parts)
        for room in ROOMS
        for file in (ROOT / room).rglob("*.py")
    }
    assert found - set(listed) == set(), "these would be left out of the wheel"
    assert set(listed) - found - {"petground.kernels"} == set(), "these do not exist"


@pytest.mark.skipif(sys.version_info < (3, 11), reason="tomllib came with Python 3.11")
def test_import_contracts_hold_every_module() -> None:
    import tomllib

    linter = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["importlinter"]
    contracts = {contract["name"]: contract for contract in linter["contracts"]}
    modules = [f"petground.{'.'.join(file.relative_to(ROOT).with_suffix('').parts)}" for file in _code("kernels")]
    named = {
        "roots": linter["root_packages"],
        "as importers": contracts["kernels know nothing of the rest"]["source_modules"],
        "as imported": contracts["labeling and pipeline know nothing of networks"]["forbidden_modules"],
    }
    for where, packages in named.items():
        outside = [name for name in modules if not name.startswith(tuple(f"{package}." for package in packages))]
        assert outside == [], f"not checked {where}"
    rooms = {f"petground.{room}" for room in ROOMS if room != "configs"}
    assert set(linter["root_packages"]) == rooms


@pytest.mark.skipif(sys.version_info < (3, 11), reason="tomllib came with Python 3.11")
def test_what_is_imported_is_declared() -> None:
    # What comes only because another library needs it goes when that library lets it go.
    import tomllib

    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    extras = project["optional-dependencies"]
    asked = [
        *project["dependencies"],
        *(one for name in extras if name not in ("dev", "peers") for one in extras[name]),
    ]
    declared = {_normal(re.match(r"[\w.-]+", one)[0]) for one in asked}  # type: ignore[index]
    dists = packages_distributions()
    missing = {
        f"{file.relative_to(ROOT)}: {name}"
        for room in ROOMS
        for file in _code(room)
        for name in _imported(file)
        if name in dists and not declared & {_normal(dist) for dist in dists[name]}
    }
    assert missing == set()


def _code(room: str) -> list[Path]:
    return sorted((ROOT / room).rglob("*.py"))


def _normal(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def _imported(file: Path) -> set[str]:
    """Top-level names of other libraries that the file imports."""
    names = set()
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names |= {alias.name.partition(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            names.add(node.module.partition(".")[0])
    return names - {"petground"} - sys.stdlib_module_names


def test_kernels_is_no_regular_package() -> None:
    # A kernels/__init__.py at the root would shadow Hugging Face's `kernels` whenever the root is on sys.path.
    assert not (ROOT / "kernels" / "__init__.py").exists()
    assert not (ROOT / "__init__.py").exists()
    assert not (ROOT / "tests" / "__init__.py").exists()


def test_no_medical_image_or_table_is_tracked() -> None:
    suffixes = (".dcm", ".nii", ".nii.gz", ".parquet", ".ckpt", ".safetensors")
    ignored = {".git", ".venv", "demo", "build", ".work"}
    stray = [
        path.relative_to(ROOT).as_posix()
        for room in (*ROOMS, "tests", "docs", "benchmarks", "data_cards")
        for path in (ROOT / room).rglob("*")
        if path.name.endswith(suffixes) and not ignored & set(path.parts)
    ]
    assert stray == []
