"""Every registered block, named in a config, at any decoder stage of the grounding network."""

from __future__ import annotations

import fnmatch
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from petground.models.grounding import GroundingNet
from petground.models.net_config import NetConfig
from petground.models.registry import BLOCKS, BlockError
from tests.models.conformance import examples
from tests.models.conformance.idle import blocks_of, declared, without_gradient

SMALL: dict[str, Any] = {"features": [4, 8, 8], "blocks_per_stage": 1, "decoder_convs": 1, "fusion_stages": [0, 1]}


def _answer(config: NetConfig) -> torch.Tensor:
    torch.manual_seed(0)
    net = GroundingNet(config, text_channels=6)
    torch.manual_seed(1)
    image, tokens = torch.rand(1, 2, 4, 8, 12), torch.randn(1, 2, 5, 6)
    out = net(image, tokens, torch.ones(1, 2, 5, dtype=torch.bool))
    out.square().mean().backward()
    assert torch.isfinite(out).all()
    without = without_gradient(net)
    assert without == declared(without, blocks_of(config))  # training on several devices has to know
    return out.detach()


@pytest.mark.parametrize("stage", [0, 1])
@pytest.mark.parametrize("key", [key for key, block in BLOCKS["attention"].items() if "self" in block.patterns])
def test_attention_at_a_stage(key: str, stage: int) -> None:
    block = {"name": key, "num_heads": 2, "stages": [stage], **examples.ATTENTION.get(key, {})}
    assert _answer(NetConfig(**SMALL, attention=block)).shape == (1, 2, 4, 8, 12)


@pytest.mark.parametrize("key", list(BLOCKS["token_reduction"]))
def test_reduction_before_softmax(key: str) -> None:
    reduction = {"name": key, **examples.TOKEN_REDUCTION.get(key, {})}
    attention = {"name": "softmax", "num_heads": 2, "stages": [1]}
    assert _answer(NetConfig(**SMALL, attention=attention, token_reduction=reduction)).shape == (1, 2, 4, 8, 12)


@pytest.mark.parametrize("key", list(BLOCKS["token_reduction"]))
def test_reduction_under_autocast(key: str) -> None:
    """As `trainer.precision: bf16-mixed` runs it: norms give float32, linear layers bfloat16."""
    reduction = {"name": key, **examples.TOKEN_REDUCTION.get(key, {})}
    config = NetConfig(**SMALL, attention={"name": "softmax", "num_heads": 2, "stages": [1]}, token_reduction=reduction)
    with torch.autocast("cpu", torch.bfloat16):
        assert _answer(config).dtype == torch.bfloat16


@pytest.mark.parametrize("key", list(BLOCKS.get("mixer", {})))
def test_mixer_at_a_stage(key: str) -> None:
    mixer = {"name": key, "stages": [0], **examples.MIXER.get(key, {})}
    assert _answer(NetConfig(**SMALL, mixer=mixer)).shape == (1, 2, 4, 8, 12)


@pytest.mark.parametrize("stage", [0, 1])
@pytest.mark.parametrize("key", list(BLOCKS["fusion"]))
def test_fusion_at_a_stage(key: str, stage: int) -> None:
    """By name at any decoder stage, by itself and checkpointed; sentences do not see each other."""
    fusion = {"name": key, **examples.FUSION.get(key, {})}
    config = NetConfig(**{**SMALL, "fusion_stages": [stage]}, fusion=fusion, coarse_heads=stage > 0)
    assert _answer(config).shape == (1, 2, 4, 8, 12)
    torch.manual_seed(0)
    net = GroundingNet(config, text_channels=6).double().eval()
    for parameter in net.parameters():
        parameter.data.add_(0.1 * torch.randn_like(parameter))
    image, tokens = torch.rand(2, 2, 4, 8, 12).double(), torch.randn(2, 3, 5, 6).double()
    mask = torch.rand(2, 3, 5) > 0.3
    with torch.no_grad():
        together = net(image, tokens, mask)
        for sentence in range(3):
            part = slice(sentence, sentence + 1)
            alone = net(image, tokens[:, part], mask[:, part])
            assert torch.allclose(alone[:, 0], together[:, sentence], atol=1e-9)
    net.config = net.decoder.config = replace(config, checkpointing=True)
    again = net(image, tokens, mask)
    assert torch.allclose(again, together, atol=1e-12)
    again.square().mean().backward()


IDLE = [  # with what it shows
    # one layer, the last: those before it get gradients
    *(
        ("fusion", key, {"layers": 1} if key == "lxmert_cross" else {})
        for key, block in BLOCKS["fusion"].items()
        if "tokens" in block.serves
    ),
    ("attention", "aaren", {}),
    ("attention", "agent", {}),
    ("gate", "kmeans_cross", {}),
    ("attention", "landmark", {"block": [0, 0, 0], "block_tokens": 96}),
    ("attention", "sparsifiner", {}),
    ("token_reduction", "evit_fuse", {"keep": 1.0}),
    ("token_reduction", "cls_topk", {"query": "text"}),
    ("token_reduction", "cls_topk_ensemble", {"query": "text"}),
    ("token_reduction", "flowcut", {"query": "text"}),
    *(
        ("token_reduction", key, {})
        for key in ("gsearch_psigmoid", "token_transition", "aim_merge_prune", "recoverable_compression")
    ),
    ("token_reduction", "ia_red2", {"estimator": "reinforce"}),
    ("token_reduction", "dyn_perceiver", {}),
    ("token_reduction", "dyvte_exit", {}),
    ("token_reduction", "sparseformer_roi", {}),
]
SHARED: dict[str, Any] = {**SMALL, "fusion_stages": [1], "coarse_heads": True, "shared_stages": 1}


@pytest.mark.parametrize(("slot", "key", "options"), IDLE, ids=[key for _, key, _ in IDLE])
def test_parameters_without_a_gradient_are_declared(slot: str, key: str, options: dict[str, Any]) -> None:
    """Exactly those, at each stage that has any; that no others are without one, `_answer` asks of all blocks."""
    block = {"name": key, **getattr(examples, slot.upper(), {}).get(key, {}), **options}
    blocks = {"attention": {"name": "softmax", "num_heads": 2, "stages": [1]}, slot: block}
    if slot == "attention":
        blocks = {"attention": {**block, "num_heads": 2, "stages": [1]}, "token_reduction": {"name": "none"}}
    if slot == "gate":
        gate = {"name": "contextual_gate", "norm": True, "coordinates": "fourier"}
        blocks = {"fusion": {**gate, "attention": block}}
    small = SMALL
    if key in ("dyn_perceiver", "sparseformer_roi"):  # in a stage without text
        small, blocks["attention"]["stages"] = SHARED, [0]
    torch.manual_seed(0)
    net = GroundingNet(NetConfig(**small, **blocks), text_channels=6)
    net(torch.rand(1, 2, 4, 8, 12), torch.randn(1, 2, 5, 6), torch.ones(1, 2, 5, dtype=torch.bool)).sum().backward()
    without = without_gradient(net)
    assert [one for one in net.config.idle if one.startswith(f"{key}: ")]
    names = [name for name, _ in net.named_parameters() if _stage(name) in set(map(_stage, without))]
    block_of = [blocks[key] for blocks in BLOCKS.values() if key in blocks]
    assert without == declared(names, block_of)
    for pattern in block_of[0].idle:
        assert fnmatch.filter(without, f"*.{pattern}"), pattern


def _stage(name: str) -> str:
    """Of a parameter in the network, "decoder.stages.1"."""
    return ".".join(name.split(".")[:3])


def test_every_declaration_is_shown() -> None:
    declared = {key for blocks in BLOCKS.values() for key, block in blocks.items() if block.idle}
    assert declared == {key for _, key, _ in IDLE}


@pytest.mark.parametrize("stage", [0, 1])
@pytest.mark.parametrize("key", list(BLOCKS["token_reduction"]))
def test_stages_without_text_take_what_needs_none(key: str, stage: int) -> None:
    """The shared stage runs once per exam: nothing there asks the sentence, nor has parameters for it."""
    reduction = {"name": key, **examples.TOKEN_REDUCTION.get(key, {})}
    blocks = {"attention": {"name": "softmax", "num_heads": 2, "stages": [stage]}, "token_reduction": reduction}
    if stage == 0 and key in ("evit_fuse", "gsearch_psigmoid", "ia_red2", "dyvte_exit", "mue_exit"):
        with pytest.raises(BlockError, match=f"'{key}' asks the sentence.*shared_stages 1"):
            NetConfig(**SHARED, **blocks)
        return
    config = NetConfig(**SHARED, **blocks)
    assert _answer(config).shape == (1, 2, 4, 8, 12)
    if stage == 0:
        assert GroundingNet(config, text_channels=6).decoder.stages[1].voxels.text is None


def test_a_reduction_told_not_to_ask_may_stand_in_a_stage_without_text() -> None:
    attention = {"name": "softmax", "num_heads": 2, "stages": [0]}
    for reduction in ({"name": "evit_fuse", "query": "mean"}, {"name": "ia_red2", "policy": "learned"}):
        _answer(NetConfig(**SHARED, attention=attention, token_reduction=reduction))


def test_finer_stages_read_the_tokens_as_coarser_ones_left_them() -> None:
    """Per sentence, with the mask as it came; the attention's reduction reads the same tokens."""

    class Marks(nn.Module):
        def __init__(self, by: float):
            super().__init__()
            self.by, self.read = by, []

        def forward(self, x: Tensor, tokens: Tensor, mask: Tensor, box: Tensor | None = None) -> tuple[Tensor, Tensor]:
            self.read.append((tokens, mask))
            return x, tokens + self.by

    net = GroundingNet(NetConfig(**{**SMALL, "features": [4, 8, 8, 8], "fusion_stages": [0, 1, 2]}), text_channels=6)
    marks = [Marks(10.0), Marks(100.0), Marks(1000.0)]
    for stage, mark in zip(net.decoder.stages, marks, strict=True):
        stage.fusion = mark
    tokens, mask = torch.randn(1, 2, 5, 6), torch.rand(1, 2, 5) > 0.3
    net(torch.rand(1, 2, 8, 8, 16), tokens, mask)
    for mark, before in zip(marks, (0.0, 10.0, 110.0), strict=True):
        ((read, read_mask),) = mark.read
        assert torch.allclose(read, tokens[0] + before)
        assert torch.equal(read_mask, mask[0])


@pytest.mark.parametrize("key", [key for key, block in BLOCKS["fusion"].items() if "skip" in block.serves])
def test_fusions_that_read_the_skip_get_the_encoders_features(key: str) -> None:
    """As the encoder gives them, not convolved; the convolution of the skip still reaches the stage."""
    fusion = {"name": key, **examples.FUSION[key]}
    net = GroundingNet(NetConfig(**SMALL, fusion=fusion), text_channels=6).eval()
    read = []
    net.decoder.stages[1].fusion.register_forward_pre_hook(lambda _, __, given: read.append(given), with_kwargs=True)
    image, tokens = torch.rand(2, 2, 4, 8, 12), torch.randn(2, 3, 5, 6)
    with torch.no_grad():
        out = net(image, tokens, torch.ones(2, 3, 5, dtype=torch.bool))
        assert torch.equal(read[0]["skip"], net.encoder(image)[0])  # once per exam, not once per sentence
        net.decoder.stages[1].from_skip.weight.zero_()
        assert not torch.allclose(net(image, tokens, torch.ones(2, 3, 5, dtype=torch.bool)), out, atol=1e-4)


def test_voxel_attention_starts_as_the_identity() -> None:
    config = NetConfig(**SMALL, attention={"name": "softmax", "num_heads": 2})
    torch.manual_seed(0)
    net = GroundingNet(config, text_channels=6)
    plain = GroundingNet(NetConfig(**SMALL), text_channels=6)
    plain.load_state_dict({n: p for n, p in net.state_dict().items() if ".voxels." not in n})
    image, tokens = torch.rand(1, 2, 4, 8, 12), torch.randn(1, 2, 5, 6)
    mask = torch.ones(1, 2, 5, dtype=torch.bool)
    with torch.no_grad():
        assert torch.equal(net(image, tokens, mask), plain(image, tokens, mask))


def test_blocks_get_the_spacing_of_their_own_stage() -> None:
    """The full grid's, times the strides down to the stage: unlike along each axis."""
    strides = [[1, 1, 1], [1, 2, 3], [2, 1, 1]]
    config = NetConfig(**SMALL, strides=strides, attention={"name": "softmax"}, spacing_zyx_mm=(5.0, 1.5, 2.0))
    net = GroundingNet(config, text_channels=6).eval()
    seen = []
    for stage in net.decoder.stages:
        stage.voxels.attention.register_forward_pre_hook(
            lambda _, __, given: seen.append(given["grid"]), with_kwargs=True
        )
    net(torch.rand(1, 2, 4, 8, 12), torch.randn(1, 1, 5, 6), torch.ones(1, 1, 5, dtype=torch.bool))
    assert [grid.shape_zyx for grid in seen] == [(4, 4, 4), (4, 8, 12)]
    assert [grid.spacing_zyx_mm for grid in seen] == [(5.0, 3.0, 6.0), (5.0, 1.5, 2.0)]
    assert config.stage_spacing_zyx_mm(2) == (10.0, 3.0, 6.0)
    assert NetConfig(strides=strides, features=[4, 8, 8], fusion_stages=[0]).stage_spacing_zyx_mm(1) == (1.0, 2.0, 3.0)
    for wrong in ((1.0, 2.0), (1.0, 0.0, 2.0), (1.0, 2.0, float("inf"))):
        with pytest.raises(BlockError, match="three positive"):
            NetConfig(spacing_zyx_mm=wrong)


@pytest.mark.parametrize("key", ["swin_v2_cosine_3d", "lsda", "aggregated_attention"])
def test_a_bias_in_mm_sees_each_axis_spacing(key: str) -> None:
    attention = {"name": key, "num_heads": 2, "stages": [1], **examples.ATTENTION.get(key, {})}
    image, tokens, mask = torch.rand(1, 2, 4, 8, 12), torch.randn(1, 1, 5, 6), torch.ones(1, 1, 5, dtype=torch.bool)
    answers = []
    for spacing in ((2.0, 2.0, 2.0), (8.0, 2.0, 2.0), (2.0, 8.0, 2.0), (2.0, 2.0, 8.0)):
        torch.manual_seed(0)
        net = GroundingNet(NetConfig(**SMALL, attention=attention, spacing_zyx_mm=spacing), text_channels=6).eval()
        for parameter in net.decoder.stages[0].voxels.parameters():
            parameter.data.add_(0.3 * torch.randn_like(parameter))
        with torch.no_grad():
            answers.append(net(image, tokens, mask))
    for number, one in enumerate(answers):
        assert not any(torch.allclose(one, other, atol=1e-7) for other in answers[number + 1 :])


def test_configs_that_do_not_fit_are_refused() -> None:
    for wrong in (
        {"attention": {"name": "softmx"}},
        {"attention": {"name": "softmax", "stages": [2]}},
        {"attention": {"num_heads": 2}},
        {"token_reduction": {"name": "none"}},
        {"mixer": {"name": "no_such"}},
    ):
        with pytest.raises(BlockError):
            NetConfig(**SMALL, **wrong)
    with pytest.raises(BlockError, match="num_heads=3"):
        GroundingNet(NetConfig(**SMALL, attention={"name": "softmax", "num_heads": 3}), text_channels=6)
