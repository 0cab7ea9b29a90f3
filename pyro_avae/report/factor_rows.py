"""What ``evaluation.json`` says of factors of variation, laid out as rows."""

from collections.abc import Mapping, Sequence
from typing import Any

from pyro_avae.report.runs import Run
from pyro_avae.report.tables import number

__all__ = ["factor_rows", "neighbourhoods_of"]

_MEASURES = {"mig": "MIG", "modularity": "modularity"}


def neighbourhoods_of(runs: Sequence[Run]) -> list[str]:
    """The sizes ρ of neighbourhoods that any run was measured in, in increasing order."""
    return sorted({rho for run in runs for rho in _measured(run).get("local", {})}, key=float)


def factor_rows(runs: Sequence[Run]) -> list[tuple[str, str, list[str]]]:
    """Run, measure, and a cell for each neighbourhood and for the whole; nothing of runs without known factors."""
    rhos = neighbourhoods_of(runs)
    rows = []
    for run in runs:
        found = _measured(run)
        for key, name in _MEASURES.items() if found else ():
            places = [*(found.get("local", {}).get(rho) for rho in rhos), found.get("global")]
            rows.append((run.label, name, [number((place or {}).get(key, {}).get("mean"), 3) for place in places]))
    return rows


def _measured(run: Run) -> Mapping[str, Any]:
    found: Mapping[str, Any] = (run.evaluation or {}).get("disentanglement", {})
    return found
