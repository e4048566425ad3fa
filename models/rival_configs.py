"""Options that only one kind of network has."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from petground.models.blocks.contract import BlockError

__all__ = ["LLMSegConfig", "ProjectionsConfig"]


@dataclass(frozen=True)
class ProjectionsConfig:
    """The 2.5D network. PET is always projected by its maximum.

    Args:
        ct: how CT is projected: "mean", an average along the ray as in a plain film, or "max", where bone hides the
            rest.
    """

    ct: Literal["mean", "max"] = "mean"


@dataclass(frozen=True)
class LLMSegConfig:
    """LLMSeg (Oh et al., Nat Commun 2024;15:9186). The defaults are the published ones.

    Args:
        prompts: sets of learned vectors that the frozen language model reads with each sentence; every set gives one
            token, the state of the sentence's last word. The model then runs in every step, and its states cannot be
            kept on disk. 0: no learned vectors; the network sees the state of every word, from the bank.
        prompt_length: vectors in a set.
        depth: layers of each two-way transformer.
        num_heads: heads of its attention; must divide half of each stage's features.
    """

    prompts: int = 2
    prompt_length: int = 8
    depth: int = 2
    num_heads: int = 8

    def __post_init__(self) -> None:
        if self.prompts < 0 or min(self.prompt_length, self.depth, self.num_heads) < 1:
            raise BlockError(f"{self}: prompts of 0 or more, everything else of 1 or more")
