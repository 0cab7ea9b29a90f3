"""``--devices`` and ``--nodes``: the processes of one training, of which the first decides and speaks for all."""

import argparse
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TypeVar

import torch
from torch import distributed

from pyro_avae.devices import as_device, default_device
from pyro_avae.errors import InputError, RankError
from pyro_avae.experiments.options import reader
from pyro_avae.runs.kinds import Integer
from pyro_avae.training.fabric import launch, launched_by_torchrun
from pyro_avae.training.ranks import OneRank, Ranks

__all__ = ["OtherRank", "add_arguments", "check_batch_size", "decided_by_first", "started"]

T = TypeVar("T")


class OtherRank(Exception):
    """A process that is not the first has nothing to say: what ended it is told by the first."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """``--devices`` and ``--nodes``."""
    for name, meaning in (("--devices", "devices of this machine"), ("--nodes", "machines")):
        read = reader(name, Integer(1, 10**5))
        parser.add_argument(name, type=read, default=None, metavar="N", help=f"{meaning} that share a batch")


@contextmanager
def started(args: argparse.Namespace) -> Iterator[tuple[Ranks, torch.device]]:
    """The ranks, with every process of them in the block, and this one's device.

    Errors of the first rank leave the block; those that all ranks have, and the loss of another one, are its to tell,
    and leave the block of the others as :class:`OtherRank`.

    Raises:
        InputError: as :func:`~pyro_avae.training.fabric.launch`; a numbered device for several.
    """
    devices, nodes = _wanted(args)
    if devices * nodes > 1 and ":" in (args.device or ""):
        raise InputError(f"--device: expected cpu or cuda with several --devices, got {args.device}")
    device = as_device(args.device or default_device())
    if devices * nodes == 1:
        yield OneRank(), device
        return
    ranks, device = launch(devices=devices, nodes=nodes, device_type=device.type)
    try:
        yield ranks, device
    except (InputError, FloatingPointError, RankError, KeyboardInterrupt) as error:
        if ranks.rank:
            raise OtherRank from error
        raise
    finally:
        distributed.destroy_process_group()


def check_batch_size(args: argparse.Namespace, batch_size: Callable[[], int]) -> None:
    """Refuse a batch that the devices cannot share, before any process is started.

    Raises:
        InputError: its size is no multiple of their number.
    """
    devices, nodes = _wanted(args)
    if devices * nodes > 1 and batch_size() % (devices * nodes):
        raise InputError(f"--batch-size: expected a multiple of the {devices * nodes} devices, got {batch_size()}")


def _wanted(args: argparse.Namespace) -> tuple[int, int]:
    return launched_by_torchrun() or (args.devices or 1, args.nodes or 1)


def decided_by_first(ranks: Ranks, decide: Callable[[], T]) -> T:
    """What ``decide`` returns on the first rank, for all of them; an error of its own ends the others too."""
    if ranks.rank:
        found = ranks.from_first(None)
        if found is None:
            raise OtherRank
        return found[0]
    try:
        decided = decide()
    except Exception:
        ranks.from_first(None)
        raise
    ranks.from_first((decided,))
    return decided
