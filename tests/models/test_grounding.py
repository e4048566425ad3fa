"""The network: one encoding serves all sentences, and the text is what makes them differ."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

from petground.models.grounding import GroundingNet
from petground.models.net_config import NetConfig
from petground.models.registry import BlockError
from petground.models.sentence_heads import SentenceFilter

FUSION = {"name": "contextual_gate", "num_heads": 2, "norm": True, "coordinates": "linear"}


def _net(**options: object) -> GroundingNet:
    torch.manual_seed(0)
    settings = {"features": [4, 6, 8], "fusion": FUSION, "fusion_stages": [0, 1], "blocks_per_stage": 1, **options}
    return GroundingNet(NetConfig(**settings), text_channels=10).eval()


def _inputs(exams: int = 2, sentences: int = 3) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    torch.manual_seed(1)
    mask = torch.ones(exams, sentences, 5, dtype=torch.bool)
    mask[0, 1, 3:] = False
    return torch.rand(exams, 2, 8, 4, 12), torch.randn(exams, sentences, 5, 10), mask


@pytest.mark.parametrize("encoder", ["residual", "plain"])
def test_sentences_together_equal_sentences_alone(encoder: str) -> None:
    net, (image, tokens, mask) = _net(encoder=encoder, decoder_convs=2), _inputs()
    with torch.inference_mode():
        together = net(image, tokens, mask)
        assert together.shape == (2, 3, 8, 4, 12)
        for exam in range(2):
            features = net.encode(image[exam : exam + 1])
            for s in range(3):
                alone = net.decode(features, tokens[exam : exam + 1, s : s + 1], mask[exam : exam + 1, s : s + 1])
                assert torch.allclose(alone.stages[-1][0, 0], together[exam, s], atol=1e-5)


def test_encoder_never_sees_the_text_and_runs_once() -> None:
    net, (image, tokens, mask) = _net(), _inputs(1, 3)
    calls = []
    net.encoder.register_forward_hook(lambda *_: calls.append(1))
    features = net.encode(image)
    before = [f.clone() for f in features]
    net.decode(features, tokens, mask)
    net.decode(features, tokens.flip(1), mask.flip(1))
    assert len(calls) == 1
    assert all(torch.equal(a, b) for a, b in zip(before, features, strict=True))


def test_split_convolution_equals_the_one_over_concatenated_channels() -> None:
    stage = _net().decoder.stages[0]
    x, skip = torch.randn(1, 6, 4, 2, 6), torch.randn(1, 6, 4, 2, 6)
    whole = nn.Conv3d(12, 6, 3, padding=1)
    whole.weight.data = torch.cat([stage.from_up.weight, stage.from_skip.weight], dim=1)
    whole.bias.data = stage.from_skip.bias.data
    expected = whole(torch.cat([x, skip], dim=1))
    assert torch.allclose(stage.from_up(x) + stage.from_skip(skip), expected, atol=1e-5)


def test_text_changes_the_answer_only_where_it_is_fused() -> None:
    image, tokens, mask = _inputs(1, 2)
    with torch.inference_mode():
        out = _net()(image, tokens, mask)
        assert not torch.allclose(out[0, 0], out[0, 1], atol=1e-4)
        blind = _net(fusion={"name": "none"})(image, tokens, mask)
        assert torch.equal(blind[0, 0], blind[0, 1])


def test_gradients_reach_every_parameter() -> None:
    net, (image, tokens, mask) = _net().train(), _inputs()
    net(image, tokens, mask).square().mean().backward()
    without = [name for name, p in net.named_parameters() if p.grad is None or p.grad.abs().max() == 0]
    # a bias before an instance norm has no effect, as in nnU-Net
    assert [name for name in without if not name.endswith("bias")] == []


def test_coarse_heads_add_up_and_each_can_be_judged() -> None:
    net, (image, tokens, mask) = _net(features=[4, 6, 8, 10], fusion_stages=[0, 1, 2], coarse_heads=True), _inputs()
    image = torch.rand(2, 2, 8, 8, 16)
    with torch.inference_mode():
        stages = net.decode(net.encode(image), tokens, mask).stages
        assert [tuple(one.shape) for one in stages] == [(2, 3, 2, 2, 4), (2, 3, 4, 4, 8), (2, 3, 8, 8, 16)]
        assert torch.equal(stages[-1], net(image, tokens, mask))
        # Only the coarsest head speaks: the answer is its logits, brought to full resolution.
        for head in (net.decoder.coarse["1"], net.decoder.head):
            torch.nn.init.zeros_(head.weight)
            torch.nn.init.zeros_(head.bias)
        coarse, _, full = net.decode(net.encode(image), tokens, mask).stages
        upsampled = torch.nn.functional.interpolate(coarse, size=(4, 4, 8), mode="trilinear", align_corners=False)
        upsampled = torch.nn.functional.interpolate(upsampled, size=(8, 8, 16), mode="trilinear", align_corners=False)
        assert torch.allclose(full, upsampled, atol=1e-6)
        assert coarse.std() > 0
    assert "coarse" not in {name.split(".")[1] for name, _ in _net().named_parameters()}


def test_published_size_and_bad_grids() -> None:
    config = NetConfig()
    assert config.features == [64, 96, 128, 192, 256]
    assert config.divisor_zyx == (16, 16, 16)
    with torch.device("meta"):
        net = GroundingNet(config, text_channels=768)
    fused = [stage.fusion.out.out_features for stage in net.decoder.stages if stage.fusion is not None]
    assert fused == [192, 128, 96]
    with pytest.raises(ValueError, match="multiples of"):
        _net().encode(torch.rand(1, 2, 8, 6, 8))
    image, tokens, mask = _inputs()
    with pytest.raises(ValueError, match="mask"):
        _net()(image, tokens, mask[:, :1])


def test_head_bias_starts_every_voxel_at_no() -> None:
    image, tokens, mask = _inputs()
    assert _net(head_bias=-7.0)(image, tokens, mask).max() < -2


OURS = {
    "features": [4, 6, 8, 10],
    "fusion": {
        "name": "contextual_gate",
        "num_heads": 2,
        "norm": True,
        "coordinates": "fourier",
        "form": "residual_gate",
    },
    "fusion_stages": [1, 2],
    "coarse_heads": True,
    "shared_stages": 1,
    "presence": True,
}


def _awake(net: GroundingNet) -> GroundingNet:
    """What starts at zero made random: the text speaks."""
    torch.manual_seed(2)
    for name, parameter in net.named_parameters():
        if name.endswith((".out.weight", "turn.weight", "turn.bias")):
            torch.nn.init.normal_(parameter, std=0.3)
    return net


TWO_SHARED = {**OURS, "shared_stages": 2, "fusion_stages": [2]}


@pytest.mark.parametrize("config", [OURS, TWO_SHARED], ids=["one", "two"])
def test_shared_stages_run_once_and_sentences_together_equal_alone(config: dict[str, Any]) -> None:
    net, (_, tokens, mask) = _awake(_net(**config)), _inputs()
    image = torch.rand(2, 2, 8, 16, 8)
    calls: list[int] = []
    for number, stage in enumerate(net.decoder.stages):
        stage.from_up.register_forward_hook(lambda *_, number=number: calls.append(number))
    text_free = list(range(len(net.decoder.stages)))[-config["shared_stages"] :]
    with torch.inference_mode():
        features = net.encode(image)
        assert calls == text_free, "a stage below the shared ones ran without text, too"
        together = net.decode(features, tokens, mask)
        assert sorted(calls) == list(range(len(net.decoder.stages)))
        assert [tuple(one.shape[2:]) for one in together.stages] == [(2, 4, 2), (4, 8, 4), (8, 16, 8)]
        assert together.presence is not None
        assert together.presence.shape == (2, 3)
        assert not torch.allclose(together.stages[-1][0, 0], together.stages[-1][0, 1], atol=1e-3)
        for s in range(3):
            alone = net.decode(features, tokens[:, s : s + 1], mask[:, s : s + 1])
            assert torch.allclose(alone.stages[-1][:, 0], together.stages[-1][:, s], atol=1e-5)
            assert alone.presence is not None
            assert torch.allclose(alone.presence[:, 0], together.presence[:, s], atol=1e-5)


def test_a_sentences_filter_is_the_same_in_either_order_of_memory() -> None:
    torch.manual_seed(0)
    filters, head = SentenceFilter(5, 7), torch.nn.Conv3d(7, 1, 1)
    torch.nn.init.normal_(filters.turn.weight)
    looked, features = torch.randn(2, 3, 7), torch.randn(2, 7, 3, 5, 4)
    change = filters.turn(filters.norm(looked[..., :5]))
    wanted = torch.einsum("bsf,bfzyx->bszyx", head.weight.reshape(1, 1, -1) + change[..., :-1], features)
    wanted = wanted + (head.bias + change[..., -1])[..., None, None, None]
    for layout in (torch.contiguous_format, torch.channels_last_3d):
        given = features.contiguous(memory_format=layout).requires_grad_()
        answer = filters(given, looked, head)
        torch.testing.assert_close(answer, wanted)
        (gradient,) = torch.autograd.grad(answer.sum(), given)
        assert gradient.is_contiguous(memory_format=layout), "the convolution before it has to copy"


@pytest.mark.parametrize("config", [{**OURS, "shared_stages": 0}, OURS, TWO_SHARED], ids=["none", "one", "two"])
def test_gated_network_starts_as_the_plain_one(config: dict[str, Any]) -> None:
    gated, plain = _net(**config), _net(**{**config, "fusion": {"name": "none"}})
    missing, unexpected = plain.load_state_dict(
        {name: value for name, value in gated.state_dict().items() if ".fusion." not in name}
    )
    assert not missing
    assert not unexpected
    _, tokens, mask = _inputs(1, 2)
    image = torch.rand(1, 2, 8, 8, 16)
    with torch.inference_mode():
        assert torch.equal(gated(image, tokens, mask), plain(image, tokens, mask))
        assert not torch.equal(_awake(gated)(image, tokens, mask), plain(image, tokens, mask))


def test_strides_and_kernels_of_plans_shape_the_grids() -> None:
    strides, kernels = [[1, 1, 1], [1, 2, 2], [2, 2, 2], [2, 2, 2]], [[1, 3, 3], [1, 3, 3], [3, 3, 3], [3, 3, 3]]
    net = _net(**{**OURS, "strides": strides, "kernel_sizes": kernels, "blocks_per_stage": [1, 2, 1, 1]})
    assert net.config.divisor_zyx == (4, 8, 8)
    _, tokens, mask = _inputs(1, 2)
    decoded = net.decode(net.encode(torch.rand(1, 2, 4, 8, 16)), tokens, mask)
    assert [tuple(one.shape[2:]) for one in decoded.stages] == [(2, 2, 4), (4, 4, 8), (4, 8, 16)]
    with pytest.raises(ValueError, match="multiples of"):
        net.encode(torch.rand(1, 2, 2, 8, 16))


@pytest.mark.parametrize(
    "attention", [None, {"name": "halo"}, {"name": "routing", "clusters": 4, "local_heads": 0, "decay": 0.3}]
)
def test_checkpointing_changes_no_gradient(attention: dict[str, Any] | None) -> None:
    """In two steps; routing's centroids move once a step, not again where the forward is run again."""
    _, tokens, mask = _inputs(1, 2)
    image = torch.rand(1, 2, 8, 8, 16)
    steps: list[list[dict[str, torch.Tensor]]] = []
    for checkpointing in (False, True):
        net = _awake(_net(**{**OURS, "checkpointing": checkpointing}, attention=attention)).train()
        steps.append([])
        for _ in range(3):
            net.zero_grad()
            net(image, tokens, mask).square().mean().backward()
            learnt = {name: p.grad for name, p in net.named_parameters() if p.grad is not None}
            steps[-1].append(learnt | {name: buffer.clone() for name, buffer in net.named_buffers()})
    for plain, checkpointed in zip(*steps, strict=True):
        assert plain.keys() == checkpointed.keys()
        assert all(torch.allclose(plain[name], checkpointed[name], atol=1e-6) for name in plain)
    moved = [name for name in steps[0][0] if "centroids" in name]
    assert bool(moved) == (attention is not None and attention["name"] == "routing")
    assert not any(torch.allclose(steps[0][0][name], steps[0][1][name]) for name in moved)


@pytest.mark.parametrize("config", [OURS, TWO_SHARED], ids=["one", "two"])
def test_gradients_reach_every_parameter_of_the_shared_network(config: dict[str, Any]) -> None:
    net, (_, tokens, mask) = _awake(_net(**config)).train(), _inputs()
    decoded = net.decode(net.encode(torch.rand(2, 2, 8, 8, 16)), tokens, mask)
    assert decoded.presence is not None
    (sum(one.square().mean() for one in decoded.stages) + decoded.presence.square().mean()).backward()
    without = [name for name, p in net.named_parameters() if p.grad is None or p.grad.abs().max() == 0]
    assert [name for name in without if not name.endswith("bias")] == []


@pytest.mark.parametrize(
    "wrong",
    [
        {"shared_stages": 2},
        {"coarse_heads": False},
        {"shared_stages": 3},
        {"strides": [[2, 2, 2]] * 4},
        {"strides": [[1, 1, 1]] * 3},
        {"kernel_sizes": [[2, 3, 3]] * 4},
        {"blocks_per_stage": [1, 1]},
    ],
)
def test_configs_that_do_not_fit_are_refused(wrong: dict[str, object]) -> None:
    with pytest.raises(BlockError):
        NetConfig(**{**OURS, **wrong})
