"""What a masked convolution sees, by its gradient."""

import pytest
import torch

from pyro_avae.errors import InputError
from pyro_avae.models.masked_convolution import MaskedConv2d, receptive_field


def seen_by(layer, *, at=(5, 5), side=11):
    """The pixels that one output pixel has a derivative in, as offsets (row, column)."""
    x = torch.randn(1, 1, side, side, requires_grad=True)
    (grad,) = torch.autograd.grad(layer(x)[0, :, at[0], at[1]].square().sum(), x)
    return {(i - at[0], j - at[1]) for i, j in grad[0, 0].nonzero().tolist()}


@pytest.mark.parametrize("width, rows", [(1, 1), (3, 1), (3, 2), (4, 2), (7, 4), (3, 0), (2, 0)])
@pytest.mark.parametrize("centre", [False, True])
def test_it_sees_the_block_above_and_what_is_left(width, rows, centre):
    torch.manual_seed(0)
    layer = MaskedConv2d(1, 3, rows=rows, width=width, centre=centre)
    columns = range(-(width // 2), (width - 1) // 2 + 1)
    block = {(-i, j) for i in range(1, rows + 1) for j in columns}
    left = {(0, -j) for j in range(0 if centre else 1, width // 2 + 1)}
    assert seen_by(layer) == block | left
    # The size that the paper gives: a block of A x B, and ceil((A - 1) / 2) pixels to the left.
    assert len(block | left) == width * rows + -(-(width - 1) // 2) + centre


def test_a_stack_sees_what_six_layers_of_three_see():
    torch.manual_seed(0)
    layers = [MaskedConv2d(1, 4, rows=1, width=3, centre=False)]
    layers += [MaskedConv2d(4, 4, rows=1, width=3, centre=True) for _ in range(5)]
    seen = seen_by(torch.nn.Sequential(*layers), at=(7, 7), side=15)
    assert len(seen) == 69
    above, left, right = receptive_field([(3, 1)] * 6)
    assert (above, left, right) == (-min(i for i, _ in seen), -min(j for _, j in seen), max(j for _, j in seen))


def test_weights_behind_the_mask_stay_as_they_are():
    layer = MaskedConv2d(1, 2, rows=1, width=3, centre=False)
    layer(torch.randn(2, 1, 5, 5)).square().sum().backward()
    assert (layer.weight.grad * (1 - layer.mask)).abs().max() == 0
    assert (layer.weight.grad * layer.mask).abs().max() > 0
    assert list(layer.state_dict()) == ["weight", "bias"]


@pytest.mark.parametrize(
    "rows, width, message", [(-1, 3, "0 rows"), (0, 0, "1 column"), (0, 1, "lets nothing through")]
)
def test_impossible_sizes_are_refused(rows, width, message):
    with pytest.raises(InputError, match=message):
        MaskedConv2d(1, 1, rows=rows, width=width, centre=False)
