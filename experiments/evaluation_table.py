"""One run's evaluation as a table for a terminal."""

from collections.abc import Mapping
from typing import Any

from rich.console import Group
from rich.table import Table
from rich.text import Text

__all__ = ["evaluation_table"]

# What is shown of a task's accuracies: key without the norm's suffix, and label.
_ROWS = (
    ("accuracy", "PGD"),
    ("balanced_accuracy", "PGD, balanced"),
    ("accuracy_noise", "noise"),
    ("accuracy_transfer", "transfer"),
    ("accuracy_autoattack", "AutoAttack"),
)
#: Of fewer images, one more or less is a difference that a check for gradient masking would go by.
_FEW_IMAGES = 100
_NORMS = (("", "ε"), ("_l2", "L2"))


def evaluation_table(document: Mapping[str, Any]) -> Table | Group:
    """The accuracies, a row for each task and attack, and the rest below; without labels, the rest alone."""
    title = f"{document['method']} on {document['dataset']}, {document['steps']} steps"
    tasks, below = document["tasks"], [*_measures(document), *_further(document), *_remarks(document)]
    if not tasks:
        table = Table("no labels: no probe, no attack" if not document["tasks_skipped"] else "no task", title=title)
        for line in below:
            table.add_row(line)
        return table
    table = Table(title=f"{title}: accuracy in %")
    for name in ("task", "majority", "attack"):
        table.add_column(name, justify="right" if name == "majority" else "left", no_wrap=name != "majority")
    first = next(iter(tasks.values()))
    radii = [(suffix, radius) for suffix, _ in _NORMS for radius in first.get(f"accuracy{suffix}", {})]
    for suffix, radius in radii:
        table.add_column(f"{dict(_NORMS)[suffix]} {float(radius):g}", justify="right", no_wrap=True)
    for task, measured in tasks.items():
        for place, (key, label) in enumerate(row for row in _ROWS if row[0] in measured):
            values = [measured[f"{key}{suffix}"][radius] for suffix, radius in radii]
            head = (task, _share(measured["majority"])) if place == 0 else ("", "")
            table.add_row(*head, label, *map(_share, values))
        table.add_section()
    return Group(table, *map(Text, below))  # a caption would be wrapped at the table's width


def _measures(document: Mapping[str, Any]) -> list[str]:
    bound = "  ".join(f"{name} {_number(value)}" for name, value in document["bound"].items())
    return [
        f"MSE {_number(document['mse'], 5)} ({_number(document['mse_255'], 1)} on 0-255)",
        f"bound, nats per image: {bound}",
        f"log p(x) {_number(document['log_likelihood'])}, PSIS k̂ {_number(document['psis_khat']['median'])} (median)",
        *_information(document),
    ]


def _information(document: Mapping[str, Any]) -> list[str]:
    """Absent from an evaluation of an earlier version."""
    if "mutual_information" not in document:
        return []
    found = document["mutual_information"]
    return [
        f"mutual information of image and z {_number(found['mean'])} (at most {_number(found['at_most'])}),"
        f" {document['active_units']} latents in use"
    ]


def _further(document: Mapping[str, Any]) -> list[str]:
    """What was measured because it was asked for."""
    lines = []
    if "fid" in document:
        lines.append(f"FID {_number(document['fid']['fid'])} (features: {document['fid']['fid_features']})")
    for radius, measured in document.get("latent_attack", {}).get("radii", {}).items():
        divergence, similarity = (
            measured[name]["worst_over_restarts"] for name in ("symmetric_kl", "ms_ssim_reconstruction")
        )
        lines.append(
            f"latent attack, ε = {radius}: symmetric KL {_number(divergence)}, MS-SSIM of reconstructions"
            f" {_number(similarity)} (worst restart)"
        )
    if "robustness_margin" in document:
        found = document["robustness_margin"]
        lines.append(f"r-robustness margin, r = {found['r']:g}: L2 {_number(found['margin']['mean'])} (mean, at most)")
    for name, measured in _neighbourhoods(document):
        mig, modularity = (_number(measured[measure]["mean"], 3) for measure in ("mig", "modularity"))
        lines.append(f"disentanglement, {name}: MIG {mig}, modularity {modularity}")
    return lines


def _neighbourhoods(document: Mapping[str, Any]) -> list[tuple[str, Mapping[str, Any]]]:
    """What disentanglement was measured within, and the numbers."""
    if "disentanglement" not in document:
        return []
    found = document["disentanglement"]
    return [*((f"ρ = {rho}", measured) for rho, measured in found["local"].items()), ("global", found["global"])]


def _remarks(document: Mapping[str, Any]) -> list[str]:
    """Whether the attack can be believed, task by task where not, and what was left out."""
    checks = {task: measured["gradient_masking"] for task, measured in document["tasks"].items()}
    lines = []
    for task, check in checks.items():
        if not check["at_or_below_chance"]:
            lines.append(
                f"{task}: gradient masking suspected, PGD leaves {_percent(check['accuracy']['pgd'])} at"
                f" ε = {check['epsilon']} where chance is {_percent(check['chance'])}"
            )
        for entry in check["stronger_than_pgd"]:
            lines.append(
                f"{task}: gradient masking suspected, {entry['attack']} leaves {_percent(entry['accuracy'])} and PGD"
                f" {_percent(entry['pgd'])} at {entry['norm']} ε = {entry['epsilon']}"
            )
    if checks and not lines and min(check["num_images"] for check in checks.values()) < _FEW_IMAGES:
        lines.append(f"gradient masking: fewer than {_FEW_IMAGES} images are too few to say")
    elif checks and not lines:
        epsilon = next(iter(checks.values()))["epsilon"]
        lines.append(f"gradient masking: none seen (chance or below at ε = {epsilon}, PGD strongest of its baselines)")
    return [*lines, *(f"{task}: left out, {reason}" for task, reason in document["tasks_skipped"].items())]


def _share(value: float) -> str:
    return f"{100 * value:.1f}"


def _percent(value: float) -> str:
    return f"{_share(value)} %"


def _number(value: float | None, digits: int = 2) -> str:
    return "-" if value is None else f"{value:.{digits}f}"
