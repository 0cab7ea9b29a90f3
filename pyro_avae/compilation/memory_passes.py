"""What is done to a graph so that inductor needs less memory for it, and less time to write and read."""

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import fx

from pyro_avae.compilation.products import add_product

__all__ = ["accumulate_in_place", "compute_for_each_reader", "lay_out_channels_last"]

_aten = torch.ops.aten

#: What changes a tensor's shape and no number.
_VIEWS = (
    _aten.view.default,
    _aten.reshape.default,
    _aten.expand.default,
    _aten.unsqueeze.default,
    _aten.t.default,
    _aten.permute.default,
    _aten.transpose.int,
)
_SUMS = (_aten.sum.default, _aten.sum.dim_IntList)

#: What reads no number of its argument.
_OF_SHAPE = (_aten.full_like.default, _aten.ones_like.default, _aten.zeros_like.default, _aten.new_zeros.default)

#: Readers that get a computation of their own: in a long chain where each has more, the graph would grow too much.
_MOST_READERS = 8

#: Elements of a sum of products from which on it is worth an operation of its own, which costs some microseconds.
_LARGE = 2**17


def compute_for_each_reader(graph: fx.GraphModule) -> None:
    """Give each reader of what is made of a sigmoid, element by element, a computation of its own.

    On a CPU, inductor keeps such values in memory where several operations read them: the decoder's pixels, for their
    likelihood and for its gradient. Computed by each reader from what the sigmoid is a function of, they stay in
    registers, and the gradient takes the place of the logits: a tensor or two of the batch's size less.
    """
    of_sigmoid: set[fx.Node] = set()
    for node in graph.graph.nodes:
        follows = any(argument in of_sigmoid for argument in node.all_input_nodes) and _is_elementwise(node)
        if (follows or node.target is _aten.sigmoid.default) and not _wanted_in_memory(node):
            of_sigmoid.add(node)
    for node in reversed([node for node in graph.graph.nodes if node in of_sigmoid]):
        for reader in list(node.users)[1:_MOST_READERS]:
            with graph.graph.inserting_before(reader):
                own = graph.graph.node_copy(node)
            reader.replace_input_with(node, own)
    graph.graph.lint()
    graph.recompile()


def _is_elementwise(node: fx.Node) -> bool:
    return node.target in _VIEWS or torch.Tag.pointwise in getattr(node.target, "tags", ())


def _wanted_in_memory(node: fx.Node) -> bool:
    """Whether an operation reads it that inductor does not merge with others: a matrix product, a convolution."""
    return any(
        _wanted_in_memory(reader)
        if reader.target in _VIEWS
        else not (_is_elementwise(reader) or reader.target in (*_SUMS, *_OF_SHAPE))
        for reader in node.users
    )


def lay_out_channels_last(graph: fx.GraphModule) -> None:
    """Have convolutions of a CPU read and write channels last, as their library computes them.

    A traced graph says of each tensor how it is laid out. What both a convolution and its gradient read was said to be
    contiguous, and was written three times: as said, and once for each of the two. Gradients of weights stay
    contiguous, as the weights are: an optimiser that works through memory takes no other.
    """
    convolutions = graph.graph.find_nodes(op="call_function", target=_aten.convolution.default)
    for node in graph.graph.find_nodes(op="call_function", target=_aten.view.default) if convolutions else ():
        node.target = _aten.reshape.default  # what was contiguous, and could be viewed, may not be any more
    backwards = graph.graph.find_nodes(op="call_function", target=_aten.convolution_backward.default)
    for node in convolutions:
        _lay_out(graph, node.args[:2], torch.channels_last)  # the image and the weight
    for node in backwards:
        _lay_out(graph, node.args[:3], torch.channels_last)
        _lay_out(graph, [part for part in node.users if part.args[1] == 1], torch.contiguous_format)
    graph.graph.lint()
    graph.recompile()


def _lay_out(graph: fx.GraphModule, nodes: Sequence[Any], layout: torch.memory_format) -> None:
    """Have whoever reads these images or weights read them in this layout."""
    for node in nodes:
        value = node.meta.get("val")
        laid_out = node.target is _aten.clone.default
        if laid_out or value is None or value.dim() != 4 or value.device.type != "cpu":
            continue
        after = node if node.op != "placeholder" else graph.graph.find_nodes(op="placeholder")[-1]
        with graph.graph.inserting_after(after):
            copy = graph.graph.call_function(_aten.clone.default, (node,), {"memory_format": layout})
        copy.meta = dict(node.meta)
        node.replace_all_uses_with(copy, delete_user_cb=lambda reader, copy=copy: reader is not copy)


def accumulate_in_place(graph: fx.GraphModule) -> None:
    """Add a large matrix product to another where that one is.

    The gradient of an encoder that is used twice is a sum of two products. Inductor computes one, copies it, and adds
    the other to the copy.
    """
    for node in graph.graph.find_nodes(op="call_function", target=_aten.t.default):
        if node.args[0].target is _aten.t.default:  # as autograd leaves the gradient of a layer's matrix
            node.replace_all_uses_with(node.args[0].args[0])
    graph.graph.eliminate_dead_code()
    for node in graph.graph.find_nodes(op="call_function", target=_aten.add.Tensor):
        if len(node.args) != 2 or node.kwargs or not all(map(_is_used_once, node.args)) or node.args[0] is node.args[1]:
            continue
        into, product = node.args
        one, other = into.meta["val"], product.meta["val"]
        if one.shape != other.shape or one.dtype != other.dtype or math.prod(one.shape) < _LARGE:
            continue
        with graph.graph.inserting_before(node):
            graph.graph.call_function(add_product, (into, *product.args))
        node.replace_all_uses_with(into)
        graph.graph.erase_node(node)
        graph.graph.erase_node(product)
    graph.graph.lint()
    graph.recompile()


def _is_used_once(product: Any) -> bool:
    """Whether it is a matrix product that one operation reads."""
    return isinstance(product, fx.Node) and product.target is _aten.mm.default and len(product.users) == 1
