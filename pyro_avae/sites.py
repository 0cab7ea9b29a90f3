"""Names of the sample sites that models and guides share."""

from collections.abc import Iterator

__all__ = ["AUX", "NOISY", "PLATE", "SMOOTH", "X", "Z", "aux_sites"]

PLATE = "data"
Z = "z"
X = "x"
NOISY = "x_noisy"

#: The branch of an extended target that starts from the decoder's own samples, or the only one.
AUX = "aux"
#: The branch beside it that starts from the neighbourhood of the data.
SMOOTH = "smooth"


def aux_sites(num_views: int, branch: str = AUX) -> Iterator[tuple[str, str]]:
    """Yield the pair of names (view, its encoding) of each link of a branch's chain.

    Example:
        >>> list(aux_sites(2))
        [('x_aux', 'z_aux'), ('x_aux_2', 'z_aux_2')]
        >>> list(aux_sites(1, SMOOTH))
        [('x_smooth', 'z_smooth')]
    """
    for link in range(1, num_views + 1):
        suffix = "" if link == 1 else f"_{link}"
        yield f"x_{branch}{suffix}", f"z_{branch}{suffix}"
