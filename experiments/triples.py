"""The triple of a run's settings, and a run's trained pair, the module of one's own method included."""

import argparse
import sys
from collections.abc import Collection
from pathlib import Path

import torch

from pyro_avae.errors import InputError
from pyro_avae.experiments.methods import METHODS, builder_of
from pyro_avae.experiments.unused import WatchedSettings, refuse_unread
from pyro_avae.paths import shown
from pyro_avae.randomness import isolated, stream_seed
from pyro_avae.runs.loading import LoadedRun, load_run
from pyro_avae.runs.run_folder import RunFolder
from pyro_avae.runs.settings import Settings
from pyro_avae.runs.triple import Triple, build_triple, import_builder
from pyro_avae.runs.trust import LIBRARY, Trust, check_trusted

__all__ = ["add_trust", "load_trusted", "make_importable", "make_triple"]


def add_trust(parser: argparse.ArgumentParser) -> None:
    """``--trust``, of every command that loads runs."""
    parser.add_argument(
        "--trust",
        action="append",
        default=[],
        metavar="MODULE:FUNCTION",
        help="a builder that a run may name though you have not trained with it: its module is run; may be repeated",
    )


def load_trusted(run: Path, *, device: str | torch.device, trust: Trust) -> LoadedRun:
    """:func:`~pyro_avae.runs.load_run`, the module of one's own method looked for in the current directory too."""
    folder = RunFolder(run)
    make_importable(folder.read_settings().builder, trust=trust, where=f"{shown(folder.config)}: builder")
    return load_run(run, device=device, trust=trust)


def make_triple(settings: Settings, *, given: Collection[str] = (), trust: Trust = ()) -> Triple:
    """The settings' (model, guide, ELBO), its initial parameters drawn from the stream of the run's seed.

    Args:
        settings: of the run.
        given: names of the settings that were asked for, each of which a builder of one's own has to read.
        trust: builders of one's own that were asked for, see :func:`~pyro_avae.runs.trust.check_trusted`.

    Raises:
        InputError: a builder that is not trusted, settings that the method cannot use or does not read, or networks
            that do not fit into memory.
    """
    path = settings.builder or builder_of(settings.method)
    watched = WatchedSettings.of(settings)
    builder = import_builder(path, trust=trust)
    with isolated(stream_seed(settings.seed, "parameters")):
        triple = build_triple(builder, watched, what=path)
    if settings.method not in METHODS:  # those in the table say themselves what they have no use for
        refuse_unread(path, given, watched.read)
    return triple


def make_importable(builder: str | None, *, trust: Trust, where: str) -> None:
    """Have a run's builder found in the current directory, where it is one's own and trusted.

    The directory comes behind all others, so that it hides none of Python's own modules.

    Args:
        builder: as the run names it.
        trust: builders that were asked for, see :func:`~pyro_avae.runs.trust.check_trusted`.
        where: what names the builder, for the error.

    Raises:
        InputError: the builder is not trusted.
    """
    if builder in (None, LIBRARY):
        return
    here = str(Path.cwd())
    is_new = here not in sys.path and "" not in sys.path
    if is_new:
        sys.path.append(here)
    try:
        check_trusted(builder, trust=trust, where=where)
    except InputError:
        if is_new:
            sys.path.remove(here)
        raise
