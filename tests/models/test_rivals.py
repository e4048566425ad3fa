"""The rival networks: 2.5D and LLMSeg, under the same contract as ours, and what their papers promise."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Any
from unittest.mock import patch

import pytest
import torch
from torch import nn

from petground.models.net_config import NetConfig
from petground.models.networks import Network, build_network, learned_prompts
from petground.models.projections import ProjectionNet, cross, project
from petground.models.registry import BlockError
from petground.models.rival_configs import LLMSegConfig, ProjectionsConfig
from petground.models.text.encoder import TextConfig, TextEncoder, TextEncoderError
from petground.models.text.prompts import LearnedPrompts
from petground.models.two_way import TwoWayTransformer
from petground.models.unet import Decoded

GATE = {"name": "contextual_gate", "num_heads": 2, "coordinates": "linear"}
FLAT: dict[str, Any] = {
    "architecture": "projections", "features": [4, 6, 8], "fusion": GATE, "fusion_stages": [0, 1],
    "blocks_per_stage": 1, "decoder_convs": 1,
}  # fmt: skip
FLAT_OURS: dict[str, Any] = {
    **FLAT, "fusion": {**GATE, "form": "residual_gate"}, "fusion_stages": [1], "coarse_heads": True, "shared_stages": 1,
    "presence": True,
}  # fmt: skip
LLMSEG: dict[str, Any] = {
    "architecture": "llmseg", "features": [4, 8, 8], "llmseg": {"num_heads": 2, "prompts": 1, "prompt_length": 3}
}  # fmt: skip
KINDS = pytest.mark.parametrize("options", [FLAT, FLAT_OURS, LLMSEG], ids=["flat", "flat_ours", "llmseg"])


def _net(options: dict[str, Any]) -> Network:
    torch.manual_seed(0)
    return build_network(NetConfig(**options), text_channels=10).eval()


def _awake(net: nn.Module) -> nn.Module:
    """What starts at zero made random: the text speaks."""
    torch.manual_seed(2)
    for name, parameter in net.named_parameters():
        if name.endswith((".out.weight", "turn.weight", "turn.bias")):
            nn.init.normal_(parameter, std=0.3)
    return net


def _inputs(exams: int = 2, sentences: int = 3) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    torch.manual_seed(1)
    mask = torch.ones(exams, sentences, 5, dtype=torch.bool)
    mask[:, 1:, 3:] = False
    return torch.rand(exams, 2, 24, 8, 16), torch.randn(exams, sentences, 5, 10), mask  # 3, 1 and 2 coarsest voxels


@KINDS
def test_sentences_together_equal_sentences_alone(options: dict[str, Any]) -> None:
    net, (image, tokens, mask) = _net(options), _inputs()
    _awake(net)
    with torch.inference_mode():
        together = net(image, tokens, mask)
        assert together.shape == (2, 3, 24, 8, 16)
        assert not torch.allclose(together[0, 0], together[0, 2], atol=1e-4)  # the text tells
        for exam in range(2):
            features = net.encode(image[exam : exam + 1])
            before = [f.clone() for f in features]
            for s in range(3):
                keep = int(mask[exam, s].sum())  # the sentence alone has no padding
                alone = net.decode(
                    features, tokens[exam : exam + 1, s : s + 1, :keep], mask[exam : exam + 1, s : s + 1, :keep]
                )
                assert torch.allclose(alone.stages[-1][0, 0], together[exam, s], atol=1e-4)
            assert all(torch.equal(a, b) for a, b in zip(before, features, strict=True))


@KINDS
def test_padded_tokens_change_nothing(options: dict[str, Any]) -> None:
    net, (image, tokens, mask) = _net(options), _inputs()
    _awake(net)
    other = tokens.masked_fill(~mask[..., None], 1e3)
    with torch.inference_mode():
        features = net.encode(image)
        first, second = net.decode(features, tokens, mask), net.decode(features, other, mask)
        assert torch.equal(first.stages[-1], second.stages[-1])
        mask[:, :, 1:] = False
        assert not torch.allclose(net.decode(features, tokens, mask).stages[-1], first.stages[-1], atol=1e-4)
        mask[:] = False  # a sentence without a word
        assert net.decode(features, tokens, mask).stages[-1].isfinite().all()


@KINDS
@pytest.mark.parametrize("checkpointing", [False, True])
def test_gradients_reach_every_parameter(options: dict[str, Any], checkpointing: bool) -> None:
    net, (image, tokens, mask) = _net({**options, "checkpointing": checkpointing}).train(), _inputs()
    _awake(net)
    decoded = net.decode(net.encode(image), tokens, mask)
    judged = [stage for view in decoded.parts or (decoded,) for stage in view.stages]
    said = sum(one.square().mean() for one in judged)
    (said if decoded.presence is None else said + decoded.presence.square().mean()).backward()
    without = [name for name, p in net.named_parameters() if p.grad is None or p.grad.abs().max() == 0]
    # a bias before an instance norm has no effect; the prompts' gradient comes through the language model
    assert [name for name in without if not name.endswith("bias") and name != "prompts.vectors"] == []


@KINDS
def test_state_goes_out_and_in_and_the_config_through_plain_mappings(options: dict[str, Any]) -> None:
    net, (image, tokens, mask) = _net(options), _inputs()
    config = NetConfig(**asdict(net.config))
    assert config == net.config
    torch.manual_seed(9)
    other = build_network(config, 10).eval()
    other.load_state_dict(net.state_dict())
    with torch.inference_mode():
        assert torch.equal(net(image, tokens, mask), other(image, tokens, mask))
    with pytest.raises(ValueError, match="multiples of"):
        net.encode(image[:, :, :7])
    with pytest.raises(ValueError, match="mask"):
        net.decode(net.encode(image), tokens, mask[:, :1])


# --- 2.5D ---


def test_each_voxel_is_seen_where_it_lies() -> None:
    """One hot voxel, everything asymmetric: z 5 of 24, y 6 of 8, x 3 of 16 (tensors count x to the patient's right)."""
    image = torch.zeros(1, 2, 24, 8, 16)
    image[0, 0, 5, 6, 3] = 1.0
    image[0, 1, 5, 6, :8] = 1.0
    sagittal, coronal = project(image, 4, ProjectionsConfig()), project(image, 3, ProjectionsConfig())
    assert sagittal.shape == (1, 2, 24, 8, 1)
    assert coronal.shape == (1, 2, 24, 1, 16)
    assert sagittal[0, 0].argwhere().tolist() == [[5, 6, 0]]
    assert coronal[0, 0].argwhere().tolist() == [[5, 0, 3]]
    assert sagittal[0, 1, 5, 6, 0] == pytest.approx(0.5)  # CT: the mean along the ray
    assert project(image, 4, ProjectionsConfig(ct="max"))[0, 1, 5, 6, 0] == 1.0
    logits = cross(sagittal[:, :1] - 0.5, coronal[:, :1] - 0.5)
    assert (logits > 0).squeeze().argwhere().tolist() == [[5, 6, 3]]


def test_a_lesion_on_one_side_is_found_there_and_not_mirrored() -> None:
    """A 2.5D network that passes its projection on: what it marks in 3D is where the uptake is."""
    net = _net(FLAT)
    assert isinstance(net, ProjectionNet)
    image, tokens, mask = _inputs(1, 1)
    image = image * 0.0
    image[0, 0, 3:6, 5:7, 11:14] = 1.0

    class Shown(nn.Module):
        def encode(self, view: torch.Tensor) -> tuple[torch.Tensor, ...]:
            return (view,)

        def decode(self, features: tuple[torch.Tensor, ...], *_: object) -> Decoded:
            return Decoded([features[0][:, :1] - 0.5], None)

    with patch.object(net, "_views", lambda: {"sagittal": Shown(), "coronal": Shown()}):
        decoded = net.decode(net.encode(image), tokens, mask)
    assert torch.equal(decoded.stages[-1][0, 0] > 0, image[0, 0] > 0.5)


def test_two_networks_of_two_dimensions() -> None:
    net = _net(FLAT)
    kernels = {
        tuple(part.weight.shape[2:]) for part in net.modules() if isinstance(part, (nn.Conv3d, nn.ConvTranspose3d))
    }
    assert all(1 in kernel for kernel in kernels)  # no weight looks along the ray
    image, tokens, mask = _inputs()
    with torch.inference_mode():
        decoded = net.decode(net.encode(image), tokens, mask)
    assert [tuple(view.stages[-1].shape[2:]) for view in decoded.parts] == [(24, 8, 1), (24, 1, 16)]
    assert torch.equal(decoded.stages[-1], torch.minimum(*(view.stages[-1] for view in decoded.parts)))


# --- LLMSeg ---


def test_published_sizes_of_llmseg() -> None:
    config = NetConfig(architecture="llmseg", features=[48, 48, 96, 192, 384])
    assert config.llmseg == LLMSegConfig(prompts=2, prompt_length=8, depth=2, num_heads=8)
    assert config.divisor_zyx == (32, 32, 32)
    with torch.device("meta"):
        net = build_network(config, text_channels=4096)
        features = net.encode(torch.rand(1, 2, 64, 32, 96))
        decoded = net.decode(features, torch.rand(1, 3, 2, 4096), torch.ones(1, 3, 2, dtype=torch.bool))
    assert [tuple(f.shape[1:]) for f in features] == [
        (48, 32, 16, 48), (48, 16, 8, 24), (96, 8, 4, 12), (192, 4, 2, 6), (384, 2, 1, 3)
    ]  # fmt: skip
    assert decoded.stages[-1].shape == (1, 3, 64, 32, 96)
    prompts = learned_prompts(net)
    assert prompts is not None
    assert prompts.vectors.shape == (2, 8, 4096)
    assert learned_prompts(_net(FLAT)) is None


def test_two_way_transformer_does_not_hang_on_the_order_of_voxels() -> None:
    torch.manual_seed(0)
    block = TwoWayTransformer(8, 16, num_heads=2).eval()
    x, tokens, mask = torch.rand(2, 8, 2, 3, 4), torch.rand(2, 3, 8), torch.ones(2, 3, dtype=torch.bool)
    out = block(x, tokens, mask)
    assert torch.allclose(block(x.flip(4), tokens, mask).flip(4), out, atol=1e-5)
    assert not torch.allclose(block(x, tokens.flip(0), mask), out, atol=1e-3)


# --- learned prompts ---

TINY = {"vocab_size": 300, "hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2,
        "num_key_value_heads": 2, "max_position_embeddings": 64, "initializer_range": 0.4}  # fmt: skip


ENDS = {"bos_token_id": 1, "eos_token_id": 2}


@pytest.fixture(scope="module", params=["llama", "gpt2", "bert"])
def folder(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny language model with random weights and a byte tokenizer, as a folder."""
    import tokenizers
    import transformers
    from tokenizers import models, pre_tokenizers, processors

    place: Path = tmp_path_factory.mktemp(request.param)
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    words = {token: number for number, token in enumerate(["<pad>", "<s>", "</s>", *alphabet])}
    made = tokenizers.Tokenizer(models.BPE(vocab=words, merges=[]))
    made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    ends = {"llama": ("<s> $A", [("<s>", 1)]), "gpt2": ("$A", []), "bert": ("<s> $A </s>", [("<s>", 1), ("</s>", 2)])}
    single, special = ends[request.param]
    made.post_processor = processors.TemplateProcessing(single=single, special_tokens=special)
    begin = {} if request.param == "gpt2" else {"bos_token": "<s>"}
    transformers.PreTrainedTokenizerFast(
        tokenizer_object=made, pad_token="<pad>", eos_token="</s>", **begin
    ).save_pretrained(place)
    torch.manual_seed(0)
    built: Any = {
        "llama": lambda: transformers.LlamaModel(transformers.LlamaConfig(**TINY)),
        "gpt2": lambda: transformers.GPT2Model(
            transformers.GPT2Config(
                vocab_size=300, n_embd=16, n_layer=2, n_head=2, n_positions=64, initializer_range=0.4, **ENDS
            )
        ),
        "bert": lambda: transformers.BertModel(transformers.BertConfig(**TINY)),
    }[request.param]()
    built.save_pretrained(place)
    return place


def test_prompts_learn_through_a_model_that_stays_as_it_is(folder: Path) -> None:
    encoder = TextEncoder(TextConfig(name=str(folder), max_tokens=40))
    torch.manual_seed(3)
    prompts = LearnedPrompts(2, 4, encoder.channels)
    with torch.inference_mode():  # validation comes first, before any step
        tokenizer, model = encoder.model_on(torch.device("cpu"))
        prompts(model, tokenizer, ["left node"], 40)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    sentences = ["right axillary node", "left node", "x"]
    states, mask = prompts(model, tokenizer, sentences, 40)
    assert states.shape == (3, 2, 16)
    assert mask.all()
    for number, sentence in enumerate(sentences):  # padding changes nothing
        alone, _ = prompts(model, tokenizer, [sentence], 40)
        assert torch.allclose(alone[0], states[number], atol=1e-5)
    assert not torch.allclose(states[0], states[1], atol=1e-3)
    assert not torch.allclose(states[:, 0], states[:, 1], atol=1e-3)  # two sets, two tokens
    optimizer = torch.optim.AdamW(prompts.parameters(), lr=0.1)
    losses = []
    for _ in range(20):
        answer, _ = prompts(model, tokenizer, ["left node", "right node"], 40)
        losses.append(torch.nn.functional.mse_loss(answer, torch.linspace(-1, 1, 16).expand_as(answer)))
        optimizer.zero_grad()
        losses[-1].backward()
        assert prompts.vectors.grad is not None
        assert (prompts.vectors.grad.abs().amax(-1) > 0).all()  # each vector of each set
        optimizer.step()
    assert losses[-1] < 0.8 * losses[0]
    assert all(p.grad is None and not p.requires_grad for p in model.parameters())
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert list(prompts.state_dict()) == ["vectors"]


def test_where_the_prompts_stand(folder: Path) -> None:
    """Behind the begin token where the model has one; the last token stands for the sentence, of whatever length."""
    encoder = TextEncoder(TextConfig(name=str(folder), max_tokens=40))
    tokenizer, model = encoder.model_on(torch.device("cpu"))
    prompts = LearnedPrompts(1, 3, 16)
    states, _ = prompts(model, tokenizer, ["node", "right node"], 40)
    ids = tokenizer("node", return_tensors="pt")["input_ids"]
    words = model.get_input_embeddings()(ids)
    begin = 0 if "gpt2" in folder.name else 1
    read = torch.cat([words[:, :begin], prompts.vectors, words[:, begin:]], dim=1)
    expected = model(inputs_embeds=read).last_hidden_state[0, -1]
    assert torch.allclose(states[0, 0], expected, atol=1e-5)
    empty, mask = prompts(model, tokenizer, ["", "node"], 40)
    assert empty.isfinite().all()
    assert mask.all()
    cut, _ = prompts(model, tokenizer, ["n" * 90], 90)  # the model reads 64, three of them vectors
    assert torch.allclose(cut, prompts(model, tokenizer, ["n" * 90], 61)[0])
    with pytest.raises(TextEncoderError, match="no room"):
        LearnedPrompts(1, 64, 16)(model, tokenizer, ["node"], 40)
    with pytest.raises(TextEncoderError, match="as wide as"):
        LearnedPrompts(1, 3, 12)(model, tokenizer, ["node"], 40)


@pytest.mark.parametrize(
    ("wrong", "told"),
    [
        ({"architecture": "llmseg", "features": [16, 32], "coarse_heads": True}, "does not read coarse_heads"),
        ({"architecture": "llmseg", "features": [16, 32], "fusion": {"name": "none"}}, "does not read fusion"),
        ({"architecture": "llmseg", "features": [16, 24]}, "multiples of 16"),
        ({"llmseg": {"prompts": 3}}, "does not read llmseg"),
        ({"projections": {"ct": "max"}}, "does not read projections"),
        ({"architecture": "llmseg", "features": [16, 32], "llmseg": {"depth": 0}}, "depth=0"),
        ({"architecture": "llmseg", "features": [16]}, "two stages"),
    ],
)
def test_options_of_another_architecture_are_refused(wrong: dict[str, Any], told: str) -> None:
    with pytest.raises(BlockError, match=told):
        NetConfig(**wrong)
