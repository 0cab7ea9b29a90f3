"""A traced graph through torch's inductor, without what ``torch.compile`` does in front of it."""

import operator
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, fx
from torch.utils import _pytree as pytree

from pyro_avae.compilation.memory_passes import accumulate_in_place, compute_for_each_reader

__all__ = ["Inductor"]


class Inductor:
    """A graph of tensor operations, compiled at its first run.

    ``torch.compile`` would trace it once more, look at every argument before each run, and hold them all until its
    end. This graph is traced already and run with tensors of one shape alone; its arguments come in a list, which is
    emptied, so that those that nobody else holds, the step's noise, are freed after their last use.

    Args:
        graph: with no operation that writes to a tensor. It is copied.
    """

    def __init__(self, graph: fx.GraphModule) -> None:
        self._graph = graph
        (output,) = graph.graph.find_nodes(op="output")
        # Inductor returns a flat tuple, of tensors alone.
        self._leaves, self._structure = pytree.tree_flatten(output.args[0])
        self._run: Callable[[list[Tensor]], Sequence[Tensor]] | None = None

    def __call__(self, tensors: list[Tensor]) -> Any:
        """Run it on its placeholders' tensors, in order; the list is empty afterwards."""
        if self._run is None:
            self._run = torch._inductor.compile(self._of_list(), [[tensor.detach() for tensor in tensors]])
        found = iter(self._run(tensors))
        return pytree.tree_unflatten([leaf and next(found) for leaf in self._leaves], self._structure)

    def _of_list(self) -> fx.GraphModule:
        """The graph as one of a list of its arguments, made to use little memory."""
        whole = fx.Graph()
        given = whole.placeholder("tensors")
        given.meta["steal_arg"] = True  # inductor empties the list, and frees an argument after its last use
        copies = {
            node: whole.call_function(operator.getitem, (given, place))
            for place, node in enumerate(self._graph.graph.find_nodes(op="placeholder"))
        }
        whole.graph_copy(self._graph.graph, copies)
        whole.output(tuple(copies[leaf] for leaf in self._leaves if leaf is not None))
        made = fx.GraphModule(self._graph, whole)
        compute_for_each_reader(made)
        accumulate_in_place(made)
        return made
