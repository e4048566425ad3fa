"""Which tensor operators of `petground.kernels` a block's code calls, read from the code itself."""

from __future__ import annotations

import importlib
import inspect
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import CodeType, FunctionType
from typing import Any

from torch import nn
from torch.nn.functional import scaled_dot_product_attention

from petground.kernels.sdpa import masked_sdpa

__all__ = ["backends_of", "operators_of"]

_KERNELS, _BLOCKS = "petground.kernels.", "petground.models.blocks."
_SHARED = "_"  # folders of kernels/ that are no operators
_NAMED = ("triton", "flex", "sdpa", "chunked", "reference")


def operators_of(cls: type[nn.Module], preset: Mapping[str, Any] | None = None) -> list[str]:
    """Operators that the class's methods, or the functions and classes that these name, call; sorted.

    "torch_sdpa" is PyTorch's fused attention, called without an operator of ours. Where a preset decides what is
    called, the class says what is not (`without`).
    """
    found: set[str] = set()
    seen: set[int] = set()
    waiting: list[Any] = [cls]
    while waiting:
        thing = waiting.pop()
        if id(thing) in seen:
            continue
        seen.add(id(thing))
        for named in _named(thing):
            module = getattr(named, "__module__", None) or ""
            if named is scaled_dot_product_attention or named is masked_sdpa:
                found.add("torch_sdpa")
            elif module.startswith(_KERNELS):
                operator = module.removeprefix(_KERNELS).split(".")[0]
                found |= set() if operator.startswith(_SHARED) else {operator}
            elif module.startswith(_BLOCKS):
                waiting.append(named)
    without = getattr(cls, "without", None)
    return sorted(found - without(**preset or {}) if without is not None else found)


def backends_of(operator: str) -> list[str]:
    """Backends that an operator is written for, on whatever machine: its files and what serves the processor."""
    package = importlib.import_module(_KERNELS + operator)
    folder = Path(inspect.getfile(package)).parent
    serving = package.available_backends() if hasattr(package, "available_backends") else ()
    names = {*serving, *(path.stem for path in folder.glob("*.py") if path.stem in _NAMED)}
    return sorted(names, key=lambda name: (_NAMED.index(name) if name in _NAMED else -1, name))


def _named(thing: Any) -> Iterator[Any]:
    """What the code of a function, or of a class's methods and bases, refers to by name."""
    if inspect.isclass(thing):
        yield from thing.__bases__
        members = [getattr(part, "__func__", getattr(part, "fget", part)) for part in vars(thing).values()]
        members = [inspect.unwrap(one) if callable(one) else one for one in members]
    else:
        members = [inspect.unwrap(thing)] if callable(thing) else []
    for member in members:
        if isinstance(member, FunctionType):
            for name in _names(member.__code__):
                if name in member.__globals__:
                    yield member.__globals__[name]


def _names(code: CodeType) -> set[str]:
    inner = (_names(part) for part in code.co_consts if isinstance(part, CodeType))
    return set(code.co_names).union(*inner)
