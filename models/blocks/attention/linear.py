"""Linear attention: one formula with a feature map, a decay and a normaliser; its presets are published systems."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor, nn

from petground.kernels._shared.precision import autocast_off
from petground.kernels.linear_attention import linear_attention
from petground.models.blocks.attention.feature_maps import NON_NEGATIVE, FeatureMap, make_features
from petground.models.blocks.attention.head_gates import check_heads
from petground.models.blocks.attention.teacher import softmax_rows, some_rows
from petground.models.blocks.backend import tells_backend
from petground.models.blocks.contract import Grid, check_attention
from petground.models.blocks.own_losses import Calls, hold

__all__ = ["LinearAttention", "attention_distillation", "log_decays", "rms_norm"]


class LinearAttention(nn.Module):
    """o_i = norm(sum_j (phi(q_i) . phi(k_j)) lambda_h^|i-j| psi(v_j)), causal over j <= i, time and memory linear in N.

    Computed in chunks of the tokens with a running state [F, E] (Lightning Attention-2, arXiv 2401.04658, section
    3.2), or as phi(q) (phi(k)^T v) without decay and order. Tokens stand in the grid's C order, z slowest.
    Both directions, |i-j|, are our extension: the papers are causal.

    Own loss, in training, of phi "hedgehog": `attention_distillation` from the softmax of the block's own q and k, for
    64 queries drawn at each step, so that nothing of N x M is held. It trains phi alone: q and k get no gradient of it,
    as the paper's come from a frozen model.

    Args:
        channels: of all heads together.
        num_heads: heads.
        key: the registered name, for messages.
        feature_map: phi, see `feature_maps`; "silu" is that of TransNormerLLM and Lightning Attention.
        value_map: psi: "silu", as Lightning Attention's code, or "identity", as TransNormerLLM's.
        decay: "none": lambda = 1; "heads": log lambda_h = -8 h / H for h = 0..H-1 (TransNormerLLM, arXiv 2307.14995);
            "slopes": log lambda_h = -2^(-8 (h + 1) / H), ALiBi's slopes, as Lightning Attention's code.
        decay_scale: factor on log lambda: the papers' 1 - layer / layers, by which the last layers reach farthest; the
            released code's is 1 - layer / (layers - 1) + 1e-5. 1 is that of the first layer, 0 gives lambda = 1.
        normalize: "sum": rows of weights sum to one (phi must not be negative); "rms": o / rms(o) over the head's
            channels (SRMSNorm of TransNormerLLM); "rms_all": over those of all heads together, as its authors have it:
            a head without decay, whose sums grow with the tokens, then leaves the others little; "none".
        feature_dim: what phi "taylor" projects q and k to, per head; 0: as wide as they are.
        chunk_size: tokens in a chunk. It changes time and memory, not the answer.
        loss_weight: of the distillation; needs feature_map "hedgehog", whose paper first trains by it alone.
        backend: of the kernel.
    """

    def __init__(
        self,
        channels: int,
        num_heads: int = 1,
        key: str = "linear",
        feature_map: FeatureMap = "silu",
        value_map: Literal["identity", "silu"] = "silu",
        decay: Literal["none", "heads", "slopes"] = "none",
        decay_scale: float = 1.0,
        normalize: Literal["none", "sum", "rms", "rms_all"] = "rms",
        feature_dim: int = 16,
        chunk_size: int = 64,
        loss_weight: float = 1.0,
        backend: Literal["auto", "chunked", "reference", "triton"] = "auto",
    ):
        super().__init__()
        if normalize == "sum" and feature_map not in NON_NEGATIVE:
            raise ValueError(
                f"normalize=sum needs weights that are not negative: feature_map {', '.join(NON_NEGATIVE)}"
            )
        if chunk_size < 1 or min(feature_dim, decay_scale, loss_weight) < 0:
            raise ValueError("chunk_size must be at least 1, feature_dim, decay_scale and loss_weight at least 0")
        self.key = key
        self.num_heads, self.head_channels = num_heads, channels // num_heads
        self.normalize = normalize
        self.chunk_size = chunk_size
        self.loss_weight = loss_weight if feature_map == "hedgehog" else 0.0
        self.backend = backend
        self.patterns = ("self", "cross", "causal") if decay == "none" else ("self", "causal")
        self.of_q = make_features(feature_map, num_heads, channels // num_heads, feature_dim)
        self.of_k = make_features(feature_map, num_heads, channels // num_heads, feature_dim)
        self.of_v = make_features(value_map, num_heads, channels // num_heads, feature_dim)
        self.log_decay: Tensor | None
        rates = None if decay == "none" else log_decays(num_heads, decay) * decay_scale
        self.register_buffer("log_decay", rates, persistent=False)

    own_losses: Calls = None

    @tells_backend()
    def forward(
        self,
        q: Tensor,
        k: Tensor,
        v: Tensor,
        *,
        mask: Tensor | None = None,
        bias: Tensor | None = None,
        grid: Grid | None = None,
        causal: bool = False,
        cross: bool = False,
        need_weights: bool = False,
    ) -> tuple[Tensor, Tensor | None]:
        """Q [B, H, N, D], k [B, H, M, D], v [B, H, M, E], mask [B, M] bool True = real -> [B, H, N, E] and the map.

        The map [B, H, N, M] only when asked for and normalize is "sum": else the weights are no shares.
        """
        check_attention(
            self.key,
            q,
            k,
            v,
            mask=mask,
            bias=bias,
            grid=grid,
            causal=causal,
            cross=cross,
            patterns=self.patterns,
            takes_bias=False,
        )
        check_heads(self.key, q, self.num_heads, self.head_channels)
        if self.training and self.loss_weight:
            hold(self, distillation=self.loss_weight * self._distilled(q, k, mask, causal, cross))
        shares, kind = self.normalize == "sum", v.dtype
        # sums, and gradients of shares, may leave float16 where the answer, normalised, lies in it
        wide = torch.float32 if kind == torch.float16 and self.normalize != "none" else kind
        fq, fk, v = (one.to(wide) for one in (self.of_q(q), self.of_k(k), self.of_v(v)))  # autocast widens softmax
        out = linear_attention(
            fq,
            fk,
            v,
            mask=mask,
            log_decay=self.log_decay,
            causal=causal,
            normalize=shares,
            chunk_size=self.chunk_size,
            backend=self.backend,
        )
        weights = self._map(fq, fk, mask, causal).to(kind) if need_weights and shares else None
        if self.normalize.startswith("rms"):
            out = rms_norm(out, (1, 3) if self.normalize == "rms_all" else (3,))
        return out.to(kind), weights

    def _distilled(self, q: Tensor, k: Tensor, mask: Tensor | None, causal: bool, cross: bool) -> Tensor:
        """The distillation of some rows, [B]; a map with features "hedgehog" has no decay."""
        rows = some_rows(q.shape[2], q.device)
        teacher, keep = softmax_rows(q, k, rows, mask, causal=causal, cross=cross)
        fq, fk = self.of_q(q[:, :, rows].detach()), self.of_k(k.detach())
        with autocast_off(q):
            student = fq.to(teacher.dtype) @ fk.to(teacher.dtype).transpose(-1, -2)
        student = student if keep is None else student.masked_fill(~keep, 0.0)
        total = student.sum(dim=-1, keepdim=True).clamp(min=torch.finfo(student.dtype).tiny)
        return attention_distillation(teacher, student / total)

    def _map(self, fq: Tensor, fk: Tensor, mask: Tensor | None, causal: bool) -> Tensor:
        """The operator on unit vectors as values is its own map."""
        count = fk.shape[2]
        units = torch.eye(count, dtype=fq.dtype, device=fq.device).expand(*fk.shape[:2], -1, -1)
        return linear_attention(
            fq, fk, units, mask=mask, log_decay=self.log_decay, causal=causal, normalize=True, backend="reference"
        )


def log_decays(num_heads: int, decay: str) -> Tensor:
    """Log lambda of each head [H], <= 0: "heads" or "slopes", see `LinearAttention`."""
    heads = torch.arange(num_heads, dtype=torch.float64)
    rates = -8.0 * heads / num_heads if decay == "heads" else -(2.0 ** (-8.0 * (heads + 1.0) / num_heads))
    return rates.float()


def rms_norm(x: Tensor, axes: tuple[int, ...] = (-1,), eps: float = 1e-6) -> Tensor:
    """X / sqrt(mean of x^2 over the axes + eps), no parameters; squares leave 16 bits, so worked out in 32."""
    wide = x.to(torch.promote_types(x.dtype, torch.float32))
    return (wide * torch.rsqrt(wide.square().mean(dim=axes, keepdim=True) + eps)).to(x.dtype)


def attention_distillation(teacher: Tensor, student: Tensor) -> Tensor:
    """Cross-entropy -sum_j t_j log(s_j), the mean over heads and rows (Hedgehog, arXiv 2402.04347): [B].

    teacher, student: maps [B, H, N, M] whose rows sum to one; what the teacher never looks at costs nothing. At least
    the teacher's entropy, equal only where the maps are. Rows without keys cost nothing.
    """
    tiny = torch.finfo(student.dtype).tiny
    wide = torch.promote_types(student.dtype, torch.float32)
    cost = -(teacher * student.clamp(min=tiny).log()).sum(dim=-1, dtype=wide)
    real = teacher.sum(dim=-1) > 0
    return (cost * real).sum(dim=(1, 2)) / real.sum(dim=(1, 2)).clamp(min=1)
