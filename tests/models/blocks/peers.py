"""Packages whose operators ours are measured against; they are no dependencies, so tests skip where one is missing."""

from __future__ import annotations

import contextlib
import importlib
import importlib.util
import sys
import types
from collections.abc import Iterator
from typing import Any

import pytest

TORCHVISION = (
    "ops",
    "ops.misc",
    "transforms",
    "transforms.functional",
    "datasets",
    "utils",
    "models",
    "models.feature_extraction",
)


class _Names(type):
    def __getattr__(cls, name: str) -> str:
        if name.startswith("__"):
            raise AttributeError(name)
        return name


class _Empty(types.ModuleType):
    """A module in which every name is an empty class, whose every attribute is its name."""

    __path__: list[str] = []  # noqa: RUF012 (what makes it a package)

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        return _Names(name, (), {})


@contextlib.contextmanager
def timm(*names: str) -> Iterator[list[Any]]:
    """The modules of timm by name, e.g. "timm.layers.halo_attn". Skips without timm.

    timm imports torchvision for its image transforms; its attention needs none of that, so that a stand-in serves.
    """
    if importlib.util.find_spec("timm") is None:
        pytest.skip("timm is not installed")
    before = dict(sys.modules)
    try:
        importlib.import_module("torchvision")
    except ImportError:
        for name in ("", *(f".{one}" for one in TORCHVISION)):
            module = _Empty(f"torchvision{name}")
            sys.modules[f"torchvision{name}"] = module
            if name:
                parent, _, last = f"torchvision{name}".rpartition(".")
                setattr(sys.modules[parent], last, module)
    try:
        yield [importlib.import_module(name) for name in names]
    finally:
        for name in set(sys.modules) - set(before):
            if name.split(".")[0] in ("timm", "torchvision"):
                del sys.modules[name]
