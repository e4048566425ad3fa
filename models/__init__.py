"""Networks: backbones, text encoders, blocks by slot, grounding models, built from names in a config."""

from petground.models.registry import BlockError, build, list_blocks

__all__ = ["BlockError", "build", "list_blocks"]
