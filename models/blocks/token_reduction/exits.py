"""Early exits: a small fusion stack that looks at the voxels layer by layer, and sends them away once it has enough."""

from __future__ import annotations

from typing import Literal, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.functional import cosine_similarity, cross_entropy, kl_div

from petground.kernels._shared.precision import unrounded
from petground.models.blocks.backend import Backend, served_by, tells_backend
from petground.models.blocks.contract import BlockInputError, Grid, Reduced, TextUse, check_tokens
from petground.models.blocks.own_losses import Calls, Outcome, hold
from petground.models.blocks.token_reduction.choose import real_voxels
from petground.models.blocks.token_reduction.latents import Mlp, Read, sentence
from petground.models.blocks.token_reduction.maps import masked_mean

__all__ = ["EarlyExit", "ExitTrace", "exit_label"]

Criterion = Literal["router", "saturation", "confidence"]


class ExitTrace(NamedTuple):
    """What the stack did.

    code: [B, M, C] after the last layer, or where it stopped. voxels: [B, N, C] as they left or came through.
    depth: [B] layers that the voxels went through, `layers` where they never left. code_depth: [B] the same of the code
    (saturation alone lets it stop). logits: [B, layers, 2], stay and leave, of the routers or heads; empty for
    saturation.
    """

    code: Tensor
    voxels: Tensor
    depth: Tensor
    code_depth: Tensor
    logits: Tensor


def exit_label(exited: Tensor, full: Tensor, loss_exited: Tensor, loss_full: Tensor) -> Tensor:
    """Whether an exit was right: 1 where over 99 % of the answers agree and the loss is below 1.03 of the full one.

    Exited and full: answers [B, ...] (masks); losses [B] -> [B] long, what DyVTE's routers learn by cross-entropy with
    `ExitTrace.logits` at the layer of the exit, drawn at random (arXiv 2411.19628, section 3.3).
    """
    agree = (exited == full).flatten(1).double().mean(1) > 0.99
    return (agree & (loss_exited < 1.03 * loss_full)).long()


def absence_loss(logits: Tensor, present: Tensor, temperature: float = 4.0) -> Tensor:
    """What trains Dynamic Perceiver's heads, logits [B, layers, 2] (leave = absent), present [B] 1, 0 or NaN -> [B].

    sum_l w_l CE_l + 0.5 T^2 sum_{l < last} KL(softmax(last / T) || softmax(l / T)), w 1/2 for the last head and 1/4 for
    the others, T 4, as the released code; the teacher, the last head, has no gradient. NaN has no CE.
    """
    last = logits.shape[1] - 1
    absent = present.nan_to_num().lt(0.5).long()[:, None].expand(-1, last + 1)
    told = cross_entropy(logits.flatten(0, 1), absent.flatten(), reduction="none").reshape(-1, last + 1)
    weight = torch.where(torch.arange(last + 1, device=logits.device) == last, 0.5, 0.25)
    teacher = (logits[:, last:].detach() / temperature).log_softmax(-1).expand(-1, last, -1)
    alike = kl_div((logits[:, :last] / temperature).log_softmax(-1), teacher, reduction="none", log_target=True)
    return (told * weight).sum(1) * ~present.isnan() + 0.5 * temperature**2 * alike.sum((1, 2))


class _Layer(nn.Module):
    """One layer: the code reads the voxels and itself, then the voxels read the code (nothing, at first)."""

    def __init__(self, channels: int, heads: int):
        super().__init__()
        self.look = Read(channels, heads)
        self.among = Read(channels, heads)
        self.mlp = Mlp(channels)
        self.back = Read(channels, heads, zero=True)

    def code(self, code: Tensor, real_code: Tensor, voxels: Tensor, real: Tensor, staying: Tensor) -> Tensor:
        """Code after this layer; voxels that are gone (staying [B] False) are not looked at."""
        seen = self.look(code, voxels, real)
        code = code + torch.where(staying[:, None, None], seen, torch.zeros_like(seen))
        return self.alone(code, real_code)

    def alone(self, code: Tensor, real_code: Tensor) -> Tensor:
        """The rest of the layer, without voxels."""
        code = code + self.among(code, code, real_code)
        return code + self.mlp(code)


class EarlyExit(nn.Module):
    """A stack of layers over a code z and the voxels x; the voxels may leave after each layer but the last.

    Layer l: z <- z + Attention(z <- x), z <- z + SelfAttention(z), z <- z + MLP(z), x <- x + Attention(x <- z).
    After layer l of `least` .. layers - 1 all voxels of an exam leave when
    - "router" (DyVTE, arXiv 2411.19628, section 3.2): softmax(Linear(GELU(Linear([mean z ; last z]))))[leave] >
      `threshold` (0.5: the larger logit); z goes on alone. The routers read a detached z and start by staying.
    - "saturation" (MuE, arXiv 2211.11152, section 3.2): cos(x_l, x_{l-1}), the mean over the voxels, > `threshold`. The
      code stops by the same rule for itself, at its own depth; in the paper that spares the text its later layers, here
      it is told alone (`ExitTrace`): the voxels, which are the answer, read the code that goes on.
    - "confidence" (Dynamic Perceiver, arXiv 2306.11248, section 3): the head of layer l on mean z is surer than
      `threshold` that the finding is absent. (The paper leaves with any sure class; a window that surely holds the
      finding still needs its mask.)
    Who has left comes back as zeros with no token: the layer that follows adds nothing, and costs nothing when all of a
    batch have left. Who has not left comes with all voxels, as the stack changed them, each at its place; the last
    Attention of a layer starts at zero, so that at first they are unchanged.

    Nobody leaves while training. A video or language model exits over its own layers; here the stack is small and
    decides for the attention after it. Saturation leaves nobody until a config sets a threshold: layers start by
    changing no voxel, which looks saturated, and the paper's loss on each layer, which would keep an early exit of use,
    is not here. Cost: layers N C^2 + layers N M C.

    Args:
        channels: of the tokens.
        key: the name in messages.
        criterion: see above.
        code: "text", z are the sentence's tokens, which must be given; "latents", learnt ones plus the mean word.
        threshold: above 1: never; below 0 (saturation: below -1): after the first `least` layers. By default 0.5 for
            the router, 0.9 for confidence; 1 for saturation, never, as no cosine is above it.
        layers: of the stack.
        least: layers that everyone goes through.
        heads: must divide channels.
        latents: of the learnt code.
        hidden: width of the routers.
        loss_weight: of the heads' own loss, `absence_loss`, in training: "confidence" only. Routers learn apart, on a
            frozen network, by `exit_label` as in their paper (from Python only), and until then let all stay;
            saturation needs no head.
        backend: of the attention's kernels.
    """

    def __init__(
        self,
        channels: int,
        key: str,
        criterion: Criterion,
        code: Literal["text", "latents"],
        threshold: float | None = None,
        layers: int = 2,
        least: int = 1,
        heads: int = 1,
        latents: int = 16,
        hidden: int = 64,
        loss_weight: float = 1.0,
        backend: Backend = "auto",
    ):
        super().__init__()
        if not 1 <= least <= layers or latents < 1 or hidden < 1 or loss_weight < 0:
            raise ValueError(f"least={least} not in 1..layers={layers}, latents or hidden below 1, or loss_weight < 0")
        self.key, self.loss_weight = key, loss_weight
        self.criterion = criterion
        self.text_use: TextUse = "needs" if code == "text" else "reads"
        self.threshold = (
            {"router": 0.5, "saturation": 1.0, "confidence": 0.9}[criterion] if threshold is None else threshold
        )
        self.least = least
        self.layers = nn.ModuleList(_Layer(channels, heads) for _ in range(layers))
        self.latents = nn.Parameter(0.02 * torch.randn(latents, channels)) if code == "latents" else None
        self.words = nn.Linear(channels, channels) if code == "latents" else None
        self.judges = nn.ModuleList(
            [] if criterion == "saturation" else [_judge(channels, criterion, hidden) for _ in range(layers)]
        )
        served_by(backend, self)

    own_losses: Calls = None

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
        """Tokens [B, N, C], mask [B, N] bool, text [B, P, C] -> Reduced with all voxels of an exam or none."""
        check_tokens(self.key, tokens, mask=mask, scores=scores, grid=grid, text=text, text_mask=text_mask)
        trace = self.trace(tokens, mask=mask, text=text, text_mask=text_mask)
        if self.training and self.criterion == "confidence" and self.loss_weight:
            hold(self, logits=trace.logits)
        stay = trace.depth == len(self.layers)
        batch, count, _ = tokens.shape
        if not _any(stay):  # nothing is left to compute on
            gone = stay[:, None]
            return Reduced(
                tokens.new_zeros(batch, 1, tokens.shape[2]),
                gone,
                torch.full_like(gone, -1, dtype=torch.long),
                lambda values: (0.0 * values).expand(-1, count, -1),
            )
        here = real_voxels(tokens, mask) & stay[:, None]
        places = torch.arange(count, device=tokens.device).expand(batch, -1)
        return Reduced(
            trace.voxels.masked_fill(~here[..., None], 0.0),
            here,
            places,
            lambda v: v.masked_fill(~here[..., None], 0.0),
        )

    def outcome_losses(self, held: dict[str, Tensor], outcome: Outcome) -> dict[str, Tensor]:
        """The heads' loss [B] with what was there; `held` has the logits of a training forward."""
        logits = held["logits"].float()
        _, present = outcome.of(len(logits))
        return {"heads": self.loss_weight * absence_loss(logits, present)}

    def trace(
        self,
        tokens: Tensor,
        *,
        mask: Tensor | None = None,
        text: Tensor | None = None,
        text_mask: Tensor | None = None,
    ) -> ExitTrace:
        """The stack on tokens [B, N, C]; its depths are what an evaluation logs."""
        real = real_voxels(tokens, mask)
        code, real_code = self._code(tokens, text, text_mask)
        answer, voxels = code, tokens.masked_fill(~real[..., None], 0.0)
        staying = torch.ones(len(tokens), dtype=torch.bool, device=tokens.device)
        going_on = staying
        depth = torch.zeros(len(tokens), dtype=torch.long, device=tokens.device)
        code_depth = depth
        logits = []
        for number, layer in enumerate(self.layers, start=1):
            assert isinstance(layer, _Layer)
            before, voxels_before = code, voxels
            read = staying if self.criterion == "router" else torch.ones_like(staying)
            new = layer.code(code, real_code, voxels, real, read) if _any(read) else layer.alone(code, real_code)
            code = new.to(code.dtype)
            answer = torch.where(going_on[:, None, None], code, answer)
            depth, code_depth = depth + staying.long(), code_depth + going_on.long()
            if _any(staying):
                changed = voxels + layer.back(voxels, code, real_code).to(voxels.dtype)
                voxels = torch.where((staying[:, None] & real)[..., None], changed, voxels)
            if self.judges:
                logits.append(self._judged(number - 1, code, real_code))
            if self.training or not self.least <= number < len(self.layers):
                continue
            if self.criterion == "saturation":
                going_on = going_on & ~(_alike(code, before, real_code) > self.threshold)
                staying = staying & ~(_alike(voxels, voxels_before, real) > self.threshold)
            else:
                staying = staying & ~(logits[-1].softmax(-1)[:, 1] > self.threshold)
        judged = torch.stack(logits, 1) if logits else tokens.new_zeros(len(tokens), 0, 2)
        return ExitTrace(answer, voxels, depth, code_depth, judged)

    def _code(self, tokens: Tensor, text: Tensor | None, text_mask: Tensor | None) -> tuple[Tensor, Tensor]:
        words = sentence(self.key, tokens, text, text_mask)
        if self.latents is None or self.words is None:
            if words is None:
                raise BlockInputError(self.key, "text", "is missing", "give the sentence's tokens [B, P, C]")
            return words
        code = self.latents.expand(len(tokens), -1, -1)
        if words is not None:
            code = code + self.words(masked_mean(*words))[:, None]
        return code.to(tokens.dtype), torch.ones(code.shape[:2], dtype=torch.bool, device=tokens.device)

    def _judged(self, number: int, code: Tensor, real: Tensor) -> Tensor:
        """Logits [B, 2]: stay, leave."""
        mean = masked_mean(code, real)
        if self.criterion == "confidence":
            said: Tensor = self.judges[number](mean)
            return said
        last = (torch.arange(real.shape[1], device=real.device) * real).amax(1)
        final = code.gather(1, last[:, None, None].expand(-1, -1, code.shape[2]))[:, 0]
        said = self.judges[number](torch.cat([mean, final], -1).detach())
        return said


def _judge(channels: int, criterion: Criterion, hidden: int) -> nn.Module:
    if criterion == "confidence":
        last = nn.Linear(channels, 2)
        module: nn.Module = nn.Sequential(nn.LayerNorm(channels), last)
    else:
        last = nn.Linear(hidden, 2)
        module = nn.Sequential(nn.Linear(2 * channels, hidden), nn.GELU(), last)
    nn.init.zeros_(last.weight)
    with torch.no_grad():
        last.bias.copy_(torch.tensor([1.0, -1.0]))  # stay, until trained to leave
    return module


def _any(staying: Tensor) -> bool:
    """Whether anybody stays. A compiled graph cannot look: there somebody may, and who has left is masked as ever."""
    return torch.compiler.is_compiling() or bool(staying.any())


@unrounded
def _alike(new: Tensor, old: Tensor, real: Tensor) -> Tensor:
    """Mean cosine of the real tokens of two states [B, N, C]: [B]."""
    cosine = cosine_similarity(new, old, dim=-1)[..., None]
    return masked_mean(cosine, real)[:, 0].clamp(-1.0, 1.0)
