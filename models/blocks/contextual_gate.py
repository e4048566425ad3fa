"""The fusion block of ConTEXTual Net 3D: voxels query the tokens of a sentence, the answer gates the features."""

from __future__ import annotations

from typing import Any, Literal, cast

import torch
from torch import Tensor, nn

from petground.kernels.cross_attention import cross_attention, fold_output, works_channels_first
from petground.models.blocks.backend import tells_backend
from petground.models.blocks.contract import Grid, check_fusion
from petground.models.blocks.gate_layers import linear_laid_out, residual_gate

__all__ = ["ContextualGate", "NoFusion", "voxel_places"]


def voxel_places(grid_zyx: tuple[int, int, int], box: Tensor | None = None, device: Any = None) -> Tensor:
    """[Z*Y*X, 3] in -1..1, columns z, y, x: where each voxel lies in the exam's whole grid (its ends, not its centres).

    With n voxels on an axis voxel i is at (2 i + 1) / n - 1, so that the coordinate of a place does not depend on the
    stage's resolution. box [B, 2, 3]: lower and upper corner of a patch in the whole grid's -1..1; then the answer is
    [B, Z*Y*X, 3], and a place has the same coordinates in every patch that holds it.
    """
    axes = [(2.0 * torch.arange(n, device=device, dtype=torch.float32) + 1.0) / n - 1.0 for n in grid_zyx]
    places = torch.stack(torch.meshgrid(*axes, indexing="ij"), dim=-1).reshape(-1, 3)
    if box is None:
        return places
    low, high = box[:, :1].float(), box[:, 1:].float()
    return low + (places + 1.0) * 0.5 * (high - low)


class ContextualGate(nn.Module):
    """Gate of arXiv 2502.00528: `A = MHA(q = voxels, k = v = Linear(tokens))`, `out = x * tanh(A)`.

    The defaults are the published block: one head, no residual, no norm, no position. One thing differs and is no
    option: the padding mask is always passed (the published code lets voxels attend to padding).

    With `attention` another block of the registry stands in for the softmax, between the same linear layers: its
    queries are the voxels, on their grid, its keys the tokens. What such a block has for self-attention alone is idle.

    Args:
        channels: features of the voxels.
        text_channels: features of the tokens.
        num_heads: attention heads; must divide `channels`.
        norm: layer norm on the queries (not on the features that are gated).
        coordinates: what is added to the queries so that "left" can mean a place: "none", "linear" (z, y, x in
            -1..1 through a linear layer) or "fourier" (with sine and cosine of pi, 2 pi and 4 pi times them).
            A patch needs its `box`: without it the same place would get another coordinate.
        form: "gate" is `x * tanh(A)`; "residual_gate" is `x * (1 + tanh(A)) + A`, with the output projection
            starting at zero, so that it is the identity at the start.
        dropout: on A.
        backend: of the softmax cross-attention; `attention` has its own options.
        attention: null: softmax, in a kernel that gates. Or an attention block that serves the cross pattern, by name
            and with its options, as in {name: agent, pool: [2, 2, 2]}; its heads are `num_heads`.
    """

    def __init__(
        self,
        channels: int,
        text_channels: int,
        num_heads: int = 1,
        norm: bool = False,
        coordinates: Literal["none", "linear", "fourier"] = "none",
        form: Literal["gate", "residual_gate"] = "gate",
        dropout: float = 0.0,
        backend: Literal["auto", "chunked", "reference", "sdpa", "triton"] = "auto",
        attention: nn.Module | None = None,
    ):
        super().__init__()
        if channels % num_heads:
            raise ValueError(f"num_heads={num_heads} does not divide channels={channels}")
        if attention is not None and backend != "auto":
            raise ValueError(f"backend={backend} is of the gate's own softmax; leave it out, attention has its options")
        self.channels, self.text_channels = channels, text_channels
        self.num_heads = num_heads
        self.form = form
        self.coordinates = coordinates
        self.backend = backend
        self.attention = attention
        self.text = nn.Linear(text_channels, channels)
        self.norm = nn.LayerNorm(channels) if norm else nn.Identity()
        self.position = nn.Linear(3 if coordinates == "linear" else 21, channels) if coordinates != "none" else None
        self.query = nn.Linear(channels, channels)
        self.key = nn.Linear(channels, channels)
        self.value = nn.Linear(channels, channels)
        self.out = nn.Linear(channels, channels)
        self.dropout = nn.Dropout(dropout)
        if form == "residual_gate":
            nn.init.zeros_(self.out.weight)
            nn.init.zeros_(self.out.bias)

    @tells_backend("contextual_gate")
    def forward(self, x: Tensor, tokens: Tensor, mask: Tensor, box: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """X [B, C, Z, Y, X], tokens [B, P, D], mask [B, P] bool (True = a real token) -> x, gated, and the tokens.

        box [E, 2, 3]: where x lies in the whole exam, see `voxel_places`, one for each B/E entries in turn (an exam's
        sentences); None: x is the whole exam.
        """
        check_fusion("contextual_gate", x, tokens, mask, box, channels=self.channels, text_channels=self.text_channels)
        batch, channels, *grid = x.shape
        voxels = x.flatten(2).transpose(1, 2)
        queries = self.norm(voxels)
        if self.position is not None:
            places = self._places((grid[0], grid[1], grid[2]), box, x.device).to(self.position.weight.dtype)
            places = self.position(places).to(queries.dtype)
            # once per exam, not once per sentence: sines of every voxel cost more than the attention
            exams = 1 if box is None else len(box)
            queries = (queries.unflatten(0, (exams, -1)) + places.reshape(exams, 1, -1, channels)).flatten(0, 1)
        text = self.text(tokens)
        keys, values = (self._split(layer(text)) for layer in (self.key, self.value))
        if self.attention is None and self.num_heads == 1 and not (self.training and self.dropout.p):
            return self._fused(x, self._split(self.query(queries)), keys, values, mask), tokens
        if self.attention is not None:
            found, _ = self.attention(
                self._split(self.query(queries)), keys, values, mask=mask, grid=Grid((grid[0], grid[1], grid[2])),
                cross=True,
            )  # fmt: skip
            answer = self.out(found.transpose(1, 2).reshape(batch, -1, channels))
        else:
            answer = self._attended(queries.to(keys.dtype), keys, values, mask)
        answer = self.dropout(answer).transpose(1, 2).reshape(x.shape)
        return x * torch.tanh(answer) if self.form == "gate" else residual_gate(x, answer), tokens

    def _attended(self, queries: Tensor, keys: Tensor, values: Tensor, mask: Tensor) -> Tensor:
        """Queries [B, N, C] before their layer, keys and values [B, H, P, E] -> the answer [B, N, C] after its own.

        Channels first the layers are multiplied without being called: hooks on them are not.
        """
        first = works_channels_first(self._split(queries), values, self.backend)
        q, out = self.query, self.out
        if first:
            voxels = linear_laid_out(queries, q.weight.to(queries), q.bias.to(queries), channels_first=True)
        else:
            voxels = q(queries)
        found = cross_attention(self._split(voxels), keys, values, mask=mask, backend=self.backend)
        if first:
            joined = found.mT.flatten(1, 2).mT
            return linear_laid_out(joined, out.weight.to(joined), out.bias.to(joined), channels_first=False)
        return cast(Tensor, out(found.transpose(1, 2).flatten(2)))

    def _fused(self, x: Tensor, queries: Tensor, keys: Tensor, values: Tensor, mask: Tensor) -> Tensor:
        """The same for one head with nothing dropped: the output layer goes onto the P values, the gate into the
        kernel, and of A [B, N, C] nothing is written."""
        value, seen = fold_output(values, self.out.weight, self.out.bias, mask)
        voxels = x.flatten(2).transpose(1, 2)[:, None]
        gate = "tanh" if self.form == "gate" else "residual_tanh"
        gated = cross_attention(queries, keys, value, mask=seen, x=voxels, gate=gate, backend=self.backend)
        # not gated[:, 0], whose backward would copy the gradient, and turned: voxels first instead of channels first
        return gated.squeeze(1).transpose(1, 2).reshape(x.shape)

    def _split(self, h: Tensor) -> Tensor:
        return h.reshape(*h.shape[:-1], self.num_heads, -1).transpose(1, 2)

    def _places(self, grid_zyx: tuple[int, int, int], box: Tensor | None, device: torch.device) -> Tensor:
        places = voxel_places(grid_zyx, box, device)
        if self.coordinates == "linear":
            return places
        angles = torch.cat([places * (torch.pi * 2.0**octave) for octave in range(3)], dim=-1)
        return torch.cat([places, angles.sin(), angles.cos()], dim=-1)


class NoFusion(nn.Module):
    """Features pass unchanged: the network without text, the control that shows what the text is worth."""

    def __init__(self, channels: int, text_channels: int):
        super().__init__()
        self.channels, self.text_channels = channels, text_channels

    def forward(self, x: Tensor, tokens: Tensor, mask: Tensor, box: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """X [B, C, Z, Y, X] and tokens [B, P, D] as they come; mask [B, P] and box are checked, not read."""
        check_fusion("none", x, tokens, mask, box, channels=self.channels, text_channels=self.text_channels)
        return x, tokens
