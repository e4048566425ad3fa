"""Grounding networks by the name of their architecture."""

from __future__ import annotations

from petground.models.grounding import GroundingNet
from petground.models.llmseg import LLMSegNet
from petground.models.net_config import NetConfig
from petground.models.projections import ProjectionNet
from petground.models.text.prompts import LearnedPrompts

__all__ = ["VERSION", "Network", "build_network", "learned_prompts"]

# Of what the same weights answer for the same exam, by network or grid: raised when that changes, so that older
# checkpoints are refused
VERSION = 3

Network = GroundingNet | ProjectionNet | LLMSegNet
_KINDS: dict[str, type[Network]] = {"unet": GroundingNet, "projections": ProjectionNet, "llmseg": LLMSegNet}


def build_network(config: NetConfig, text_channels: int) -> Network:
    """The network that `config.architecture` names.

    All of them have `encode(image) -> features`, text-free, once per exam, and `decode(features, tokens, mask, box) ->
    Decoded`, for any number of sentences.
    """
    return _KINDS[config.architecture](config, text_channels)


def learned_prompts(network: object) -> LearnedPrompts | None:
    """What a network wants its language model to read before each sentence; None for most."""
    return network.prompts if isinstance(network, LLMSegNet) else None
