"""CrossLMM's dual cross-attention: few pooled voxels and the text think together, and both re-read every voxel."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from petground.models.blocks.backend import Backend, served_by, tells_backend
from petground.models.blocks.contract import check_fusion
from petground.models.blocks.fusion.cells import coarser, pooled, spread
from petground.models.blocks.fusion.parts import Attend, Coordinates, Places, dense, flat, updated, zeroed

__all__ = ["V2VT2V", "DualCrossLayer"]


class V2VT2V(nn.Module):
    """Self-attention over [V; T], then gated re-reading of the original voxels V_o (arXiv 2505.17020, section 3).

        I' = LN(SelfAttn([V; T]) + [V; T])
        I'[V] += tanh(g_v) Attn(W_q I'[V], W_k V_o, W_v V_o)          voxel to voxel
        I'[T] += tanh(g_t) Attn(U_q I'[T], U_k V_o, U_v V_o)          text to voxel
        A = Linear(upsampled I'[V]),   x' = x (1 + tanh A) + A

    V are means of the stage's voxels over at most cells^3 cells, V_o all of them, T the sentence's tokens projected
    to their width. The gates g start at zero; so do A and the text's way back: the block starts as the identity. The
    paper's layers are those of a language model, whose feed-forward is not part of the mechanism and is left out; the
    last line is the way from pooled tokens back to a decoder stage, which the paper does not need.

    Args:
        channels: of the voxels.
        text_channels: of the tokens.
        num_heads: must divide channels.
        cells: pooled tokens per axis at the most: the cost of the self-attention does not grow with the grid.
        layers: such layers, each reading the same V_o.
        coordinates: places added to V and V_o where they are looked at.
        backend: of the attention's kernels.
    """

    def __init__(
        self,
        channels: int,
        text_channels: int,
        num_heads: int = 1,
        cells: int = 6,
        layers: int = 1,
        coordinates: Coordinates = "none",
        backend: Backend = "auto",
    ):
        super().__init__()
        if layers < 1 or cells < 1:
            raise ValueError(f"layers={layers} and cells={cells} must be at least 1")
        self.channels, self.text_channels, self.cells = channels, text_channels, cells
        self.text = nn.Linear(text_channels, channels)
        self.back = zeroed(nn.Linear(channels, text_channels, bias=False))
        self.norm = nn.LayerNorm(channels)
        self.places = Places(channels, coordinates)
        self.layers = nn.ModuleList(DualCrossLayer(channels, num_heads) for _ in range(layers))
        self.out = zeroed(nn.Linear(channels, channels))
        served_by(backend, self)

    @tells_backend("v2v_t2v")
    def forward(self, x: Tensor, tokens: Tensor, mask: Tensor, box: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """X [B, C, Z, Y, X], tokens [B, P, D], mask [B, P] bool, box [E, 2, 3] -> both streams, of the same shapes."""
        check_fusion("v2v_t2v", x, tokens, mask, box, channels=self.channels, text_channels=self.text_channels)
        grid = coarser(x.shape, self.cells)
        cells = pooled(x, grid)
        original = self.places(self.norm(flat(x)), x, box)
        words = self.text(tokens)
        states = torch.cat([self.places(flat(cells), x, box, grid), words], dim=1)
        count = grid[0] * grid[1] * grid[2]
        for layer in self.layers:
            states = layer(states, original, mask, count)
        z, y, width = x.shape[2:]
        answer = spread(dense(self.out(states[:, :count]), cells), (z, y, width))
        said = updated(tokens, mask, self.back(states[:, count:] - words))
        return x * (1.0 + torch.tanh(answer)) + answer, said


class DualCrossLayer(nn.Module):
    """One layer; see `V2VT2V`."""

    def __init__(self, channels: int, num_heads: int):
        super().__init__()
        self.attend = Attend(channels, num_heads)
        self.norm = nn.LayerNorm(channels)
        self.voxels = Attend(channels, num_heads)
        self.words = Attend(channels, num_heads)
        self.gate_voxels = nn.Parameter(torch.zeros(1))
        self.gate_words = nn.Parameter(torch.zeros(1))

    def among(self, states: Tensor, mask: Tensor, count: int) -> Tensor:
        """The plain self-attention layer: what is left with the gates at zero."""
        real = torch.cat([mask.new_ones(len(mask), count), mask], dim=1)
        out: Tensor = self.norm(self.attend(states, states, real) + states)
        return out

    def forward(self, states: Tensor, original: Tensor, mask: Tensor, count: int) -> Tensor:
        """States [B, count + P, C], pooled voxels first, original [B, N, C], mask [B, P] bool -> the states."""
        states = self.among(states, mask, count)
        seen, said = states[:, :count], states[:, count:]
        seen = seen + torch.tanh(self.gate_voxels) * self.voxels(seen, original)
        said = said + torch.tanh(self.gate_words) * self.words(said, original)
        return torch.cat([seen, said], dim=1)
