"""A run's influence on the page of a report: what ``pyro-avae influence`` left in its folder."""

from collections.abc import Mapping, Sequence
from typing import Any

from pyro_avae.errors import InputError
from pyro_avae.paths import shown
from pyro_avae.report.extras import Extra, ExtraTable
from pyro_avae.report.runs import Run
from pyro_avae.report.style import Picture, as_uri
from pyro_avae.runs.files import read_json
from pyro_avae.runs.run_folder import RunFolder

__all__ = ["influence_sections"]

#: How a PNG file begins; its width and height come next.
_PNG = b"\x89PNG\r\n\x1a\n\x00\x00\x00\rIHDR"


def influence_sections(runs: Sequence[Run]) -> list[Extra]:
    """The sections of the runs that have an ``influence.json``.

    Raises:
        InputError: one that is damaged.
    """
    found = []
    for run in runs:
        path = RunFolder(run.path).influence
        if not path.is_file():
            continue
        document = read_json(path)
        try:
            found += _sections(run, document)
        except InputError:
            raise
        except (LookupError, TypeError, ValueError, AttributeError, OverflowError, OSError) as error:
            raise InputError(
                f"{shown(path)}: expected what 'pyro-avae influence' writes, got a damaged file: {error!r}"
            ) from None
    return found


def _sections(run: Run, document: Mapping[str, Any]) -> list[Extra]:
    own, test = document["self_influence"], document["test"]
    steps = ", ".join(str(int(one["step"])) for one in document["checkpoints"]) or "none kept"
    words = [
        f"VAE-TracIn of {int(document['train_images'])} training images on themselves: the inner product of an image's"
        f" own gradients, from two halves of {int(document['num_samples'])} posterior samples, summed over checkpoints"
        f" (steps {steps}). What stands first is an outlier of the training set, or hard.",
        *([str(document["note"])] if document["note"] else []),
    ]
    rows = [
        [str(f["name"]), str(f["image"]), f"{float(f['value']):.4g}", f"{float(f['loss']):.2f}"] for f in own["top"]
    ]
    table = ExtraTable("Most self-influential", ["label", "image", "self-influence", "loss, nats"], rows)
    sections = [
        Extra(f"Self-influence: {run.label}", words, table, _picture(run, "influence-self.png"), "The same, in order.")
    ]
    if test:
        shares = [
            [task, *(f"{100 * float(share[name]):.0f} %" for name in _SHARES)]
            for task, share in document["same_label"].items()
        ]
        sections.append(
            Extra(
                f"Influence on test images: {run.label}",
                [f"Which training images lowered the loss of {len(test)} test images most, and which raised it most."],
                ExtraTable("With the test image's label", ["task", *_SHARES.values()], shares) if shares else None,
                _picture(run, "influence-test.png"),
                "A test image, its strongest proponents, its strongest opponents.",
            )
        )
    return sections


_SHARES = {
    "strongest_proponent": "strongest proponent",
    "strongest_opponent": "strongest opponent",
    "any_image": "any training image",
}


def _picture(run: Run, name: str) -> Picture | None:
    path = run.path / name
    if not path.is_file():
        return None
    content = path.read_bytes()
    if content[:16] != _PNG or len(content) < 24:
        raise InputError(f"{shown(path)}: expected a PNG image, got another file; run 'pyro-avae influence' again")
    width, height = (int.from_bytes(content[place : place + 4], "big") for place in (16, 20))
    return Picture(as_uri(content, "image/png"), f"{name} of {run.label}", width, height)
