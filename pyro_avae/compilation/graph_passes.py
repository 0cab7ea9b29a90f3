"""What is done to a traced graph: its constants become inputs, its writes new tensors, its repetitions one."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, fx
from torch.func import functionalize
from torch.fx.experimental.proxy_tensor import make_fx
from torch.fx.node import map_arg
from torch.utils import _pytree as pytree

__all__ = ["drop_unchanged_buffers", "functional", "lift_constants", "merge_equal"]

_aten = torch.ops.aten
_SAME = (_aten.detach.default, _aten.alias.default)
_COPIES = (*_SAME, _aten.clone.default)


def lift_constants(graph: fx.GraphModule, *, before: int) -> list[Tensor]:
    """Make inputs of the tensors that the graph holds, in front of the last ``before`` ones; returns the tensors.

    A change of such a tensor in place is then seen by whoever runs the graph.
    """
    placeholders = [node for node in graph.graph.nodes if node.op == "placeholder"]
    following = placeholders[len(placeholders) - before] if before else placeholders[-1].next
    constants: dict[str, Tensor] = {}
    lifted: dict[str, fx.Node] = {}
    for node in [node for node in graph.graph.nodes if node.op == "get_attr"]:
        name = str(node.target)
        value = getattr(graph, name)
        if not isinstance(value, Tensor):
            continue
        if name not in lifted:
            constants[name] = value
            with graph.graph.inserting_before(following):
                lifted[name] = graph.graph.placeholder(f"constant_{len(lifted)}")
            lifted[name].meta = dict(node.meta)
        node.replace_all_uses_with(lifted[name])
        following = node.next if node is following else following
        graph.graph.erase_node(node)
    for name in lifted:
        delattr(graph, name)
    _tidy(graph)
    return list(constants.values())


def functional(graph: fx.GraphModule, inputs: Sequence[Tensor]) -> fx.GraphModule:
    """The same graph with no operation that writes to a tensor: a precondition of what follows, and of ``vmap``."""
    with torch.no_grad():
        return make_fx(functionalize(graph), decomposition_table=_NO_COPY, tracing_mode="fake")(*inputs)


def _without_copy(into: Tensor, source: Tensor, non_blocking: bool = False) -> Tensor:
    return source.to(into.dtype).expand_as(into)


_NO_COPY = {_aten.copy.default: _without_copy}


def merge_equal(graph: fx.GraphModule) -> None:
    """Compute once what a functional graph computes twice.

    A view held constant in :math:`\\theta` is decoded with detached parameters, the model decodes the same z with the
    parameters themselves: two forward passes of equal numbers, of which one is left. Gradients are traced already, so
    nothing is lost of ``detach``.
    """
    seen: dict[Any, fx.Node] = {}
    for node in list(graph.graph.nodes):
        if node.op != "call_function":
            continue
        if node.target in _SAME:
            node.replace_all_uses_with(node.args[0])
            graph.graph.erase_node(node)
            continue
        first = seen.setdefault(_key(node), node)
        if first is not node:
            node.replace_all_uses_with(first)
            graph.graph.erase_node(node)
    _tidy(graph)


def _key(node: fx.Node) -> Any:
    """What two nodes have in common that compute the same; a trace has no random ones."""
    named = map_arg((node.args, node.kwargs), lambda argument: ("node", argument.name))
    leaves, structure = pytree.tree_flatten(named)
    return node.target, structure, tuple(map(repr, leaves))  # 0.0 equals -0.0 and 1, and is another argument


def drop_unchanged_buffers(graph: fx.GraphModule) -> list[int]:
    """Return no buffer that is still the one that came in, or a copy of it; gives the places of the others."""
    (output,) = (node for node in graph.graph.nodes if node.op == "output")
    loss, terms, gradients, buffers, gradient_sum = output.args[0]
    changed = [place for place, node in enumerate(buffers) if not _is_input(node)]
    output.args = ([loss, terms, gradients, [buffers[place] for place in changed], gradient_sum],)
    _tidy(graph)
    return changed


def _is_input(node: fx.Node) -> bool:
    while node.target in _COPIES:
        node = node.args[0]  # type: ignore[assignment]
    return node.op == "placeholder"


def _tidy(graph: fx.GraphModule) -> None:
    graph.graph.eliminate_dead_code()
    graph.graph.lint()
    graph.recompile()
