"""Agent attention: queries reach keys through a few agents."""

from petground.kernels.agent_attention.api import agent_attention, available_backends
from petground.kernels.agent_attention.reference import agent_maps

__all__ = ["agent_attention", "agent_maps", "available_backends"]
