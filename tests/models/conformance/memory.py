"""What an operator holds at once: its largest tensor or allocation, and what it keeps for the backward pass."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from torch import Tensor
from torch.autograd.graph import saved_tensors_hooks
from torch.profiler import ProfilerActivity, profile
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

    Operators inside one fused kernel are not seen, see `largest_allocation`.
    """
    with Largest() as made:
        yield made


def largest_allocation(run: Callable[[], Any]) -> tuple[int, str]:
    """Bytes of the most that one operator on the CPU allocates and leaves while `run` runs, and its name.

    By the allocator's own record: also of what runs inside a custom operator, which a dispatch mode does not see.
    """
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as seen:
        run()
    events = seen.events()
    assert events is not None
    most = max(events, key=lambda event: event.self_cpu_memory_usage)
    return most.self_cpu_memory_usage, most.name


@contextmanager
def kept_for_backward() -> Iterator[dict[int, int]]:
    """Numbers by storage of all tensors that autograd keeps while the block runs; sum the values for the whole."""
    kept: dict[int, int] = {}

    def pack(one: Tensor) -> Tensor:
        kept[one.untyped_storage().data_ptr()] = one.untyped_storage().nbytes() // one.element_size()
        return one

    with saved_tensors_hooks(pack, lambda one: one):
        yield kept
