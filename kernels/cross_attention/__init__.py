"""Cross-attention from voxels to text tokens."""
