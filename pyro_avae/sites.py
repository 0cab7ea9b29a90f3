"""Names of the sample sites that models and guides share."""

from collections.abc import Iterator

__all__ = ["PLATE", "X", "Z", "aux_sites"]

PLATE = "data"
Z = "z"
X = "x"


def aux_sites(num_views: int) -> Iterator[tuple[str, str]]:
    """Yield the pair of names (decoder sample, its encoding) of each link of a chain.

    Example:
        >>> list(aux_sites(2))
        [('x_aux', 'z_aux'), ('x_aux_2', 'z_aux_2')]
    """
    for link in range(1, num_views + 1):
        suffix = "" if link == 1 else f"_{link}"
        yield f"x_aux{suffix}", f"z_aux{suffix}"
