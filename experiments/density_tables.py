"""The table of the density comparison, made of its ``results.json``."""

from collections.abc import Mapping, Sequence
from typing import Any

from pyro_avae.experiments.results_tables import number
from pyro_avae.report import ExtraTable

__all__ = ["density_table", "density_words"]

Document = Mapping[str, Any]

#: Heading, key in ``ours``, digits.
_COLUMNS: Sequence[tuple[str, str, int]] = (
    ("NLL", "nll", 2),
    ("± over images", "nll_error_over_images", 2),
    ("to the VAE", "nll_difference", 2),
    ("±", "nll_difference_error", 2),
    ("ELBO", "elbo", 2),
    ("KL", "kl", 2),
    ("active units", "active_units", 0),
    ("I(x; z)", "mutual_information", 2),
    ("PSIS k̂", "psis_khat", 2),
)

#: Where the published numbers are of other images than ours.
_ELSEWHERE = {
    "omniglot": "of the split and the grey images of Burda et al.",
    "caltech-silhouettes": "of the split of Marlin et al.",
}


def density_table(document: Document) -> ExtraTable | None:
    """Our rows, then the published ones; None where none of ours is finished."""
    rows = document["rows"]
    if not rows:
        return None
    ours = [
        [row["label"], *(number(row["ours"][key], digits) for _, key, digits in _COLUMNS), *_counts(row)]
        for row in rows
    ]
    published = [
        [f"{one['model']}, published", f"{'<' if one['bound'] else ''}{one['nll']:.2f}", *[""] * (len(_COLUMNS) + 1)]
        for one in document["published"]
    ]
    several = any(len(row["ours"]["seeds"]) > 1 for row in rows)
    spread = "± one standard error over seeds." if several else "One seed."
    caption = f"Nats per test image. Ours, then published numbers in italics. {spread}"
    headings = ["row", *(heading for heading, _, _ in _COLUMNS), "steps", "seeds"]
    return ExtraTable(caption, headings, [*ours, *published], range(len(ours), len(ours) + len(published)))


def density_words(document: Document) -> list[str]:
    """What the columns hold, and how far ours can be compared with what was published."""
    rows = document["rows"]
    if not rows:
        return []
    ours = rows[0]["ours"]
    sampling, informed = ours["importance_sampling"], ours["information_at_most"]
    steps = ", ".join(sorted({f"{row['ours']['steps']:,}" for row in rows}))
    elsewhere = _ELSEWHERE.get(document["dataset"])
    return [
        f"Data {document['dataset']}, preset {document['preset']}, Bernoulli pixels. NLL: by importance sampling,"
        f" {sampling['num_samples']:,} samples of each of the first {sampling['num_images']:,} test images, from what"
        " the guide proposes; an upper bound in expectation; to the VAE: the difference of the same images, with its"
        " standard error. ELBO: of one sample, without the terms of further"
        " encodings. KL: E log p(x|z) − ELBO. Active units: latents whose posterior mean has a variance above 0.01."
        f" I(x; z): mutual information under q(z|x), of a sample of images that can show {informed:.2f} nats at most."
        " PSIS k̂: median over images.",
        f"Ours are trained for {steps} steps with nothing tuned. Published runs are longer, most of larger models; the"
        " VLAE's was tuned on validation images and then trained on these too."
        + (f" The published numbers are {elsewhere}." if elsewhere else ""),
    ]


def _counts(row: Document) -> list[str]:
    return [str(row["ours"]["steps"]), str(len(row["ours"]["seeds"]))]
