"""routing and sparsifiner: content decides which keys a query sees."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import layer_norm, mse_loss, normalize
from torch.utils.checkpoint import checkpoint

from petground.models import build
from petground.models.blocks.attention import sparsifiner as sparsifiner_module
from petground.models.blocks.attention.softmax import SoftmaxAttention
from petground.models.blocks.contract import BlockError, Grid
from tests.models.conformance.memory import largest_tensor

HEADS, DIM = 2, 4
GRID = Grid((3, 5, 4))


def qkv(count: int = GRID.tokens, *, seed: int = 0, batch: int = 2) -> tuple[Tensor, ...]:
    made = torch.Generator().manual_seed(seed)
    return tuple(torch.randn(batch, HEADS, count, DIM, generator=made, dtype=torch.float64) for _ in range(3))


def block(key: str, **options: Any) -> nn.Module:
    torch.manual_seed(0)
    return build("attention", key, channels=HEADS * DIM, num_heads=HEADS, **options).double().eval()


def plain(q: Tensor, k: Tensor, v: Tensor, **given: Any) -> Tensor:
    return SoftmaxAttention(HEADS * DIM, HEADS)(q, k, v, **given)[0]


def test_routing_with_one_cluster_is_attention_on_normalised_queries_and_keys() -> None:
    q, k, v = qkv()
    mask = torch.rand(2, GRID.tokens, generator=torch.Generator().manual_seed(1)) > 0.3
    out, _ = block("routing", clusters=1, local_heads=0)(q, k, v, mask=mask)
    wanted = plain(layer_norm(q, (DIM,)), layer_norm(k, (DIM,)), v, mask=mask)
    assert torch.allclose(out[mask[:, None].expand(-1, HEADS, -1)], wanted[mask[:, None].expand(-1, HEADS, -1)])


def test_routing_equals_the_peer() -> None:
    """Against KmeansAttention of routing-transformer (in the extra peers), with our centroids."""
    peer = pytest.importorskip("routing_transformer.routing_transformer", reason="missing: extra peers")
    q, k, v = qkv(batch=3)
    ours = block("routing", clusters=7, local_heads=0)
    theirs = peer.KmeansAttention(7, -(-GRID.tokens // 7), HEADS, DIM).double().eval()
    theirs.kmeans.means.copy_(ours.centroids)
    theirs.kmeans.initted.fill_(True)
    with torch.no_grad():
        wanted, _ = theirs(layer_norm(q, (DIM,)), layer_norm(k, (DIM,)), v)
        assert torch.allclose(ours(q, k, v)[0], wanted, atol=1e-4)  # it divides by the count + 1e-5


def test_routing_looks_nowhere_outside_its_clusters() -> None:
    q, k, v = qkv()
    module = block("routing", clusters=6, local_heads=0)
    _, weights = module(q, k, v, grid=GRID, need_weights=True)
    asking, _ = module.members(layer_norm(q, (DIM,)), None)
    asked, _ = module.members(layer_norm(k, (DIM,)), None)
    assert asking.shape == asked.shape == (2, HEADS, 6, 10)  # ten of 60 tokens each
    shared = torch.zeros(2, HEADS, GRID.tokens, GRID.tokens, dtype=torch.bool)
    for b in range(2):
        for h in range(HEADS):
            for c in range(6):
                shared[b, h, asking[b, h, c][:, None], asked[b, h, c]] = True
    assert torch.equal(weights > 0, shared)
    taken = shared.any(-1)
    assert torch.allclose(weights.sum(-1), taken.double())
    assert not taken.all()  # some query is in no cluster: zero


def test_routing_local_heads_see_their_box() -> None:
    q, k, v = qkv()
    _, weights = block("routing", clusters=4, local_heads=1, radius=[0, 1, 1])(q, k, v, grid=GRID, need_weights=True)
    place = 1 * 20 + 2 * 4 + 1  # z 1, y 2, x 1
    seen = {20 + y * 4 + x for y in (1, 2, 3) for x in (0, 1, 2)}
    assert set(weights[0, 0, place].nonzero().flatten().tolist()) == seen
    _, line = block("routing", clusters=4, local_heads=2, span=2)(q, k, v, need_weights=True)
    assert set(line[0, 1, 30].nonzero().flatten().tolist()) == {28, 29, 30, 31, 32}


def test_routing_centroids_follow_in_training_only() -> None:
    q, k, v = qkv()
    mask = torch.ones(2, GRID.tokens, dtype=torch.bool)
    mask[:, 40:] = False
    for decay, training, moves in ((0.9, True, True), (1.0, True, False), (0.9, False, False)):
        module = block("routing", clusters=5, local_heads=0, decay=decay).train(training)
        before = module.centroids.clone()
        module(q, k, v, mask=mask)
        assert torch.equal(module.centroids, before)  # one forward, and its second run, sees one set
        module(q, k, v, mask=mask)
        assert torch.allclose(module.centroids, before, atol=1e-12) != moves
        assert torch.allclose(module.centroids.norm(dim=-1), torch.ones(HEADS, 5).double())
        assert "centroids" in module.state_dict()
    module = block("routing", clusters=5, local_heads=0, decay=0.9).train()
    other = block("routing", clusters=5, local_heads=0, decay=0.9).train()
    module(q, k, v, mask=mask)
    start = module.centroids.clone()
    module(q, k, v, mask=mask)
    loud = [torch.where(mask[:, None, :, None], one, 7.0 * one + 3.0) for one in (q, k, v)]
    for _ in range(2):
        other(*loud, mask=mask)
    assert torch.allclose(module.centroids, other.centroids)  # padding moves nothing
    assert not torch.allclose(module.centroids, start)


def test_routing_moves_its_centroids_by_the_formula() -> None:
    """One step by hand: in two channels a layer-normalised token is (1, -1) or (-1, 1), by which of its two is more."""
    module = build("attention", "routing", channels=2, num_heads=1, clusters=2, local_heads=0, decay=0.9).double()
    near, far = torch.tensor([1.0, -1.0]).double() / 2**0.5, torch.tensor([0.8, 0.6]).double()
    module.centroids.copy_(torch.stack([near, far])[None])
    more, less = [3.0, 1.0], [1.0, 3.0]
    q, k = torch.tensor([[more, more, less, less], [more] * 4])[:, None, None].double()
    for _ in range(2):
        module.train()(q, k, q)
    # `far` is nearest to the two queries (-1, 1) / sqrt 2 and to no key, `near` to all the rest, which is itself
    moved = 0.9 * far + 0.1 * (-near + far) / 2
    assert torch.allclose(module.centroids[0], torch.stack([near, moved / moved.norm()]))


def test_routing_tokens_that_differ_move_a_centroid_less() -> None:
    """The mean of what is nearest, 0.45 along and 0.45 across, counts with its length: it is no unit vector."""
    module = build("attention", "routing", channels=3, num_heads=1, clusters=1, local_heads=0, decay=0.9).double()
    along, across = normalize(torch.tensor([[2.0, -1.0, -1.0], [0.0, 1.0, -1.0]]).double())
    module.centroids.copy_(along[None, None])
    there, away = 0.6 * along + 0.8 * across, 0.6 * along - 0.8 * across
    tokens = torch.stack([there, there, away, across])[None, None]
    for _ in range(2):
        module.train()(tokens, tokens, tokens)
    moved = 0.9 * along + 0.1 * (0.45 * along + 0.45 * across)
    assert torch.allclose(module.centroids[0, 0], moved / moved.norm())


@pytest.mark.parametrize("reentrant", [True, False])
def test_routing_under_checkpointing_takes_the_same_steps(reentrant: bool) -> None:
    """Three steps: gradients, parameters and centroids as without it."""
    found = []
    for again in (False, True):
        torch.manual_seed(0)
        module, layer = block("routing", clusters=5, local_heads=0, decay=0.3).train(), nn.Linear(DIM, DIM).double()
        descent = torch.optim.SGD(layer.parameters(), lr=0.5)
        for _ in range(3):
            q, k, v = qkv()

            def run(*heads: torch.Tensor) -> torch.Tensor:
                return module(*(layer(one) for one in heads))[0]  # noqa: B023

            given = q.requires_grad_(), k, v
            out = checkpoint(run, *given, use_reentrant=reentrant) if again else run(*given)
            loss = out.square().mean()
            if not reentrant:  # a network may call it twice before it goes backward
                loss = loss + (checkpoint(run, *given, use_reentrant=False) if again else run(*given)).mean()
            loss.backward()
            found.append([q.grad.clone(), layer.weight.grad.clone(), module.centroids.clone()])
            descent.step()
            descent.zero_grad()
    for plain, checkpointed in zip(found[:3], found[3:], strict=True):
        for one, other in zip(plain, checkpointed, strict=True):
            assert torch.allclose(one, other, atol=1e-12)
    assert not torch.allclose(found[0][2], found[1][2])
    assert not torch.allclose(found[1][2], found[2][2])


def test_routing_learns_clusters_of_like_content() -> None:
    """Tokens around three directions: after some steps each direction has the centroid nearest to it."""
    torch.manual_seed(0)
    module = build("attention", "routing", channels=8, num_heads=1, clusters=3, local_heads=0, decay=0.8).train()
    aims = torch.eye(8)[:3] - torch.eye(8)[3:6]
    aims = aims / aims.norm(dim=-1, keepdim=True)
    with torch.no_grad():
        module.centroids.copy_((aims + 0.4 * torch.randn(3, 8))[None] / 2)
        before = (aims @ (module.centroids[0] / module.centroids[0].norm(dim=-1, keepdim=True)).T).diagonal().min()
        for _ in range(40):
            x = (aims.repeat(20, 1) + 0.1 * torch.randn(60, 8))[None, None]
            module(x, x, x)
    after = (aims @ module.centroids[0].T).diagonal().min()
    assert after > max(float(before), 0.98)


def test_routing_holds_n_by_cluster_size() -> None:
    q, k, v = (one.requires_grad_() for one in qkv(4096, batch=1))
    with largest_tensor() as made:
        block("routing", clusters=64, local_heads=0)(q, k, v)[0].sum().backward()
    assert made.numbers <= HEADS * 4096 * 64  # N^1.5 for each head, N x N would be 64 times as much


def test_sparsifiner_keeping_all_is_softmax_attention() -> None:
    q, k, v = qkv()
    mask = torch.rand(2, GRID.tokens, generator=torch.Generator().manual_seed(1)) > 0.3
    out, _ = block("sparsifiner", keep=99)(q, k, v, grid=GRID, mask=mask)
    assert torch.allclose(out, plain(q, k, v, mask=mask), atol=1e-12)


def test_sparsifiner_has_exactly_k_keys_and_the_exact_softmax_on_them() -> None:
    q, k, v = qkv()
    module = block("sparsifiner", keep=7, n_down=4, lattice_zyx=[2, 2, 2])
    out, weights = module(q, k, v, grid=GRID, need_weights=True)
    assert ((weights > 0).sum(-1) == 7).all()
    scores = (q @ k.transpose(-1, -2) * DIM**-0.5).masked_fill(weights == 0, float("-inf"))
    assert torch.allclose(weights, scores.softmax(-1), atol=1e-12)
    assert torch.allclose(out, weights @ v, atol=1e-12)
    guess = module.guess(q, k, grid=GRID)
    kept = guess.masked_fill(weights == 0, float("inf")).amin(-1)
    assert (kept >= guess.masked_fill(weights > 0, float("-inf")).amax(-1)).all()  # the best guessed are kept


def test_sparsifiner_mask_depends_on_the_image_and_goes_with_it() -> None:
    module = block("sparsifiner", keep=7, n_down=4, lattice_zyx=[2, 2, 2])
    nn.init.normal_(module.up)
    nn.init.normal_(module.down)
    q, k, v = qkv()
    _, weights = module(q, k, v, grid=GRID, need_weights=True)
    assert not torch.equal(weights[0] > 0, weights[1] > 0)
    _, turned = module(q.flip(0), k.flip(0), v.flip(0), grid=GRID, need_weights=True)
    assert torch.equal(turned.flip(0) > 0, weights > 0)


def test_sparsifiner_in_float32_keeps_keys_that_float64_guesses_as_high() -> None:
    """On a coarse lattice guesses tie at the rim: which of them is kept is free, the guess and the softmax are not."""
    grid = Grid((5, 7, 6))
    q, k, v = qkv(grid.tokens)
    module = block("sparsifiner", keep=7, n_down=4, lattice_zyx=[2, 2, 2])
    guess = module.guess(q, k, grid=grid)
    best, following = guess.topk(8, dim=-1).values.split([7, 1], dim=-1)
    assert torch.isclose(best[..., 6:], following, rtol=1e-9).any(), "none tie, and rounding decides about none"
    single = block("sparsifiner", keep=7, n_down=4, lattice_zyx=[2, 2, 2]).float()
    chosen, _ = single.connected(q.float(), k.float(), grid=grid)
    assert torch.allclose(guess.gather(-1, chosen).sort(descending=True).values, best, rtol=1e-5)
    out, weights = single(q.float(), k.float(), v.float(), grid=grid, need_weights=True)
    kept = torch.zeros_like(guess, dtype=torch.bool).scatter(-1, chosen, True)
    assert torch.equal(weights > 0, kept)
    scores = (q @ k.transpose(-1, -2) * DIM**-0.5).masked_fill(~kept, float("-inf"))
    assert torch.allclose(out.double(), scores.softmax(-1) @ v, atol=1e-5)


def test_sparsifiner_masked_pairs_have_no_value_gradient() -> None:
    q, k, v = qkv(batch=1)
    module = block("sparsifiner", keep=3, n_down=4)
    _, weights = module(q, k, v, grid=GRID, need_weights=True)
    v = v.clone().requires_grad_()
    (gradient,) = torch.autograd.grad(module(q, k, v, grid=GRID)[0][0, 0, 17].sum(), v)
    assert torch.equal(gradient[0, 0].abs().sum(-1) > 0, weights[0, 0, 17] > 0)


def test_sparsifiner_predictor_learns_from_a_dense_teacher() -> None:
    torch.manual_seed(0)
    q, k, v = (one.float() for one in qkv())
    teacher = (q @ k.transpose(-1, -2) * DIM**-0.5).softmax(-1)
    module = block("sparsifiner", keep=6, n_down=8, lattice_zyx=[3, 5, 4]).float()
    optimizer = torch.optim.Adam(module.parameters(), lr=0.02)

    def caught() -> float:
        kept = module(q, k, v, grid=GRID, need_weights=True)[1] > 0
        return float(teacher[kept].sum() / (teacher.sum()))

    before = caught()
    for _ in range(150):
        loss = mse_loss(module.guess(q, k, grid=GRID), teacher)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert all(p.grad is not None for p in module.parameters())
    assert caught() > before + 0.05  # more of the dense attention lies on the keys that it keeps


@pytest.mark.parametrize("rows_at_once", [1, 3])
def test_sparsifiner_guesses_some_rows_at_a_time(monkeypatch: pytest.MonkeyPatch, rows_at_once: int) -> None:
    grid = Grid((8, 8, 8))
    q, k, v = qkv(grid.tokens, batch=1)
    module = block("sparsifiner", keep=8, n_down=8)
    whole, _ = module(q, k, v, grid=grid)
    monkeypatch.setattr(sparsifiner_module, "AT_ONCE", rows_at_once * grid.tokens * HEADS)
    with largest_tensor() as made:
        out, _ = module(q, k, v, grid=grid)
    assert torch.allclose(out, whole, atol=1e-12)
    assert made.numbers < HEADS * grid.tokens**2 / 8
    gradients = []
    for at_once in (rows_at_once * grid.tokens * HEADS, 1 << 22):
        monkeypatch.setattr(sparsifiner_module, "AT_ONCE", at_once)
        inputs = [one.clone().requires_grad_() for one in (q, k, v)]
        gradients.append(torch.autograd.grad(module(*inputs, grid=grid)[0].square().sum(), inputs))
    for some, all_at_once in zip(*gradients, strict=True):
        assert torch.allclose(some, all_at_once, atol=1e-12)


def test_options_that_cannot_be_are_refused() -> None:
    for key, options in (
        ("routing", {"clusters": 0}),
        ("routing", {"local_heads": 3}),
        ("routing", {"decay": 1.5}),
        ("routing", {"radius": [1, 1]}),
        ("sparsifiner", {"keep": 0}),
        ("sparsifiner", {"lattice_zyx": [0, 1, 1]}),
    ):
        with pytest.raises(BlockError):
            block(key, **options)
