"""Vision Remember: a coarse token re-reads its own cell and nothing else."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from petground.models import build
from petground.models.blocks.fusion.cells import stacked


def _block(stride: int = 2, **options: object) -> nn.Module:
    torch.manual_seed(0)
    block = build("fusion", "vision_remember", channels=8, text_channels=6, num_heads=2, stride=stride, **options)
    for parameter in block.parameters():
        parameter.data.add_(0.3 * torch.randn_like(parameter))
    return block.double().eval()


def _inputs(grid: tuple[int, int, int] = (5, 4, 6)) -> tuple[Tensor, Tensor, Tensor]:
    torch.manual_seed(1)
    return torch.randn(1, 8, *grid).double(), torch.randn(1, 5, 6).double(), torch.ones(1, 5, dtype=torch.bool)


def test_fine_features_of_other_cells_have_no_influence() -> None:
    """On a grid whose last z slice is half a cell: the change in a cell depends on that cell's skip and x alone."""
    block = _block()
    x, tokens, mask = _inputs()
    skip = torch.randn_like(x).requires_grad_()
    leaf = x.clone().requires_grad_()
    out, _ = block(leaf, tokens, mask, skip=skip)
    for inside, probe in (
        ((slice(2, 4), slice(0, 2), slice(4, 6)), (3, 1, 4)),
        ((slice(4, 5), slice(2, 4), slice(0, 2)), (4, 2, 1)),
    ):
        of_skip, of_x = torch.autograd.grad(
            out[(0, slice(None), *probe)].square().sum(), (skip, leaf), retain_graph=True
        )
        for grad in (of_skip, of_x):
            assert grad[(0, slice(None), *inside)].abs().amin(dim=0).min() > 0
            grad[(0, slice(None), *inside)] = 0.0
            assert grad.abs().max() == 0


def test_weights_of_a_cell_sum_to_one() -> None:
    """Where all voxels of a cell are alike, it reads just that, in a cut cell too."""
    block = _block()
    _, tokens, mask = _inputs()
    x = torch.randn(1, 8, 1, 1, 1).double().expand(1, 8, 3, 5, 4)
    out, _ = block(x, tokens, mask)
    value = block.out(block.values["x"](block.norms["x"](x[:, :, 0, 0, 0])))
    assert torch.allclose(out - x, value[:, :, None, None, None].expand_as(x), atol=1e-12)


def test_uniform_logits_are_average_pooling_of_the_values() -> None:
    block = _block()
    nn.init.zeros_(block.query.weight)
    nn.init.zeros_(block.query.bias)
    x, tokens, mask = _inputs((4, 4, 6))
    skip = torch.randn_like(x)
    values = block.values["x"](block.norms["x"](x.movedim(1, -1))) + block.values["skip"](
        block.norms["skip"](skip.movedim(1, -1))
    )
    mean = nn.functional.avg_pool3d(values.movedim(-1, 1), 2)
    added = block.out(mean.movedim(1, -1)).movedim(-1, 1)
    spread = added.repeat_interleave(2, 2).repeat_interleave(2, 3).repeat_interleave(2, 4)
    assert torch.allclose(block(x, tokens, mask, skip=skip)[0], x + spread, atol=1e-12)


def test_a_cell_of_one_voxel_is_a_pointwise_projection() -> None:
    block = _block(stride=1)
    x, tokens, mask = _inputs((3, 2, 5))
    added = block.out(block.values["x"](block.norms["x"](x.movedim(1, -1)))).movedim(-1, 1)
    assert torch.allclose(block(x, tokens, mask)[0], x + added, atol=1e-12)
    assert torch.equal(block(x, 3 * tokens, mask)[0], block(x, tokens, mask)[0])


def test_the_text_chooses_within_the_cell() -> None:
    block = _block()
    x, tokens, mask = _inputs()
    assert not torch.allclose(block(x, tokens, mask)[0], block(x, -tokens, mask)[0], atol=1e-4)


def test_the_encoders_part_is_worked_out_once_per_exam() -> None:
    block, rows = _block(), []
    block.keys["skip"].register_forward_hook(lambda _, __, out: rows.append(len(out)))
    x, tokens, mask = _inputs()
    block(x.repeat(3, 1, 1, 1, 1), tokens.repeat(3, 1, 1), mask.repeat(3, 1), skip=x)
    assert rows == [1]
    assert stacked(x, 2).shape == (1, 18, 8, 8)
