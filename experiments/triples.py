"""The triple of a run's settings, the module of one's own method included."""

import sys
from collections.abc import Collection
from pathlib import Path

from pyro_avae.errors import InputError
from pyro_avae.experiments.methods import METHODS, builder_of
from pyro_avae.experiments.unused import WatchedSettings, refuse_unread
from pyro_avae.randomness import isolated, stream_seed
from pyro_avae.runs.settings import Settings
from pyro_avae.runs.triple import Triple, as_triple, import_builder

__all__ = ["make_importable", "make_triple"]


def make_triple(settings: Settings, *, given: Collection[str] = ()) -> Triple:
    """The settings' (model, guide, ELBO), its initial parameters drawn from the stream of the run's seed.

    Args:
        settings: of the run.
        given: names of the settings that were asked for, each of which a builder of one's own has to read.

    Raises:
        InputError: settings that the method cannot use or does not read, or networks that do not fit into memory.
    """
    path = settings.builder or builder_of(settings.method)
    watched = WatchedSettings.of(settings)
    builder = import_builder(path)
    with isolated(stream_seed(settings.seed, "parameters")):
        try:
            triple = as_triple(builder(watched), what=path)
        except (MemoryError, RuntimeError) as error:
            if isinstance(error, RuntimeError) and "alloc" not in str(error):
                raise
            raise InputError(
                f"hidden, latent_dim: networks of widths {settings.hidden} and {settings.latent_dim} latents do not"
                " fit into memory"
            ) from error
    if settings.method not in METHODS:  # those in the table say themselves what they have no use for
        refuse_unread(path, given, watched.read)
    return triple


def make_importable() -> None:
    """Have a module of the current directory found; behind all others, so that it hides none of Python's own."""
    here = str(Path.cwd())
    if here not in sys.path and "" not in sys.path:
        sys.path.append(here)
