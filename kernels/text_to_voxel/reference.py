"""The truth: the same written-out attention as from voxels to text; only the lengths differ."""

from petground.kernels.cross_attention.reference import cross_attention_reference as text_to_voxel_reference

__all__ = ["text_to_voxel_reference"]
