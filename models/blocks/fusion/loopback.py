"""DeRIS' loopback: queries propose lesions on the voxels, the text judges which are meant, and again."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.functional import binary_cross_entropy_with_logits

from petground.kernels.sdpa import masked_sdpa
from petground.models.blocks.backend import Backend, served_by, tells_backend
from petground.models.blocks.contract import check_fusion
from petground.models.blocks.fusion.parts import (
    Attend,
    Coordinates,
    FeedForward,
    Places,
    TransformerLayer,
    dense,
    flat,
    updated,
    zeroed,
)
from petground.models.blocks.own_losses import Calls, Outcome, hold

__all__ = ["Loopback", "Referred", "union"]


class Referred(NamedTuple):
    """What the queries found: queries [B, Q, C]; masks, logits [B, Q, N]; refer, logits [B, Q]; exists, logits [B]."""

    queries: Tensor
    masks: Tensor
    refer: Tensor
    exists: Tensor


def union(referred: Referred, threshold: float | None) -> Tensor:
    """Sigma(exists) (1 - prod_q (1 - refer_q mask_qn)), [B, N] in 0..1; zero where existence is below a threshold."""
    shares = referred.refer.sigmoid()[..., None] * referred.masks.sigmoid()
    exists = referred.exists.sigmoid()
    if threshold is not None:
        exists = torch.where(exists < threshold, torch.zeros_like(exists), exists)
    return exists[:, None] * (1.0 - (1.0 - shares).prod(dim=1))


class Loopback(nn.Module):
    """Perception and cognition that hand their queries to each other, K rounds (arXiv 2507.01738, section 3).

        perception   q += MaskedCross(q; voxels),  q += Self(q),  q += FF(q),  m_q = <MLP(q), voxels>
        cognition    [T; q] = Layer([T; q]),  refer_q = Linear(q),  exists = Linear(mean of the real T and of q)
        after K rounds   U_n = sigma(exists) (1 - prod_q (1 - sigma(refer_q) sigma(m_qn)))
        x_n' = x_n + U_n W_o sum_q w_qn q,   w_qn = refer_q m_qn, normalised over q

    Perception is one layer of Mask2Former on the stage's voxels (the paper: a Swin backbone with several), cognition
    one transformer layer over the sentence's tokens and the queries (the paper: BEiT-3). Both have the same weights in
    every round, so that K=1 is the one-pass model of the same state. The masks are not the network's answer but say
    where the referred queries' features are added; W_o and the text's way back start at zero: the identity at the
    start. In evaluation a sentence whose existence is below `threshold` changes no voxel. Existence has a loss of its
    own in training: its cross-entropy with whether the exam has what the sentence tells of. The paper's augmentation
    (a referent made non-referent by a mismatched sentence) is the training's absent sentences: denied by the report, of
    the other side, or of other exams about a place that it does not tell of; they come with present 0 and an empty
    target.

    Args:
        channels: of the voxels.
        text_channels: of the tokens.
        num_heads: must divide channels.
        queries: Q, how many lesions can be proposed.
        rounds: K.
        threshold: of the existence's probability, in evaluation.
        loss_weight: of the existence's loss; the paper's was not found. 0: it learns by what it lets through alone.
        coordinates: places added to the voxels' keys.
        backend: of the attention's kernels; attention within masks is PyTorch's own.
    """

    key = "loopback"
    own_losses: Calls = None

    def __init__(
        self,
        channels: int,
        text_channels: int,
        num_heads: int = 1,
        queries: int = 16,
        rounds: int = 3,
        threshold: float = 0.5,
        loss_weight: float = 1.0,
        coordinates: Coordinates = "none",
        backend: Backend = "auto",
    ):
        super().__init__()
        if queries < 1 or rounds < 1 or not 0 <= threshold <= 1:
            raise ValueError(f"queries={queries}, rounds={rounds} at least 1, threshold={threshold} in 0..1")
        if loss_weight < 0:
            raise ValueError(f"loss_weight={loss_weight} must be at least 0")
        self.channels, self.text_channels = channels, text_channels
        self.rounds, self.threshold, self.loss_weight = rounds, threshold, loss_weight
        self.text = nn.Linear(text_channels, channels)
        self.back = zeroed(nn.Linear(channels, text_channels, bias=False))
        self.norm = nn.LayerNorm(channels)
        self.places = Places(channels, coordinates)
        self.queries = nn.Parameter(torch.randn(queries, channels))
        self.perception = Perception(channels, num_heads)
        self.cognition = TransformerLayer(channels, num_heads)
        self.refer = nn.Linear(channels, 1)
        self.exists = nn.Linear(2 * channels, 1)
        self.out = zeroed(nn.Linear(channels, channels, bias=False))
        served_by(backend, self)

    @tells_backend()
    def forward(self, x: Tensor, tokens: Tensor, mask: Tensor, box: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """X [B, C, Z, Y, X], tokens [B, P, D], mask [B, P] bool, box [E, 2, 3] -> both streams, of the same shapes."""
        check_fusion(self.key, x, tokens, mask, box, channels=self.channels, text_channels=self.text_channels)
        words = self.text(tokens)
        said, referred = self.loop(x, words, mask, box)
        if self.training and self.loss_weight:
            hold(self, exists=referred.exists)
        shares = referred.refer.sigmoid()[..., None] * referred.masks.sigmoid()
        shares = shares / shares.sum(dim=1, keepdim=True).clamp(min=torch.finfo(shares.dtype).tiny)
        found = union(referred, None if self.training else self.threshold)
        added = found[..., None] * (shares.transpose(1, 2) @ self.out(referred.queries).to(shares.dtype))
        return x + dense(added, x), updated(tokens, mask, self.back(said - words))

    def outcome_losses(self, held: dict[str, Tensor], outcome: Outcome) -> dict[str, Tensor]:
        """The existence's loss by exam [B], mean over its sentences of which it is known; `held` has the logits."""
        logits = held["exists"].float()
        _, present = outcome.of(len(logits))
        judged = (~present.isnan()).float()
        each = judged * binary_cross_entropy_with_logits(logits, present.nan_to_num(), reduction="none")
        each, judged = (one.reshape(len(outcome.present), -1).sum(dim=1) for one in (each, judged))
        return {"existence": self.loss_weight * each / judged.clamp(min=1.0)}

    def loop(self, x: Tensor, words: Tensor, mask: Tensor, box: Tensor | None = None) -> tuple[Tensor, Referred]:
        """X [B, C, Z, Y, X], words [B, P, C], mask [B, P] bool -> words and what is referred to, after all rounds."""
        values = self.norm(flat(x))
        keys = self.places(values, x, box)
        queries = self.queries.to(values.dtype).expand(len(x), -1, -1)
        count, masks = words.shape[1], None
        real = torch.cat([mask, mask.new_ones(queries.shape[:2])], dim=1)
        for _ in range(self.rounds):
            queries, masks = self.perception(queries, keys, values, masks)
            states = self.cognition(torch.cat([words, queries], dim=1), real)
            words, queries = states[:, :count], states[:, count:]
        weight = mask[..., None].to(words.dtype)
        meaning = (words * weight).sum(dim=1) / weight.sum(dim=1).clamp(min=1.0)
        exists = self.exists(torch.cat([meaning, queries.mean(dim=1)], dim=-1))[:, 0]
        return words, Referred(queries, self.perception.masks(queries, values), self.refer(queries)[..., 0], exists)


class Perception(nn.Module):
    """Mask2Former's decoder layer (arXiv 2112.01527, section 3.2.1): queries look only where their masks are so far."""

    def __init__(self, channels: int, num_heads: int):
        super().__init__()
        self.norm_cross = nn.LayerNorm(channels)
        self.cross = Attend(channels, num_heads)
        self.norm_self = nn.LayerNorm(channels)
        self.among = Attend(channels, num_heads)
        self.think = FeedForward(channels)
        self.norm = nn.LayerNorm(channels)
        self.mask = nn.Sequential(nn.Linear(channels, channels), nn.ReLU(), nn.Linear(channels, channels))

    def forward(self, queries: Tensor, keys: Tensor, values: Tensor, masks: Tensor | None) -> tuple[Tensor, Tensor]:
        """Queries [B, Q, C], keys and values [B, N, C], mask logits so far [B, Q, N] -> queries and new mask logits."""
        q = self.cross.heads(self.cross.query(self.norm_cross(queries)))
        k, v = self.cross.keys(keys, values)
        allowed = None
        if masks is not None:  # a query with an empty mask looks everywhere
            inside = masks.detach() > 0
            allowed = (inside | ~inside.any(dim=-1, keepdim=True))[:, None]
        looked = masked_sdpa(q, k, v, allowed)
        queries = queries + self.cross.out(looked.transpose(1, 2).flatten(2))
        states = self.norm_self(queries)
        queries = queries + self.among(states, states)
        queries = queries + self.think(queries)
        return queries, self.masks(queries, values)

    def masks(self, queries: Tensor, values: Tensor) -> Tensor:
        """Queries [B, Q, C], voxels [B, N, C] -> logits [B, Q, N]."""
        asked: Tensor = self.mask(self.norm(queries))
        return asked @ values.to(asked.dtype).transpose(1, 2) * values.shape[-1] ** -0.5
