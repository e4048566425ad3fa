"""What an operator holds at once: the largest tensor it makes, and what it keeps for the backward pass."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from torch import Tensor
from torch.autograd.graph import saved_tensors_hooks
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves


class Largest(TorchDispatchMode):
    """Counts numbers in storage, so that an expanded view counts as what it is a view of."""

    def __init__(self) -> None:
        super().__init__()
        self.numbers = 0
        self.shape: tuple[int, ...] = ()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        for one in tree_leaves(out):
            if isinstance(one, Tensor):
                numbers = one.untyped_storage().nbytes() // one.element_size()
                if numbers > self.numbers:
                    self.numbers, self.shape = numbers, tuple(one.shape)
        return out


@contextmanager
def largest_tensor() -> Iterator[Largest]:
    """The largest tensor that any operator gave back inside the with, see `Largest.numbers`.

    Operators inside one fused kernel are not seen.
    """
    with Largest() as made:
        yield made


@contextmanager
def kept_for_backward() -> Iterator[dict[int, int]]:
    """Numbers by storage of all tensors that autograd keeps while the block runs; sum the values for the whole."""
    kept: dict[int, int] = {}

    def pack(one: Tensor) -> Tensor:
        kept[one.untyped_storage().data_ptr()] = one.untyped_storage().nbytes() // one.element_size()
        return one

    with saved_tensors_hooks(pack, lambda one: one):
        yield kept
