"""Runs on disk: their settings, their folders, their checkpoints, and the way back to a trained pair."""

from pyro_avae.runs.loading import LoadedRun, load, load_run
from pyro_avae.runs.run_folder import RunFolder
from pyro_avae.runs.settings import Settings
from pyro_avae.runs.stored_probes import StoredProbes

__all__ = ["LoadedRun", "RunFolder", "Settings", "StoredProbes", "load", "load_run"]
