"""DaViT's pair: what windows and channels each may see."""

from __future__ import annotations

import pytest
import torch

from petground.models.blocks.attention.dual_window_channel import channel_attention
from petground.models.blocks.contract import BlockInputError, Grid
from petground.models.registry import build
from tests.models.conformance.memory import largest_tensor


def _tokens(count: int, channels: int = 8) -> list[torch.Tensor]:
    torch.manual_seed(0)
    return [torch.randn(2, count, channels, dtype=torch.float64) for _ in range(3)]


def test_channels_follow_any_order_of_the_voxels() -> None:
    q, k, v = _tokens(30)
    order = torch.randperm(30)
    out = channel_attention(q, k, v, groups=2)
    assert torch.allclose(channel_attention(q[:, order], k[:, order], v[:, order], groups=2), out[:, order], atol=1e-10)


def test_channel_weights_are_shares_and_stay_in_their_group() -> None:
    q, k, v = _tokens(30)
    ones = channel_attention(q, k, torch.ones_like(v), groups=2)
    assert torch.allclose(ones, torch.ones_like(ones))  # rows sum to one
    marked = v.clone()
    marked[..., 4:] += 5.0
    assert torch.equal(
        channel_attention(q, k, marked, groups=2)[..., :4], channel_attention(q, k, v, groups=2)[..., :4]
    )
    assert torch.allclose(channel_attention(q, k, v, groups=8), v)  # one channel to a group


def test_channel_attention_by_hand() -> None:
    q, k, v = _tokens(5, channels=4)
    a = (q[0, :, 2:].T @ k[0, :, 2:] / 2**0.5).softmax(-1)
    assert torch.allclose(channel_attention(q, k, v, groups=2)[0, :, 2:], (a @ v[0, :, 2:].T).T)


@pytest.mark.parametrize("by_positions", [False, True])
def test_padding_is_no_part_of_the_channel_map(by_positions: bool) -> None:
    q, k, v = _tokens(30)
    mask = torch.ones(2, 30, dtype=torch.bool)
    mask[:, 20:] = False
    masked = channel_attention(q, k, v, groups=2, mask=mask, by_positions=by_positions)
    short = channel_attention(q[:, :20], k[:, :20], v[:, :20], groups=2, by_positions=by_positions)
    assert torch.allclose(masked[:, :20], short)


def test_the_channel_map_does_not_grow_with_the_grid() -> None:
    q, k, v = _tokens(4000, channels=16)
    with largest_tensor() as made:
        channel_attention(q, k, v, groups=4)
    assert made.numbers <= 2 * q.numel()  # inputs and results, no 4000 x 4000


def test_both_paths_are_in_one_block() -> None:
    """One channel to a group and no convolution leave the windows; else a far voxel is felt through the channels."""
    grid = Grid((4, 4, 4))
    torch.manual_seed(0)
    q, k, v = (torch.randn(1, 2, 64, 4, dtype=torch.float64) for _ in range(3))
    near = build(
        "attention", "dual_window_channel", channels=8, num_heads=2, window=[2, 2, 2], groups=8, position=False
    ).double()
    windows = build("attention", "swin_window_3d", channels=8, num_heads=2, window=[2, 2, 2], shift="plain").double()
    torch.nn.init.zeros_(windows.positions[0].table)
    assert torch.allclose(near(q, k, v, grid=grid)[0], windows(q, k, v, grid=grid)[0])
    whole = build(
        "attention", "dual_window_channel", channels=8, num_heads=2, window=[2, 2, 2], position=False
    ).double()
    far = q.clone().requires_grad_()
    out, _ = whole(far, k, v, grid=grid)
    (gradient,) = torch.autograd.grad(out[:, :, 0].sum(), far)
    assert (gradient[:, :, -1] != 0).any()
    with pytest.raises(BlockInputError, match="as wide as q"):
        whole(q, k, v[..., :2], grid=grid)
