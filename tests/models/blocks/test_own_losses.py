"""Losses of blocks' own: what each trains and where it ends, and what is kept of it in a network's step."""

from __future__ import annotations

import copy
import math
import pickle
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from petground.models.blocks.attention import linear, sparsifiner
from petground.models.blocks.attention.teacher import ROWS, softmax_rows
from petground.models.blocks.own_losses import Held, Outcome, listening, own_losses
from petground.models.blocks.token_reduction.exits import absence_loss
from petground.models.grounding import GroundingNet
from petground.models.net_config import NetConfig
from petground.models.registry import BlockError, build
from tests.models.conformance.memory import largest_tensor

GRID = (2, 4, 4)
SMALL: dict[str, Any] = {"features": [4, 8, 8], "blocks_per_stage": 1, "decoder_convs": 1, "fusion_stages": [0, 1]}
ALL: dict[str, tuple[str, dict[str, Any], str]] = {  # of each: slot, options, the parameters that its loss is for
    "moh": ("attention", {"shared_heads": 1, "active_heads": 2}, "gates.to_routed"),
    "duo": ("attention", {"sinks": 0, "radius": 1}, "alpha"),
    "hedgehog": ("attention", {}, "of_"),
    "sparsifiner": ("attention", {"keep": 4, "n_down": 4, "lattice_zyx": [2, 2, 2]}, "to_ down up"),
    "ia_red2": ("token_reduction", {"estimator": "reinforce"}, "query asked"),
    "dyn_perceiver": ("token_reduction", {"latents": 4}, "judges layers latents words"),
}
KEYS = list(ALL)
STARTS = {"ia_red2": "query.weight", "dyn_perceiver": "judges.0.1.weight"}  # at zero, past which no gradient goes


def _made(key: str, **more: Any) -> nn.Module:
    slot, options, _ = ALL[key]
    heads = {"num_heads": 4} if slot == "attention" else {}
    torch.manual_seed(0)
    return build(slot, key, channels=16, **heads, **options, **more).double()


def _run(module: nn.Module, key: str, batch: int = 2, count: int = 32) -> list[Tensor]:
    """A forward; the tensors that it read."""
    torch.manual_seed(1)
    if ALL[key][0] == "attention":
        given = [torch.randn(batch, 4, count, 4, dtype=torch.float64, requires_grad=True) for _ in range(3)]
        module(*given)
        return given
    tokens, text = (torch.randn(batch, n, 16, dtype=torch.float64, requires_grad=True) for n in (count, 3))
    module(tokens, text=text)
    return [tokens]


def _outcome(batch: int = 2) -> Outcome:
    right = torch.arange(batch)[:, None] % 2
    return Outcome(right.float(), 1.0 - right)


def _own(module: nn.Module, key: str, **how: Any) -> dict[str, Tensor]:
    with listening(module) as held:
        _run(module, key, **how)
    return own_losses(held, _outcome(how.get("batch", 2)))


@pytest.mark.parametrize("key", KEYS)
def test_the_loss_is_one_number_an_exam_and_trains_what_it_is_for(key: str) -> None:
    module = _made(key).train()
    with listening(module) as held:
        given = _run(module, key)
    (value,) = own_losses(held, _outcome()).values()
    assert value.shape == (2,)
    assert torch.isfinite(value).all()
    if key in STARTS:
        nn.init.normal_(module.get_parameter(STARTS[key]))
        (value,) = _own(module, key).values()
    value.sum().backward()
    learnt = {name for name, p in module.named_parameters() if p.grad is not None and p.grad.abs().sum() > 0}
    wanted = ALL[key][2].split()
    assert learnt
    assert all(name.startswith(tuple(wanted)) for name in learnt), learnt
    assert all(any(name.startswith(one) for name in learnt) for one in wanted), learnt
    if key in ("hedgehog", "sparsifiner", "ia_red2"):  # the teacher, and what the policy looks at, are left alone
        assert all(one.grad is None for one in given)


@pytest.mark.parametrize("key", ["moh", "duo", "hedgehog", "sparsifiner", "dyn_perceiver"])
def test_it_falls_when_it_alone_is_minimised(key: str) -> None:
    module = _made(key).train()
    if key == "moh":  # everyone to one head, by a query that all share
        nn.init.normal_(module.get_parameter("gates.to_routed.weight"), std=2.0)
    optimizer = torch.optim.Adam(module.parameters(), lr=0.05)
    losses = []
    for _ in range(40):
        (value,) = _own(module, key).values()
        optimizer.zero_grad()
        value.mean().backward()
        optimizer.step()
        losses.append(value.detach().mean().item())
    limits = {"moh": 0.97, "duo": 0.1, "hedgehog": 0.97, "sparsifiner": 0.8, "dyn_perceiver": 0.2}
    assert losses[-1] < limits[key] * losses[0], losses[::10]


def test_where_the_papers_say_that_it_is_least() -> None:
    """Even routing, no full head, a right guess, heads that are sure and right and agree."""
    moh = _made("moh").train()
    nn.init.zeros_(moh.get_parameter("gates.to_routed.weight"))
    assert torch.allclose(_own(moh, "moh")["moh/balance"], torch.tensor(0.01 * 1 / 3))
    duo = _made("duo").train()
    assert torch.allclose(_own(duo, "duo")["duo/full_heads"], torch.tensor(0.05 * 4))
    nn.init.constant_(duo.get_parameter("alpha"), -0.5)
    assert not _own(duo, "duo")["duo/full_heads"].any()
    guess = _made("sparsifiner").train()
    nn.init.ones_(guess.get_parameter("up"))
    assert _own(guess, "sparsifiner", count=1)["sparsifiner/guess"].abs().max() < 1e-10  # a single key gets all
    logits = torch.tensor([[[-40.0, 40.0]] * 2, [[40.0, -40.0]] * 2])
    assert not absence_loss(logits, torch.tensor([0.0, 1.0])).any()
    assert (absence_loss(logits, torch.tensor([1.0, 0.0])) > 10).all()
    apart = torch.tensor([[[1.0, 0.0], [0.0, 1.0]]])
    by_hand = (
        0.5
        * 16
        * nn.functional.kl_div((apart[0, 0] / 4).log_softmax(-1), (apart[0, 1] / 4).softmax(-1), reduction="sum")
    )
    assert torch.allclose(absence_loss(apart, torch.tensor([math.nan])), by_hand)


def test_policy_is_rewarded_for_right_answers_of_few_voxels_over_its_baseline() -> None:
    module = _made("ia_red2", loss_weight=2.0).train()
    for part in ("query", "asked"):
        nn.init.normal_(module.get_parameter(f"{part}.weight"))
    with listening(module) as held:
        _run(module, "ia_red2")
    (one,) = held["ia_red2"][1]
    share = one["keep"].sum(1) / 32
    gained = torch.tensor([-0.5, 1 - share[1] ** 2])  # the first exam's answer was wrong
    for baseline in (torch.zeros(()), 0.1 * gained.mean()):
        value = own_losses(held, _outcome())["ia_red2/policy"].double()
        assert torch.allclose(value, -2.0 * (gained - baseline) * one["log_prob"] / 32, rtol=1e-4)
    saved = module.state_dict()["baseline"]
    assert saved == pytest.approx(float(0.19 * gained.mean()), rel=1e-5)
    assert "baseline" not in build("token_reduction", "ia_red2", channels=16).state_dict()


@pytest.mark.parametrize(("key", "causal"), [("hedgehog", False), ("hedgehog", True), ("sparsifiner", False)])
def test_distillation_is_that_of_the_written_out_maps(key: str, causal: bool) -> None:
    """All rows of few tokens; padding is neither looked at nor judged."""
    module = _made(key).train()
    mask = torch.ones(2, 12, dtype=torch.bool)
    mask[1, 7:] = False
    q, k, v = (torch.randn(2, 4, 12, 4, dtype=torch.float64) for _ in range(3))
    with listening(module) as held:
        module(q, k, v, mask=mask, **({"causal": True} if causal else {}))
    (value,) = own_losses(held, _outcome()).values()
    for entry, real in enumerate((12, 7)):
        part = [one[entry : entry + 1, :, :real] for one in (q, k, v)]
        scores = part[0] @ part[1].mT / 2
        after = torch.ones(real, real, dtype=torch.bool).triu(1) & causal
        teacher = scores.masked_fill(after, -math.inf).softmax(-1)
        if key == "hedgehog":
            _, student = module.eval()(*part, causal=causal, need_weights=True)
            cost = -(teacher * student.clamp(min=1e-30).log()).sum(-1).mean()
        else:
            guess = module.guess(q, k, mask=mask)[entry : entry + 1, :, :real, :real]
            cost = (guess - teacher).square().sum(-1).mean()
        assert value[entry].item() == pytest.approx(cost.item(), rel=1e-5)


def test_hedgehog_imitates_in_cross_attention_too() -> None:
    """A query has no mask there, not even where there are as many keys."""
    module = _made("hedgehog").train()
    q, k, v = (torch.randn(2, 4, 6, 4, dtype=torch.float64) for _ in range(3))
    mask = torch.tensor([[True] * 6, [True, True, False, False, False, False]])
    with listening(module) as held:
        module(q, k, v, mask=mask, cross=True)
    (value,) = own_losses(held, _outcome()).values()
    teacher, keep = softmax_rows(q, k, torch.arange(6), mask, cross=True)
    assert keep is not None
    _, student = module.eval()(q, k, v, mask=mask, cross=True, need_weights=True)
    wanted = linear.attention_distillation(teacher, student)
    assert (teacher.sum(-1) > 0.99).all()
    assert torch.allclose(value, wanted.float(), rtol=1e-4)


@pytest.mark.parametrize("key", ["hedgehog", "sparsifiner"])
def test_distillation_holds_some_rows_and_never_a_whole_map(key: str, monkeypatch: pytest.MonkeyPatch) -> None:
    count = 1024
    monkeypatch.setattr(sparsifiner, "AT_ONCE", 1 << 12)
    module = _made(key).train()
    with largest_tensor() as made:
        (value,) = _own(module, key, batch=1, count=count).values()
        value.sum().backward()
    assert made.numbers <= 4 * count * max(ROWS, 32)
    assert module.loss_weight == 1.0
    first, again = (_own(module.train(), key, batch=1, count=count) for _ in range(2))  # the same queries: one seed
    assert all(torch.equal(first[name], again[name]) for name in first)


@pytest.mark.parametrize("key", KEYS)
def test_nothing_is_kept_in_evaluation_unheard_or_with_no_weight(key: str) -> None:
    module = _made(key).train()
    names = list(module.state_dict())
    _run(module, key)
    assert module.own_losses is None  # nobody listened
    assert _own(module, key)
    assert module.own_losses is None
    assert list(module.state_dict()) == names
    again = copy.deepcopy(module)
    assert all(torch.equal(a, b) for a, b in zip(module.parameters(), again.parameters(), strict=True))
    pickle.loads(pickle.dumps(module))
    assert _own(module.eval(), key) == {}
    assert _own(_made(key, loss_weight=0.0).train(), key) == {}
    with pytest.raises(BlockError, match=r"negative|at least 0|loss_weight < 0"):
        _made(key, loss_weight=-1.0)
    with pytest.raises(ZeroDivisionError), listening(module):
        raise ZeroDivisionError
    assert module.own_losses is None


def test_presets_that_have_no_loss_take_no_weight() -> None:
    for slot, key in (
        ("attention", "moa_spans"),
        ("attention", "lightning2"),
        ("token_reduction", "mue_exit"),
    ):
        with pytest.raises(BlockError, match="no option 'loss_weight'"):
            build(slot, key, channels=8, loss_weight=1.0)
    decided = build("attention", "duo", channels=8, num_heads=2, full_heads=[0], sinks=0).double().train()
    with listening(decided) as held:
        decided(*(torch.randn(1, 2, 5, 4, dtype=torch.float64) for _ in range(3)))
    assert own_losses(held, _outcome(1)) == {}


def _net(checkpointing: bool = False, **blocks: Any) -> GroundingNet:
    torch.manual_seed(0)
    return GroundingNet(NetConfig(**SMALL, checkpointing=checkpointing, **blocks), text_channels=6).train()


def _step(net: GroundingNet, exams: int = 2, sentences: int = 2) -> tuple[Tensor, dict[str, Tensor], Held]:
    """The task's and the blocks' losses of a step."""
    torch.manual_seed(3)
    image, tokens = torch.rand(exams, 2, 4, 8, 12), torch.randn(exams, sentences, 5, 6)
    with listening(net) as held:
        decoded = net.decode(net.encode(image), tokens, torch.ones(exams, sentences, 5, dtype=torch.bool))
    outcome = Outcome((torch.arange(exams * sentences) % 2.0).reshape(exams, sentences), torch.ones(exams, sentences))
    return decoded.stages[-1].square().mean(), own_losses(held, outcome), held


def _blocks(key: str, stages: list[int]) -> dict[str, Any]:
    slot, options, _ = ALL[key]
    if slot == "attention":
        return {"attention": {"name": key, "num_heads": 4, "stages": stages, **options}}
    attention = {"name": "softmax", "num_heads": 2, "stages": stages}
    return {"attention": attention, slot: {"name": key, **options}}


@pytest.mark.parametrize("key", KEYS)
def test_gradients_with_checkpointing_are_those_without(key: str) -> None:
    """The first forward's loss has the graph; the second, in the backward pass, keeps nothing."""
    gradients, values = [], []
    for checkpointing in (False, True):
        net = _net(checkpointing, **_blocks(key, [0, 1]))
        for name, parameter in net.named_parameters():
            if "query" in name or "judges" in name:
                nn.init.normal_(parameter, std=0.1) if parameter.ndim > 1 else None
        task, own, held = _step(net)
        values.append(torch.stack(list(own.values())))
        (task + values[-1].sum()).backward()
        gradients.append({name: p.grad for name, p in net.named_parameters()})
        assert len(own) == 2
        assert all(block.own_losses is None for block, _ in held.values())
        copy.deepcopy(net)
    assert torch.allclose(*values)
    assert gradients[0].keys() == gradients[1].keys()
    for name, gradient in gradients[0].items():
        other = gradients[1][name]
        assert (gradient is None) == (other is None), name
        if gradient is not None and other is not None:
            assert torch.allclose(gradient, other, atol=1e-6), name


def test_blocks_of_one_key_have_names_of_their_own_coarsest_first() -> None:
    net = _net(**_blocks("duo", [0, 1]))
    nn.init.constant_(net.decoder.stages[0].voxels.attention.alpha, 0.5)
    _, own, _ = _step(net)
    assert {name: value.tolist() for name, value in own.items()} == {
        "duo.1/full_heads": [pytest.approx(0.1)] * 2, "duo.2/full_heads": [pytest.approx(0.2)] * 2,
    }  # fmt: skip
    gate = {"name": "contextual_gate", "num_heads": 2, "attention": {"name": "hedgehog"}}
    _, own, _ = _step(_net(fusion=gate, **_blocks("moh", [1])))
    assert list(own) == ["hedgehog.1/distillation", "moh/balance", "hedgehog.2/distillation"]


def test_an_exam_costs_what_it_costs_alone() -> None:
    """Two in a step, or one each in two processes: their mean is the step's."""
    net = _net(**_blocks("moh", [0]))
    torch.manual_seed(3)
    image, tokens = torch.rand(2, 2, 4, 8, 12), torch.randn(2, 3, 5, 6)
    answers = []
    for part in (slice(0, 2), slice(0, 1), slice(1, 2)):
        with listening(net) as held:
            net(image[part], tokens[part], torch.ones(len(tokens[part]), 3, 5, dtype=torch.bool))
        blank = torch.zeros(len(tokens[part]), 3)
        answers.append(own_losses(held, Outcome(blank, blank))["moh/balance"])
    assert torch.allclose(answers[0], torch.cat(answers[1:]), atol=1e-7)
    assert answers[0][0] != answers[0][1]


@pytest.mark.parametrize(("stage", "entries"), [(0, 2), (1, 4)], ids=["once per exam", "per sentence"])
def test_a_stage_is_heard_as_often_as_it_runs(stage: int, entries: int) -> None:
    shared = {**SMALL, "fusion_stages": [1], "coarse_heads": True, "shared_stages": 1}
    torch.manual_seed(0)
    net = GroundingNet(NetConfig(**shared, **_blocks("dyn_perceiver", [stage])), text_channels=6).train()
    _, own, held = _step(net)
    assert [len(one["logits"]) for one in held["dyn_perceiver"][1]] == [entries]
    assert own["dyn_perceiver/heads"].shape == (2,)


def test_the_outcome_of_an_exam_is_that_of_its_sentences() -> None:
    outcome = Outcome(torch.tensor([[1.0, 0.0]]), torch.tensor([[0.0, math.nan]]))
    correct, present = outcome.of(1)
    assert (correct.item(), present.item()) == (0.5, 0.0)
    assert Outcome(torch.zeros(1, 2), torch.full((1, 2), math.nan)).of(1)[1].isnan().all()


class _Stage(nn.Module):
    """The voxels' attention of a decoder stage, worked out again in the backward pass or not."""

    def __init__(self, key: str, checkpointing: bool):
        super().__init__()
        net = _net(**_blocks(key, [0]))
        self.voxels, self.checkpointing = net.decoder.stages[1].voxels, checkpointing

    def forward(self, x: Tensor, tokens: Tensor, mask: Tensor) -> Tensor:
        out: Tensor = (
            checkpoint(self.voxels, x, tokens, mask, use_reentrant=False)
            if self.checkpointing
            else self.voxels(x, tokens, mask)
        )
        return out


@pytest.mark.parametrize("checkpointing", [False, True])
@pytest.mark.parametrize(
    "key",
    [
        "moh",
        *(pytest.param(key, marks=pytest.mark.slow) for key in ("duo", "hedgehog", "sparsifiner", "dyn_perceiver")),
    ],
)
def test_compiled_it_is_the_same(key: str, checkpointing: bool) -> None:
    """Losses and gradients, as the training step compiles it, without the code generator."""
    stage = _Stage(key, checkpointing)
    torch._dynamo.reset()
    given = (torch.randn(2, 4, 2, 3, 4), torch.randn(2, 5, 6), torch.ones(2, 5, dtype=torch.bool))
    compiled = torch.compile(stage, backend="aot_eager")
    seen = []
    for run in (stage, compiled, compiled):
        stage.zero_grad()
        with listening(stage) as held:
            task = run(*given).square().mean()
        own = own_losses(held, _outcome())
        (task + sum(value.sum() for value in own.values())).backward()
        assert all(block.own_losses is None for block, _ in held.values())
        seen.append({**own, **{name: p.grad for name, p in stage.named_parameters() if p.grad is not None}})
    for other in seen[1:]:
        assert other.keys() == seen[0].keys()
        for name, value in other.items():
            assert torch.allclose(value, seen[0][name], atol=1e-6), name
