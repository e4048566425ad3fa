"""DCAL: the cells that the text's attention leads to look once more, and another exam distracts in training."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from petground.kernels.cross_attention import cross_attention
from petground.models.blocks.attention.softmax import masked_softmax
from petground.models.blocks.backend import Backend, served_by, tells_backend
from petground.models.blocks.contract import check_fusion
from petground.models.blocks.fusion.cells import coarser, pooled, spread
from petground.models.blocks.fusion.parts import Attend, Coordinates, FeedForward, Places, dense, flat, updated, zeroed

__all__ = ["GlcaPwca", "glca", "rollout"]


def rollout(weights: list[Tensor], start: Tensor) -> Tensor:
    """Weights of the layers [B, S, S], first layer first, rows that sum to 1, start [B, S] -> [B, S].

    start A_L' ... A_1' with A' = (A + 1) / 2: how much of each input is in the outputs that `start` names
    (arXiv 2005.00928; DCAL, section 3.2). Sums to what `start` sums to.
    """
    row = start[:, None]
    for weight in reversed(weights):
        row = 0.5 * (row + row @ weight)
    return row[:, 0]


def glca(
    q: Tensor, k: Tensor, v: Tensor, scores: Tensor, share: float, mask: Tensor | None = None, backend: Backend = "auto"
) -> tuple[Tensor, Tensor]:
    """Softmax attention of the queries with the highest scores alone: softmax(q_top k^T / sqrt(d)) v.

    q [B, H, N, D], k and v [B, H, M, D], scores [B, N], share of N that is kept, at least one, mask [B, M] bool
    -> [B, H, K, D], their places [B, K].
    """
    keep = min(scores.shape[1], max(1, math.ceil(share * scores.shape[1])))
    top = scores.topk(keep, dim=1).indices
    chosen = q.gather(2, top[:, None, :, None].expand(-1, q.shape[1], -1, q.shape[3]))
    return cross_attention(chosen, k, v, mask=mask, backend=backend), top


class GlcaPwca(nn.Module):
    """Global-local and pair-wise cross-attention (arXiv 2205.02151, section 3).

        SA    softmax(q [k]^T / sqrt(d)) [v]              layers over text and cells together
        PWCA  softmax(q [k; k_2]^T / sqrt(d)) [v; v_2]    in its place in training, k_2, v_2 of another exam
        GLCA  softmax(q_top k^T / sqrt(d)) v              q_top: the share R of cells that rollout gives most

    Tokens are the sentence's, projected to the voxels' width, and the means of x over at most cells^3 cells. Rollout
    starts from the sentence's real tokens, as from the paper's class token (from all cells where there are none). In
    training each sentence is paired with that half a batch on, of another exam where there are two, with probability
    `pair`; a hidden distractor is plain self-attention, as is evaluation. The paper runs SA and PWCA side by side, with
    a loss each, weighed by learned uncertainties: here they share the batch and the task's loss. GLCA is one layer,
    added to the chosen cells. What cells and text say back starts at zero: the identity at the start.

    Args:
        channels: of the voxels.
        text_channels: of the tokens.
        num_heads: must divide channels.
        cells: cells per axis at the most; maps of (cells^3 + P)^2 are held for the rollout.
        layers: of self-attention.
        share: R, 0.1 for fine-grained recognition and 0.3 for re-identification in the paper.
        pair: how often a sentence is distracted in training.
        coordinates: places added to the cells.
        backend: of the kernel by which the chosen cells look once more; the layers before hold their maps.
    """

    def __init__(
        self,
        channels: int,
        text_channels: int,
        num_heads: int = 1,
        cells: int = 6,
        layers: int = 2,
        share: float = 0.3,
        pair: float = 0.5,
        coordinates: Coordinates = "none",
        backend: Backend = "auto",
    ):
        super().__init__()
        if cells < 1 or layers < 1 or not 0 < share <= 1 or not 0 <= pair <= 1:
            raise ValueError(f"cells={cells}, layers={layers} at least 1, share={share} in (0, 1], pair={pair} in 0..1")
        self.channels, self.text_channels = channels, text_channels
        self.cells, self.share, self.pair = cells, share, pair
        self.text = nn.Linear(text_channels, channels)
        self.back = zeroed(nn.Linear(channels, text_channels, bias=False))
        self.places = Places(channels, coordinates)
        self.layers = nn.ModuleList(PairLayer(channels, num_heads) for _ in range(layers))
        self.norm = nn.LayerNorm(channels)
        self.local = Attend(channels, num_heads)
        self.think = FeedForward(channels)
        self.out = zeroed(nn.Linear(channels, channels))
        served_by(backend, self)

    @tells_backend("glca_pwca")
    def forward(self, x: Tensor, tokens: Tensor, mask: Tensor, box: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """X [B, C, Z, Y, X], tokens [B, P, D], mask [B, P] bool, box [E, 2, 3] -> both streams, of the same shapes."""
        check_fusion("glca_pwca", x, tokens, mask, box, channels=self.channels, text_channels=self.text_channels)
        grid = coarser(x.shape, self.cells)
        cells = pooled(x, grid)
        words = self.text(tokens)
        states = torch.cat([words, self.places(flat(cells), x, box, grid)], dim=1)
        count = tokens.shape[1]
        real = torch.cat([mask, mask.new_ones(len(mask), states.shape[1] - count)], dim=1)
        distracted = torch.rand(len(x), device=x.device) < self.pair if self.training and self.pair else None
        maps = []
        for layer in self.layers:
            states, weights = layer(states, real, distracted)
            maps.append(weights)
        seen = self._look_again(states, real, rollout(maps, self._start(mask, real).to(maps[0].dtype))[:, count:])
        z, y, width = x.shape[2:]
        said = updated(tokens, mask, self.back(states[:, :count] - words))
        return x + spread(dense(self.out(seen), cells), (z, y, width)), said

    def _start(self, mask: Tensor, real: Tensor) -> Tensor:
        """[B, S] rows that rollout starts from: the real words, or where there are none the cells; each sums to 1."""
        words = torch.cat([mask, torch.zeros_like(real[:, mask.shape[1] :])], dim=1)
        rows = torch.where(mask.any(dim=1, keepdim=True), words, real).float()
        return rows / rows.sum(dim=1, keepdim=True)

    def _look_again(self, states: Tensor, real: Tensor, scores: Tensor) -> Tensor:
        """States [B, S, C], real [B, S] bool, scores [B, N] of the cells -> cells [B, N, C], the chosen changed."""
        normed = self.norm(states)
        cells = states[:, -scores.shape[1] :]
        q = self.local.heads(self.local.query(normed[:, -scores.shape[1] :]))
        k, v = self.local.keys(normed, normed)
        answer, top = glca(q, k, v, scores, self.share, real, self.local.backend)
        places = top[..., None].expand(-1, -1, cells.shape[2])
        chosen = cells.gather(1, places)
        chosen = chosen + self.local.out(answer.transpose(1, 2).flatten(2)).to(chosen.dtype)
        return cells.scatter(1, places, (chosen + self.think(chosen)).to(cells.dtype))


class PairLayer(nn.Module):
    """Pre-normalised self-attention, distracted by a pair where told, and feed-forward."""

    def __init__(self, channels: int, num_heads: int):
        super().__init__()
        self.norm = nn.LayerNorm(channels)
        self.attend = Attend(channels, num_heads)
        self.think = FeedForward(channels)

    def forward(self, h: Tensor, real: Tensor, distracted: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """H [B, S, C], real [B, S] bool, distracted [B] bool or None -> h, changed, and its own map [B, S, S].

        The map is the heads' mean without the distractor: rows sum to 1.
        """
        states = self.norm(h)
        q = self.attend.heads(self.attend.query(states))
        k, v = self.attend.keys(states, states)
        keep = real
        if distracted is not None:
            shift = max(1, len(h) // 2)  # an exam's sentences stand together: half a batch on is another exam
            k, v = torch.cat([k, k.roll(shift, 0)], dim=2), torch.cat([v, v.roll(shift, 0)], dim=2)
            keep = torch.cat([real, real.roll(shift, 0) & distracted[:, None]], dim=1)
        weights = masked_softmax(q @ k.transpose(-1, -2) * q.shape[-1] ** -0.5, keep[:, None, None])
        h = h + self.attend.out((weights @ v).transpose(1, 2).flatten(2))
        own = weights[..., : h.shape[1]]
        own = own / own.sum(dim=-1, keepdim=True) if distracted is not None else own
        return h + self.think(h), own.mean(dim=1)
