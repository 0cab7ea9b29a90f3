"""What is compiled: the same numbers, with less memory."""

import gc
import weakref

import pytest
import torch
from torch.fx.experimental.proxy_tensor import make_fx

from pyro_avae.compilation.inductor import Inductor
from pyro_avae.compilation.memory_passes import accumulate_in_place, compute_for_each_reader, lay_out_channels_last
from pyro_avae.compilation.products import add_product

_aten = torch.ops.aten


def _traced(function, *inputs):
    return make_fx(function, tracing_mode="fake")(*inputs)


def _count(graph, target):
    return len(graph.graph.find_nodes(op="call_function", target=target))


def _pixels(logits, x, weight):
    """Likelihood and its gradient, as a decoder's last layer has them."""
    mean = torch.sigmoid(logits)
    difference = mean - x
    gradient = difference * mean * (1 - mean)
    return [difference.square().sum(), gradient @ weight, gradient.sum(0)]


def test_what_is_made_of_a_sigmoid_is_computed_for_each_reader():
    inputs = [torch.randn(8, 6), torch.rand(8, 6), torch.randn(6, 3)]
    graph = _traced(_pixels, *inputs)
    before = [_count(graph, target) for target in (_aten.sigmoid.default, _aten.mm.default)]
    compute_for_each_reader(graph)
    assert before == [1, 1] and _count(graph, _aten.sigmoid.default) > 1
    assert _count(graph, _aten.mm.default) == 1
    assert all(
        len(node.users) == 1 for node in graph.graph.find_nodes(op="call_function", target=_aten.sigmoid.default)
    )
    torch.testing.assert_close(graph(*inputs), _pixels(*inputs), rtol=0, atol=0)


def test_what_a_product_reads_is_computed_once():
    inputs = [torch.randn(8, 6), torch.randn(6, 3), torch.randn(6, 3)]
    graph = _traced(lambda logits, a, b: [torch.sigmoid(logits) @ a, torch.sigmoid(logits).sum(), logits @ b], *inputs)
    twice = _count(graph, _aten.sigmoid.default)
    compute_for_each_reader(graph)
    assert _count(graph, _aten.sigmoid.default) == twice


def test_a_long_chain_of_readers_stays_short():
    def chain(x):
        for _ in range(30):
            x = torch.sigmoid(x) * x
        return [x.sum()]

    graph = _traced(chain, torch.randn(3))
    compute_for_each_reader(graph)
    assert len(graph.graph.nodes) < 1000


@pytest.mark.parametrize(("rows", "accumulated"), [(512, 1), (8, 0)])
def test_a_large_sum_of_products_is_accumulated_in_place(rows, accumulated):
    inputs = [torch.randn(4, rows), torch.randn(4, 512), torch.randn(4, rows), torch.randn(4, 512)]

    def of_two_uses(d1, x1, d2, x2):
        """As autograd leaves the gradient of a layer that was used twice."""
        return [((x1.t() @ d1).t().t() + (x2.t() @ d2).t().t()).t()]

    graph = _traced(of_two_uses, *inputs)
    accumulate_in_place(graph)
    assert _count(graph, add_product) == accumulated and _count(graph, _aten.mm.default) == 2 - accumulated
    torch.testing.assert_close(graph(*inputs), of_two_uses(*inputs))


def test_a_product_that_is_read_elsewhere_is_not_written_over():
    inputs = [torch.randn(512, 4), torch.randn(4, 512)]

    def read_again(a, b):
        product = a @ b
        return [product + 2 * a @ b, product.sum(), product + product]

    graph = _traced(read_again, *inputs)
    accumulate_in_place(graph)
    assert _count(graph, add_product) == 0
    torch.testing.assert_close(graph(*inputs), read_again(*inputs))


def test_compiled_it_returns_what_the_graph_returns_and_lets_go_of_its_arguments():
    def nested(a, b):
        return [a.sum(), [a * b, None], (), [b]]

    inputs = [torch.randn(5), torch.randn(5)]
    run = Inductor(_traced(nested, *inputs))
    for _ in range(2):
        a, b = torch.randn(5), torch.randn(5)
        expected, gone, given = nested(a, b), weakref.ref(a), [a, b]
        del a
        found = run(given)
        gc.collect()
        assert given == [] and gone() is None
        torch.testing.assert_close([found[0], found[1][0], found[3][0]], [expected[0], expected[1][0], b])
        assert found[1][1] is None and len(found) == 4


def test_arguments_may_be_laid_out_otherwise_than_the_first():
    first = [torch.randn(1, 3).expand(4, 3), torch.randn(4, 3)]
    run = Inductor(_traced(lambda a, b: [a * b.t().contiguous().t(), a.sum(0)], *first))
    for a, b in (first, [torch.randn(4, 3), torch.randn(3, 4).t()], [torch.randn(4, 6)[:, ::2], torch.randn(4, 3)]):
        torch.testing.assert_close(run([a, b]), [a * b, a.sum(0)])


def _conv_net(x, weight, wider):
    """Loss and gradients of two convolutions, one of them transposed, as autograd leaves them."""
    weights = [weight.detach().requires_grad_(), wider.detach().requires_grad_()]
    hidden = torch.relu(torch.nn.functional.conv2d(x, weights[0], stride=2, padding=1))
    out = torch.nn.functional.conv_transpose2d(hidden, weights[1], stride=2, padding=1)
    loss = (out.flatten(1) - x.flatten(1)).square().sum() + hidden.flatten(1).mean()
    return [loss.detach(), *torch.autograd.grad(loss, weights)]


def test_what_convolutions_read_is_laid_out_for_them_once():
    inputs = [torch.randn(2, 3, 8, 8), torch.randn(4, 3, 4, 4), torch.randn(4, 3, 4, 4)]
    graph = _traced(_conv_net, *inputs)
    convolutions = [_aten.convolution.default, _aten.convolution_backward.default]
    lay_out_channels_last(graph)
    for target in convolutions:
        for node in graph.graph.find_nodes(op="call_function", target=target):
            assert all(given.target is _aten.clone.default for given in node.args[:2])
    # The image, two weights, what lies between and the two gradients of images; the gradients of two weights.
    assert _count(graph, _aten.clone.default) <= 8 and _count(graph, _aten.view.default) == 0
    torch.testing.assert_close(graph(*inputs), _conv_net(*inputs), rtol=1e-4, atol=1e-4)
    found = Inductor(_traced(_conv_net, *inputs))(list(inputs))
    torch.testing.assert_close(found, _conv_net(*inputs), rtol=1e-4, atol=1e-4)
    assert all(gradient.is_contiguous() for gradient in found[1:])
