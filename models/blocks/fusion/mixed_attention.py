"""MixFormer's mixed attention: voxels read the sentence and each other at once; the sentence may read only itself."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from petground.models.blocks.backend import Backend, served_by, tells_backend
from petground.models.blocks.contract import BlockInputError, check_fusion
from petground.models.blocks.fusion.parts import Attend, Coordinates, FeedForward, Places, dense, flat, updated
from petground.models.blocks.fusion.score_prediction import ScorePrediction

__all__ = ["MixedAttention"]


class MixedAttention(nn.Module):
    """The mixed attention module with its feed-forward (arXiv 2203.11082, section 3.1).

        O_t = softmax(q_t k_t^T / s) v_t               asymmetric; else with [k_t; k_s], [v_t; v_s]
        O_s = softmax(q_s [k_t; k_s]^T / s) [v_t; v_s]

    The templates t are the sentence's tokens, projected to the voxels' width: they have no grid, hence no convolution.
    The search region s are the stage's voxels: a depth-wise 3x3x3 convolution each for q (stride 1), k and v (stride
    `kv_stride`: 2 keeps one key in eight), then the linear maps that templates and search share. s is sqrt(channels),
    as in the released code, or sqrt(channels / num_heads) with full_width=False. The convolutions have no batch norm,
    which would mix sentences. Further templates (a prior lesion's crop) are not built: a decoder stage has none. Score
    prediction is `score`, for a region that a caller has. What is added starts at zero: the identity at the start.

    Args:
        channels: of the voxels.
        text_channels: of the tokens.
        num_heads: must divide channels.
        asymmetric: the paper's choice for tracking: the sentence does not depend on the voxels, and its keys and
            values (`templates`) serve every window of an exam.
        kv_stride: of the convolutions for keys and values.
        full_width: see above.
        score_prediction: a head that says how far a region can be relied on, see `score`; trained on its own.
        coordinates: places added to the voxels before the convolutions.
        backend: of the attention's kernels.
    """

    def __init__(
        self,
        channels: int,
        text_channels: int,
        num_heads: int = 1,
        asymmetric: bool = True,
        kv_stride: int = 2,
        full_width: bool = True,
        score_prediction: bool = False,
        coordinates: Coordinates = "none",
        backend: Backend = "auto",
    ):
        super().__init__()
        if kv_stride < 1:
            raise ValueError(f"kv_stride={kv_stride} must be at least 1")
        self.channels, self.text_channels, self.asymmetric = channels, text_channels, asymmetric
        self.text = nn.Linear(text_channels, channels)
        self.back = nn.Linear(channels, text_channels, bias=False)
        self.norm = nn.LayerNorm(channels)
        self.places = Places(channels, coordinates)
        self.convolve = nn.ModuleDict(
            {
                name: nn.Conv3d(channels, channels, 3, stride, padding=1, groups=channels, bias=False)
                for name, stride in (("q", 1), ("k", kv_stride), ("v", kv_stride))
            }
        )
        self.attend = Attend(channels, num_heads, zero=True, full_width=full_width)
        self.think = FeedForward(channels, zero=True)
        self.judge = ScorePrediction(channels, num_heads) if score_prediction else None
        served_by(backend, self)

    @tells_backend("mixed_attention")
    def forward(self, x: Tensor, tokens: Tensor, mask: Tensor, box: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """X [B, C, Z, Y, X], tokens [B, P, D], mask [B, P] bool, box [E, 2, 3] -> both streams, of the same shapes."""
        check_fusion("mixed_attention", x, tokens, mask, box, channels=self.channels, text_channels=self.text_channels)
        k_t, v_t = self.templates(tokens)
        q_s, k_s, v_s = self._search(x, box)
        changed = self._answer(x, self._mixed(q_s, (k_t, v_t), (k_s, v_s), mask))
        words = self.text(tokens)
        q_t = self.attend.heads(self.attend.query(self.norm(words)))
        if self.asymmetric:
            said = self.attend.read(q_t, k_t, v_t, mask)
        else:
            said = self._mixed(q_t, (k_t, v_t), (k_s, v_s), mask)
        said = said + self.think(words + said)
        return changed, updated(tokens, mask, self.back(said))

    def templates(self, tokens: Tensor) -> tuple[Tensor, Tensor]:
        """The sentence's keys and values [B, H, P, C/H] of tokens [B, P, D]; no voxel is read."""
        states = self.norm(self.text(tokens))
        return self.attend.keys(states, states)

    @tells_backend("mixed_attention")
    def search(self, x: Tensor, k_t: Tensor, v_t: Tensor, mask: Tensor, box: Tensor | None = None) -> Tensor:
        """X [B, C, Z, Y, X] with keys and values that `templates` gave before, mask [B, P] bool -> x, changed."""
        q_s, k_s, v_s = self._search(x, box)
        return self._answer(x, self._mixed(q_s, (k_t, v_t), (k_s, v_s), mask))

    @tells_backend("mixed_attention")
    def score(self, x: Tensor, tokens: Tensor, mask: Tensor, region: Tensor) -> Tensor:
        """X [B, C, Z, Y, X], tokens [B, P, D], mask [B, P], region [B, 2, 3] in -1..1 of x's grid -> [B] in (0, 1).

        Raises BlockInputError without `score_prediction`, and for streams or a region that do not fit.
        """
        if self.judge is None:
            raise BlockInputError("mixed_attention", "score", "has no head", "build it with score_prediction: true")
        check_fusion("mixed_attention", x, tokens, mask, None, channels=self.channels, text_channels=self.text_channels)
        scores: Tensor = self.judge(x, self.text(tokens), mask, region)
        return scores

    def _search(self, x: Tensor, box: Tensor | None) -> tuple[Tensor, Tensor, Tensor]:
        states = dense(self.places(self.norm(flat(x)), x, box), x)
        q, k, v = (flat(self.convolve[name](states)) for name in ("q", "k", "v"))
        return self.attend.heads(self.attend.query(q)), *self.attend.keys(k, v)

    def _mixed(self, q: Tensor, t: tuple[Tensor, Tensor], s: tuple[Tensor, Tensor], mask: Tensor) -> Tensor:
        k, v = (torch.cat([a, b], dim=2) for a, b in zip(t, s, strict=True))
        real = torch.cat([mask, mask.new_ones(len(mask), s[0].shape[2])], dim=1)
        return self.attend.read(q, k, v, real)

    def _answer(self, x: Tensor, attended: Tensor) -> Tensor:
        added = attended + self.think(flat(x) + attended)
        return x + dense(added, x)
