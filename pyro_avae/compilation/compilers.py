"""Whether there is what inductor compiles with."""

from functools import cache

import torch

__all__ = ["compiler_missing"]


@cache
def compiler_missing(device: torch.device) -> str | None:
    """What is missing to compile for a device, None where nothing is.

    Example:
        >>> compiler_missing(torch.device("meta"))
        'no compiler for the device meta'
    """
    if device.type == "cpu":
        from torch._inductor.cpp_builder import get_cpp_compiler
        from torch._inductor.exc import InvalidCxxCompiler

        try:
            get_cpp_compiler()
        except InvalidCxxCompiler:
            return "no C++ compiler found (g++ or clang++, or the one that CXX names)"
        return None
    if device.type == "cuda":
        from torch.utils._triton import has_triton

        return None if has_triton() else "no Triton found, which torch compiles CUDA code with"
    return f"no compiler for the device {device.type}"
