"""Data sets as tensors on the device: real digits, coloured, and a user's own images."""

from pyro_avae.data.color import COLORS, ColoredSplit, color_data
from pyro_avae.data.folder import load_folder
from pyro_avae.data.idx import read_idx
from pyro_avae.data.mutated import MutatedSplit, mutated_data
from pyro_avae.data.registry import DATASETS, GENERATORS, load_dataset
from pyro_avae.data.split import ImageData, Split
from pyro_avae.data.three_dots import THREE_DOTS, ThreeDots

__all__ = [
    "COLORS",
    "DATASETS",
    "GENERATORS",
    "THREE_DOTS",
    "ColoredSplit",
    "ImageData",
    "MutatedSplit",
    "Split",
    "ThreeDots",
    "color_data",
    "load_dataset",
    "load_folder",
    "mutated_data",
    "read_idx",
]
