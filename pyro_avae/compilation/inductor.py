"""A traced graph through torch's inductor, without what ``torch.compile`` does in front of it."""

import operator
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
from torch import Tensor, fx
from torch.utils import _pytree as pytree

from pyro_avae.compilation.memory_passes import accumulate_in_place, compute_for_each_reader, lay_out_channels_last

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
        self._output = output.args[0]
        self._run: Callable[[list[Tensor]], Sequence[Tensor]] | None = None
        self._strides: list[tuple[int, ...]] = []

    def __call__(self, tensors: list[Tensor]) -> Any:
        """Run it on its placeholders' tensors, in order; the list is empty afterwards."""
        if self._run is None:
            examples = [_without_overlap(tensor.detach()) for tensor in tensors]
            self._strides = [example.stride() for example in examples]
            given: Any = [examples]  # its signature knows of no list
            self._run = torch._inductor.compile(self._of_list(), given)
        for place, (tensor, stride) in enumerate(zip(tensors, self._strides, strict=True)):
            if tensor.stride() != stride:  # what is compiled takes one layout
                tensors[place] = tensor.new_empty_strided(tensor.shape, stride).copy_(tensor)
        return _filled(self._output, iter(self._run(tensors)))

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
        # Inductor returns a flat tuple, of tensors alone.
        whole.output(tuple(copies[leaf] for leaf in pytree.tree_leaves(self._output) if leaf is not None))
        made = fx.GraphModule(self._graph, whole)
        lay_out_channels_last(made)
        compute_for_each_reader(made)
        accumulate_in_place(made)
        return made


def _filled(output: Any, tensors: Iterator[Tensor]) -> Any:
    """What a graph returns, with tensors in the place of its nodes; in a twentieth of the time of torch's pytrees."""
    if isinstance(output, list | tuple):
        return [_filled(part, tensors) for part in output]
    return None if output is None else next(tensors)


def _without_overlap(tensor: Tensor) -> Tensor:
    """The tensor; a copy of one that was expanded."""
    return tensor.contiguous() if 0 in tensor.stride() else tensor
