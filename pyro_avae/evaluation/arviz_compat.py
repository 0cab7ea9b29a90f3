"""ArviZ 0.2x (Python 3.11) and 1.x (Python 3.12 and later) behind one set of functions.

1.x moved the statistics to ``arviz_stats``, nests the dictionary of groups, returns a ``DataTree`` instead of
``InferenceData``, and its PSIS takes *minus* the log weights. Everything else in this library goes through here.
"""

import functools
import importlib
import warnings
from typing import Any

import numpy as np

__all__ = ["chains_to_arviz", "effective_sample_size", "pareto_k", "potential_scale_reduction"]


@functools.cache
def _arviz() -> Any:
    """The library, imported when it is first needed: it takes seconds, and 0.23 announces 1.0 with a warning."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)
        import arviz
    return arviz


def _is_legacy() -> bool:
    return int(_arviz().__version__.split(".")[0]) < 1


def pareto_k(log_weights: np.ndarray) -> np.ndarray:
    """PSIS k̂ of log importance weights, ``(B, S)`` to ``(B,)``; infinite where ArviZ finds no fit to the tail."""
    if _is_legacy():
        _, khat = _arviz().psislw(np.array(log_weights))
    else:
        khat = np.array([_pareto_k_of_row(row) for row in log_weights])
    # 0.2x answers infinity where few weights count, 1.x NaN where a quarter of the tail holds a single value.
    return np.where(np.isnan(khat), np.inf, khat)


def _pareto_k_of_row(log_weights: np.ndarray) -> float:
    """k̂ of one row under ArviZ 1.x, which refuses a constant tail where 0.2x answers infinity."""
    # By name: the module exists beside 1.x only, and a type checker sees one of the two.
    array_stats = importlib.import_module("arviz_stats.base").array_stats
    try:
        _, khat = array_stats.psislw(-log_weights, axis=-1)
    except ValueError:
        return float("inf")
    return float(khat)


def chains_to_arviz(variables: dict[str, np.ndarray], dims: dict[str, list[str]], attrs: dict[str, Any]) -> Any:
    """Draws ``(chain, draw, ...)`` as the ``posterior`` group of an InferenceData (0.2x) or DataTree (1.x)."""
    arviz = _arviz()
    # ArviZ takes more chains than draws for a transposed array, and warns. Here chains cost no more than a batch.
    if _is_legacy():
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message="More chains", category=UserWarning)
            return arviz.from_dict(posterior=variables, dims=dims, posterior_attrs=attrs)
    tree = arviz.from_dict({"posterior": variables}, dims=dims, check_conventions=False)
    tree["posterior"].attrs.update(attrs)
    return tree


def effective_sample_size(draws: np.ndarray) -> np.ndarray:
    """Bulk effective sample size of draws ``(chain, draw, dim)``, per dimension ``(dim,)``."""
    return np.array([float(_arviz().ess(draws[:, :, i])) for i in range(draws.shape[2])])


def potential_scale_reduction(draws: np.ndarray) -> np.ndarray:
    """Rank-normalised split R̂ of draws ``(chain, draw, dim)``, per dimension ``(dim,)``."""
    return np.array([float(_arviz().rhat(draws[:, :, i])) for i in range(draws.shape[2])])
