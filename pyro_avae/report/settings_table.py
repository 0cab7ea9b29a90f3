"""The settings of the runs side by side."""

from collections.abc import Sequence
from dataclasses import dataclass

from pyro_avae.report.runs import Run

__all__ = ["SettingRow", "settings_rows"]


@dataclass(frozen=True)
class SettingRow:
    """One setting: a value a run, and whether they differ."""

    name: str
    values: tuple[str, ...]
    differs: bool


def settings_rows(runs: Sequence[Run]) -> list[SettingRow]:
    """Every setting that any run's ``config.json`` holds."""
    names: dict[str, None] = {}
    for run in runs:
        names |= dict.fromkeys(run.config)
    rows = []
    for name in names:
        values = tuple(_shown(run.config[name]) if name in run.config else "–" for run in runs)
        rows.append(SettingRow(name, values, differs=len(set(values)) > 1))
    return rows


def _shown(value: object) -> str:
    if value is None:
        return "–"
    if isinstance(value, list):
        return " ".join(map(str, value))
    return str(value)
