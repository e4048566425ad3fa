"""Losses that blocks have of their own, beside the task's: held in a training forward, collected by a training step.

A block that has one declares `own_losses: Calls = None` in its class and calls `hold(self, name=value)` in a training
forward, the paper's coefficient (its option `loss_weight`) included. A loss that depends on the answer holds what it
needs, and says in a method `outcome_losses(held, outcome) -> {name: value}` what comes of it. Values are scalars or one
for each entry [E]: the mean over an exam's entries is that exam's, so that exams cost what they cost alone.

Nothing is kept unless a step listens (`listening`): not in evaluation, not by the second forward of gradient
checkpointing (the loss of the first has the graph; what it needs is worked out again), not in a copy or a state_dict.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

__all__ = ["Calls", "Held", "Outcome", "hold", "listening", "own_losses"]

Calls = list[dict[str, Tensor]] | None  # what each forward of a block held; None: nobody listens
Held = dict[str, tuple[nn.Module, list[dict[str, Tensor]]]]


@dataclass(frozen=True, eq=False)
class Outcome:
    """What the network answered to S sentences on each of B exams.

    correct: [B, S], 1 where the answer was right, 0 where not. present: [B, S], 1 where the exam has what the sentence
    tells of, 0 where not, NaN where that is not known.
    """

    correct: Tensor
    present: Tensor

    def of(self, entries: int) -> tuple[Tensor, Tensor]:
        """Correct and present of a block's entries [E]: the sentences', or, run once per exam, all of an exam's.

        Of an exam the share of right answers counts, and whether anything is known to be there.
        """
        if entries == self.correct.numel():
            return self.correct.flatten(), self.present.flatten()
        known = self.present.nan_to_num(-1.0).amax(dim=1)
        return self.correct.mean(dim=1), known.masked_fill(known < 0, float("nan"))


def hold(block: Any, **values: Tensor) -> None:
    """Keeps what this forward of the block gives its own loss, where a training step listens."""
    if block.own_losses is not None:
        block.own_losses.append(values)


@contextmanager
def listening(net: nn.Module | None) -> Iterator[Held]:
    """The network's blocks keep what `hold` gives them while the block runs; {"key": (block, its calls)} for them all.

    Of several blocks of one key each has its number, "key.1" the first that the network holds (the coarsest stage's).
    No network: nobody is listened to.
    """
    modules = () if net is None else net.modules()
    blocks: list[Any] = [module for module in modules if hasattr(module, "own_losses")]
    alike, seen = Counter(block.key for block in blocks), Counter[str]()
    held: Held = {}
    for block in blocks:
        seen[block.key] += 1
        block.own_losses = []
        held[block.key if alike[block.key] == 1 else f"{block.key}.{seen[block.key]}"] = (block, block.own_losses)
    try:
        yield held
    finally:
        for block in blocks:
            block.own_losses = None


def own_losses(held: Held, outcome: Outcome) -> dict[str, Tensor]:
    """{"key/name": [B]} of what the blocks held, one number for each exam.

    The mean over a block's calls, where a step ran it more than once.
    """
    losses = {}
    for key, (block, calls) in held.items():
        judge: Callable[[Mapping[str, Tensor], Outcome], dict[str, Tensor]] | None
        judge = getattr(block, "outcome_losses", None)
        told = calls if judge is None else [judge(one, outcome) for one in calls]
        for name in told[0] if told else ():
            losses[f"{key}/{name}"] = torch.stack([_by_exam(one[name], len(outcome.correct)) for one in told]).mean(0)
    return losses


def _by_exam(value: Tensor, exams: int) -> Tensor:
    return value.float().expand(exams) if value.ndim == 0 else value.float().reshape(exams, -1).mean(dim=1)
