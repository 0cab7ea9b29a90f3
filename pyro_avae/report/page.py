"""One self-contained HTML file of one or more run folders."""

import logging
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from pyro_avae.errors import InputError
from pyro_avae.paths import shown, user_path
from pyro_avae.report.extras import Extra
from pyro_avae.report.factor_rows import factor_rows, neighbourhoods_of
from pyro_avae.report.findings import findings
from pyro_avae.report.ood import ood_extras
from pyro_avae.report.robustness_curves import robustness_curves
from pyro_avae.report.runs import Run, read_runs
from pyro_avae.report.sections import Section, sections_of
from pyro_avae.report.settings_table import settings_rows
from pyro_avae.report.subjects import Loader, Subject, load_subjects, loader_on
from pyro_avae.report.tables import accuracy_rows, epsilons_of, quality_rows, terms_of
from pyro_avae.report.training_curves import training_curves
from pyro_avae.runs.files import write_atomically
from pyro_avae.runs.trust import Trust

__all__ = ["build_report", "write_report"]

_TEMPLATE = "report.html.jinja"

#: Called with what is being made, a few words.
Progress = Callable[[str], None]


def build_report(
    paths: Sequence[str | Path],
    *,
    title: str = "Trained pairs, compared",
    device: str = "cpu",
    trust: Trust = (),
    loader: Loader | None = None,
    progress: Progress | None = None,
    extras: Sequence[Extra] = (),
    labels: Sequence[str] | None = None,
) -> str:
    """The report as HTML text.

    It holds what the run folders hold: the table of ``evaluation.json``, the curves of ``log.jsonl``, and pictures made
    afresh from the trained pairs. What is missing is said in its place. Runs are compared with the first evaluated one
    on the same data set, so the order of ``paths`` matters.

    The page has no script and asks for nothing from outside; all that comes from files is escaped.

    Args:
        paths: run folders, as ``pyro-avae train`` makes them.
        title: heading of the page.
        device: where the pairs run.
        trust: builders that the runs may name, as :func:`pyro_avae.load` takes them.
        loader: gets a trained pair and its data from a run; by default :func:`pyro_avae.load` and
            :func:`~pyro_avae.data.load_dataset`.
        progress: called with each stage.
        extras: sections of one's own, printed first, in this order.
        labels: what the runs are called; by default their methods.

    Raises:
        InputError: no folder, one that is no run folder, or a file in it that cannot be read.
    """
    say = progress or _silent
    runs = read_runs(paths, labels=labels)
    subjects, gaps = load_subjects(runs, loader or loader_on(device, trust=trust))
    say("curves")
    facts: dict[str, Any] = {
        "title": title,
        "runs": runs,
        "gaps": [(run.label, gap) for run in runs for gap in (*run.gaps, *gaps.get(run.label, ()))],
        "extras": [*extras, *ood_extras(runs)],
        "findings": findings(runs),
        "epsilons": epsilons_of(runs),
        "accuracy": accuracy_rows(runs),
        "terms": terms_of(runs),
        "quality": quality_rows(runs),
        "neighbourhoods": neighbourhoods_of(runs),
        "factors": factor_rows(runs),
        "attacks": _attacks(runs),
        "has_autoattack": any("accuracy_autoattack" in task for run in runs for task in run.tasks.values()),
        "training": training_curves(runs),
        "robustness": robustness_curves(runs),
        "sections": _sections(subjects, say),
        "settings": settings_rows(runs),
    }
    return _render(facts)


def write_report(paths: Sequence[str | Path], out: str | Path, **options: Any) -> Path:
    """Write :func:`build_report`'s page to ``out``, whole or not at all, and return its path.

    Raises:
        InputError: as :func:`build_report`; an ``out`` that is a folder or cannot be written.
    """
    target = user_path(out)
    if target.is_dir():
        raise InputError(f"out: expected the name of an HTML file, but {shown(target)} is a folder")
    page = build_report(paths, **options)
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        # A name from a file may hold half a surrogate pair, which UTF-8 has no bytes for.
        write_atomically(target, page.encode("utf-8", "replace"))
    except OSError as error:
        raise InputError(f"out: {shown(target)} cannot be written: {error.strerror or error}") from error
    return target


def _render(facts: dict[str, Any]) -> str:
    from jinja2 import Environment, PackageLoader, StrictUndefined

    environment = Environment(
        loader=PackageLoader("pyro_avae.report", "."),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    return environment.get_template(_TEMPLATE).render(**facts)


def _sections(subjects: Sequence[Subject], say: Progress) -> list[Section]:
    """A section a data set, in the order in which the data sets first appear."""
    groups: dict[str, list[Subject]] = {}
    for subject in subjects:
        groups.setdefault(subject.run.dataset, []).append(subject)
    return [sections_of(name, members, say) for name, members in groups.items()]


def _attacks(runs: Sequence[Run]) -> list[str]:
    """How each distinct attack was set up, in words, with the runs it holds for."""
    described: dict[str, list[str]] = {}
    for run in runs:
        attack = (run.evaluation or {}).get("attack", {})
        pgd = attack.get("pgd")
        if isinstance(pgd, dict):
            words = (
                f"L∞ PGD, {pgd.get('steps', '?')} steps, {pgd.get('restarts', '?')} random starts of which the worst"
                f" counts, on {pgd.get('num_images', '?')} test images"
            )
            described.setdefault(words, []).append(run.label)
    if len(described) == 1:
        return [f"{next(iter(described))}."]
    return [f"{', '.join(labels)}: {words}." for words, labels in described.items()]


def _silent(stage: str) -> None:
    logging.getLogger(__name__).debug("report: %s", stage)
