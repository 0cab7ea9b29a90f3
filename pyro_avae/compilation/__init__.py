"""Compiled steps of stochastic variational inference."""

from pyro_avae.compilation.base_noise import BaseNoise, NoiseSource, NoiseSpec
from pyro_avae.compilation.step import SVIProgram, compile_step

__all__ = ["BaseNoise", "NoiseSource", "NoiseSpec", "SVIProgram", "compile_step"]
