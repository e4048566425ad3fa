"""A sentence's policy over voxels: each is kept or dropped by itself, and the map is the explanation."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor, nn

from petground.models.blocks.backend import TokenBackend, tells_backend
from petground.models.blocks.contract import Grid, Reduced, TextUse, check_tokens
from petground.models.blocks.own_losses import Calls, Outcome, hold
from petground.models.blocks.token_reduction.choose import real_voxels
from petground.models.blocks.token_reduction.maps import masked_mean, split_heads
from petground.models.blocks.token_reduction.rest import keep_and_drop, width_of

__all__ = ["Interpreter", "action_log_prob", "reinforce_loss", "reward"]


def action_log_prob(probability: Tensor, keep: Tensor, real: Tensor) -> Tensor:
    """The policy's log pi(keep) = sum of log I where kept, log(1 - I) where dropped: all [B, N] -> [B]."""
    probability = probability.to(torch.promote_types(probability.dtype, torch.float32))  # 16 bits lose 1 - I, and sums
    smallest = torch.finfo(probability.dtype).tiny
    taken = torch.where(keep, probability, 1 - probability)
    return taken.clamp(min=smallest).log().masked_fill(~real, 0.0).sum(dim=1)


def reward(keep: Tensor, real: Tensor, correct: Tensor, tau: float = 0.5) -> Tensor:
    """1 - (kept / N)^2 where the answer was right, else -tau: keep, real [B, N] bool, correct [B] -> [B].

    correct may be a share, of the right answers of an exam's sentences: then it is their mean reward.
    """
    share = keep.sum(dim=1) / real.sum(dim=1).clamp(min=1)
    right = correct.to(share.dtype)
    return right * (1 - share.square()) - (1 - right) * tau


def reinforce_loss(log_prob: Tensor, gained: Tensor, baseline: Tensor | float = 0.0) -> Tensor:
    """Its mean has REINFORCE's gradient: -(R - b) log pi, [B] each -> [B]."""
    return -(gained - baseline).detach() * log_prob


class Interpreter(nn.Module):
    """I_n = mean_h sigmoid(F_q(x_n)^h . F_k(p)^h); a voxel stays where I_n >= threshold, p the sentence's pooled state.

    IA-RED2, arXiv 2106.12620, section 3.2 (multi-head interpreter). F_q, F_k: one linear layer each over all channels,
    then split into heads; F_q starts at zero, so that I = 1/2 and everything stays (hence >=, not the paper's >).
    Where there is no sentence a learned policy token takes its place, as in the paper. The paper's three groups are
    calls one after another, the keep map of one (`keep_map`) the mask of the next: what is dropped stays dropped. The
    dropped get zeros back: added to a residual they keep their last value. `scores` are not read.

    Training: "straight_through" multiplies a kept token by 1 + I - stopgrad(I), which is 1: any loss then reaches the
    policy through the voxels it kept. "reinforce" is the paper's: in training mode voxels are drawn with probability I,
    and the block's own loss, `reinforce_loss` of the `reward`, trains the policy and how it reads the sentence; the
    voxels get no gradient of it, as the paper trains policy and network in turn. Right is an answer whose highest voxel
    lies in the lesion, or which marks nothing where there is none. The baseline is a moving mean of the rewards (a
    step's counts a tenth), saved with the weights. The loss is divided by N: the paper has 196, a patch thousands.

    Args:
        channels: of the tokens.
        threshold: 0 keeps all.
        policy: "text": the sentence; "learned": one token for all.
        estimator: how the policy is trained.
        heads: of the interpreter; must divide channels.
        tau: what a wrong answer costs.
        loss_weight: of the policy's loss, "reinforce" only.
        backend: of the kernels that choose and gather tokens.
    """

    key = "ia_red2"
    own_losses: Calls = None

    def __init__(
        self,
        channels: int,
        threshold: float = 0.5,
        policy: Literal["text", "learned"] = "text",
        estimator: Literal["straight_through", "reinforce"] = "straight_through",
        heads: int = 1,
        tau: float = 0.5,
        loss_weight: float = 1.0,
        backend: TokenBackend = "auto",
    ):
        super().__init__()
        split_heads(self.key, channels, heads)
        if not 0 <= threshold <= 1 or min(tau, loss_weight) < 0:
            raise ValueError(f"{self.key}: threshold={threshold} not in 0..1, or tau or loss_weight negative")
        self.threshold = threshold
        self.policy = policy
        self.text_use: TextUse = "needs" if policy == "text" else "ignores"
        self.estimator = estimator
        self.heads = heads
        self.query = nn.Linear(channels, channels)
        self.asked = nn.Linear(channels, channels)
        nn.init.zeros_(self.query.weight)
        nn.init.zeros_(self.query.bias)
        self.policy_token = nn.Parameter(0.02 * torch.randn(channels))
        self.tau, self.loss_weight = tau, loss_weight
        self.baseline: Tensor | None
        self.register_buffer("baseline", torch.zeros(()) if estimator == "reinforce" else None)
        self.backend = backend

    def probability(self, tokens: Tensor, text: Tensor | None, text_mask: Tensor | None) -> Tensor:
        """I [B, N]: tokens [B, N, C], text [B, P, C]."""
        pooled = self.policy_token.expand(tokens.shape[0], -1)
        if text is not None and self.policy == "text":
            mean = masked_mean(text, text_mask)
            pooled = mean if text_mask is None else torch.where(text_mask.any(dim=1, keepdim=True), mean, pooled)
        q = self.query(tokens).unflatten(-1, (self.heads, -1))
        k = self.asked(pooled).unflatten(-1, (self.heads, -1))
        return (q * k[:, None]).sum(dim=-1).sigmoid().mean(dim=-1)

    @tells_backend()
    def forward(
        self,
        tokens: Tensor,
        *,
        scores: Tensor | None = None,
        mask: Tensor | None = None,
        grid: Grid | None = None,
        text: Tensor | None = None,
        text_mask: Tensor | None = None,
    ) -> Reduced:
        """Tokens [B, N, C], mask [B, N] bool, text [B, P, C] -> Reduced; exams may keep different numbers."""
        check_tokens(self.key, tokens, mask=mask, scores=scores, grid=grid, text=text, text_mask=text_mask)
        real = real_voxels(tokens, mask)
        drawn = self.training and self.estimator == "reinforce"
        probability = self.probability(tokens.detach() if drawn else tokens, text, text_mask)
        if drawn:
            keep = torch.bernoulli(probability).bool() & real
            if self.loss_weight:
                hold(self, log_prob=action_log_prob(probability, keep, real), keep=keep, real=real)
            return keep_and_drop(tokens, keep, width_of(keep), self.backend)
        keep = (probability.detach() >= self.threshold) & real
        through = tokens * (1 + (probability - probability.detach()))[..., None]
        return keep_and_drop(through, keep, width_of(keep), self.backend)

    def outcome_losses(self, held: dict[str, Tensor], outcome: Outcome) -> dict[str, Tensor]:
        """The policy's loss [B] of voxels that a training forward drew; its reward moves the baseline."""
        assert self.baseline is not None
        keep, real = held["keep"], held["real"]
        gained = reward(keep, real, outcome.of(len(keep))[0], self.tau)
        loss = reinforce_loss(held["log_prob"], gained, self.baseline) / real.sum(dim=1).clamp(min=1)
        self.baseline.lerp_(gained.mean().to(self.baseline.dtype), 0.1)
        return {"policy": self.loss_weight * loss}


def keep_map(reduced: Reduced, count: int) -> Tensor:
    """The voxels that a reduction kept, as a mask [B, count] for the next one."""
    places = reduced.kept.masked_fill(~reduced.mask, -1) + 1
    dense = torch.zeros(places.shape[0], count + 1, dtype=torch.bool, device=places.device)
    return dense.scatter(1, places, True)[:, 1:]
