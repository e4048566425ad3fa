"""The two-way transformer of Segment Anything, here between voxels and the tokens of a sentence."""

from __future__ import annotations

from torch import Tensor, nn

from petground.models.blocks.between import attend_between

__all__ = ["TwoWayTransformer"]


class TwoWayTransformer(nn.Module):
    """Tokens look at each other and at the voxels, then voxels look at the tokens (arXiv 2304.02643, appendix A).

    As LLMSeg uses it, voxels have no position code, and only the voxels that come out are used: what Segment Anything
    does with the tokens after the last layer is left out. Differs: padded tokens are masked.

    Args:
        channels: of voxels and tokens.
        hidden: of the tokens' two-layer perceptron.
        depth: layers.
        num_heads: must divide half of `channels`: attention between tokens and voxels works on half of them.
    """

    def __init__(self, channels: int, hidden: int, depth: int = 2, num_heads: int = 8):
        super().__init__()
        self.layers = nn.ModuleList(_Layer(channels, hidden, num_heads, first=number == 0) for number in range(depth))

    def forward(self, x: Tensor, tokens: Tensor, mask: Tensor) -> Tensor:
        """Voxels x [N, C, z, y, x], tokens [N, P, C], mask [N, P] bool (True = a real token) -> [N, C, z, y, x]."""
        voxels = x.flatten(2).transpose(1, 2)
        said = tokens
        for layer in self.layers:
            said, voxels = layer(said, voxels, tokens, mask)
        return voxels.transpose(1, 2).reshape(x.shape)


class _Layer(nn.Module):
    def __init__(self, channels: int, hidden: int, num_heads: int, *, first: bool):
        super().__init__()
        self.first = first
        self.among_tokens = _Attention(channels, channels, num_heads)
        self.to_voxels = _Attention(channels, channels // 2, num_heads)
        self.to_tokens = _Attention(channels, channels // 2, num_heads)
        self.think = nn.Sequential(nn.Linear(channels, hidden), nn.ReLU(), nn.Linear(hidden, channels))
        self.norms = nn.ModuleList(nn.LayerNorm(channels) for _ in range(4))

    def forward(self, said: Tensor, voxels: Tensor, tokens: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
        """Tokens so far [N, P, C], voxels [N, V, C], the sentence's tokens [N, P, C] -> both, changed.

        The sentence's own tokens are added to queries and keys in every layer but the first, so that what they are
        is not lost; the first layer's self-attention has no residual.
        """
        if self.first:
            said = self.among_tokens(said, said, said, mask)
        else:
            said = said + self.among_tokens(said + tokens, said + tokens, said, mask)
        said = self.norms[0](said)
        said = self.norms[1](said + self.to_voxels(said + tokens, voxels, voxels, None))
        said = self.norms[2](said + self.think(said))
        voxels = self.norms[3](voxels + self.to_tokens(voxels, said + tokens, said, mask))
        return said, voxels


class _Attention(nn.Module):
    """Multi-head attention on `inner` channels."""

    def __init__(self, channels: int, inner: int, num_heads: int):
        super().__init__()
        self.num_heads = num_heads
        self.query = nn.Linear(channels, inner)
        self.key = nn.Linear(channels, inner)
        self.value = nn.Linear(channels, inner)
        self.out = nn.Linear(inner, channels)

    def forward(self, query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None) -> Tensor:
        """Query [N, Q, C], key and value [N, K, C], mask [N, K] bool or None -> [N, Q, C]."""
        q, k, v = self._split(self.query(query)), self._split(self.key(key)), self._split(self.value(value))
        out: Tensor = self.out(attend_between(q, k, v, mask).transpose(1, 2).flatten(2))
        return out

    def _split(self, h: Tensor) -> Tensor:
        return h.reshape(*h.shape[:-1], self.num_heads, -1).transpose(1, 2)
