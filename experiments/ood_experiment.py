"""Does self-consistency help to tell strange images? VAE and AVAE on Fashion-MNIST, scored against MNIST.

``python -m pyro_avae.experiments.ood_experiment --preset cpu --data-root DIR --out OUT``
"""

import platform
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, cast

import torch

from pyro_avae.data import ImageData, load_dataset
from pyro_avae.devices import as_device, default_device
from pyro_avae.errors import InputError
from pyro_avae.evaluation.ood import Pair
from pyro_avae.evaluation.ood.metrics import auroc_difference
from pyro_avae.experiments.defaults import settings_for
from pyro_avae.experiments.exit_status import exit_status
from pyro_avae.experiments.markdown import markdown
from pyro_avae.experiments.methods import builder_of
from pyro_avae.experiments.one_line_parser import OneLineParser
from pyro_avae.experiments.ood import score_run
from pyro_avae.experiments.options import reader
from pyro_avae.experiments.stage_bars import stage_bars
from pyro_avae.experiments.train import train_run
from pyro_avae.paths import shown, user_path
from pyro_avae.report import ExtraTable, write_report
from pyro_avae.report.ood import HEADINGS, ood_rows
from pyro_avae.runs.files import write_atomically, write_json
from pyro_avae.runs.kinds import Integer
from pyro_avae.runs.loading import LoadedRun
from pyro_avae.runs.run_folder import RunFolder

__all__ = ["PRESETS", "Preset", "main", "ood_experiment"]

INSIDE, OUTSIDE, BACKGROUND = "fashion-mnist", "mnist", "mutated-fashion-mnist"
METHODS = ("vae", "avae")


@dataclass(frozen=True)
class Preset:
    """How much is done.

    Attributes:
        training: settings of every run.
        seeds: runs of each method; WAIC takes two.
        scoring: options of :func:`~pyro_avae.evaluation.ood.evaluate_ood`.
        limit: test images of either set, None for all.
        background: whether a model of the background is trained, which the likelihood ratio takes.
    """

    training: Mapping[str, Any]
    seeds: int
    scoring: Mapping[str, Any]
    limit: int | None
    background: bool = True


PRESETS: Mapping[str, Preset] = {
    "smoke": Preset(
        {"steps": 3, "hidden": (8,), "latent_dim": 2, "limit": 30},
        seeds=2,
        scoring={"steps": 2, "num_samples": 2, "num_importance_samples": 2, "repetitions": 20},
        limit=4,
    ),
    # The last hidden layer is narrow, as 256 logits a pixel make the last matrix of weights wide.
    "cpu": Preset(
        {"steps": 400, "hidden": (256, 32), "latent_dim": 16, "lr": 2e-3, "kl_warmup": 200},
        seeds=1,
        scoring={"steps": 60, "num_samples": 4, "num_importance_samples": 20},
        limit=100,
        background=False,
    ),
    # 200 epochs, as the paper has, and its 100 latents.
    "full": Preset(
        {
            "architecture": "conv",
            "channels": 64,
            "normalization": "batch",
            "latent_dim": 100,
            "batch_size": 128,
            "steps": 93_800,
            "lr": 3e-4,
        },
        seeds=5,
        scoring={"steps": 100, "num_importance_samples": 200},
        limit=None,
    ),
}


def ood_experiment(
    out: str | Path,
    *,
    preset: str = "cpu",
    data_root: str | Path | None = None,
    device: str | torch.device = "cpu",
    seed: int = 0,
    progress: bool = False,
) -> dict[str, Any]:
    """Train a VAE and an AVAE with categorical pixels, and a VAE of the background; score; write results and report.

    Args:
        out: a folder; runs that are finished there are kept.
        preset: one of :data:`PRESETS`.
        data_root: folder of the data sets.
        device: where everything runs.
        seed: of the first run of each method.
        progress: say on stderr what is being done.

    Returns:
        The content of ``results.json``.

    Raises:
        InputError: no such preset, other runs in the folder, or data that cannot be had.
    """
    if preset not in PRESETS:
        raise InputError(f"--preset: expected one of {', '.join(PRESETS)}, got {preset!r}")
    size, place, folder, start = PRESETS[preset], as_device(device), user_path(out), time.monotonic()
    names = (INSIDE, OUTSIDE, *([BACKGROUND] if size.background else []))
    cpu_start = time.process_time()
    sets = {name: load_dataset(name, root=data_root, device=place) for name in names}

    def trained(method: str, number: int, data: ImageData) -> LoadedRun:
        path = RunFolder(folder / f"{method}-{data.name}-{number}")
        return _trained(method, seed + number, data, path, size, place, progress)

    background = _pair(trained("vae", 0, sets[BACKGROUND])) if size.background else None
    found, paths = {}, []
    for method in METHODS:
        runs = [trained(method, number, sets[INSIDE]) for number in range(size.seeds)]
        paths.append(folder / f"{method}-{INSIDE}-0")
        _say(f"scoring {method}", progress)
        with stage_bars(enabled=progress) as report:
            found[method] = score_run(
                RunFolder(paths[-1]),
                runs[0],
                sets[INSIDE],
                sets[OUTSIDE],
                background=background,
                ensemble=[_pair(other) for other in runs[1:]],
                limit=size.limit,
                progress=report,
                seed=seed,
                **size.scoring,
            )
    document = {
        "preset": preset,
        "training": {**size.training, "likelihood": "categorical"},
        "seconds": round(time.monotonic() - start, 1),
        "cpu_seconds": round(time.process_time() - cpu_start, 1),
        "machine": {"device": str(place), "threads": torch.get_num_threads(), **_versions()},
        "methods": {method: _without_values(scored) for method, scored in found.items()},
        "differences": differences(found),
    }
    _write(folder, document, found, paths, str(place))
    return document


def _trained(
    method: str, seed: int, data: ImageData, folder: RunFolder, size: Preset, device: torch.device, progress: bool
) -> LoadedRun:
    given = {**size.training, "method": method, "dataset": data.name, "seed": seed, "likelihood": "categorical"}
    settings = replace(settings_for(given), builder=builder_of(method), image_shape=data.shape)
    limited = data if settings.limit is None else data.limit(settings.limit)
    _say(f"training {folder.path.name}", progress)
    resume = not folder.is_empty()
    model, guide, result = train_run(settings, limited, folder, device=device, resume=resume, progress=progress)
    return LoadedRun(model.eval(), guide.eval(), settings, result.steps, result.seconds)


def _pair(run: LoadedRun) -> Pair:
    return Pair(cast(Any, run.model), cast(Any, run.guide))


def differences(found: Mapping[str, Mapping[str, Any]]) -> dict[str, dict[str, float]]:
    """By score: AUROC of the AVAE less that of the VAE, paired by image, seed 0 of the bootstrap."""
    plain, consistent = (found[method]["scores"] for method in METHODS)

    def sides(score: Mapping[str, Any]) -> tuple[Any, Any]:
        return score["values"]["inside"], score["values"]["outside"]

    return {
        name: auroc_difference(sides(consistent[name]), sides(score))
        for name, score in plain.items()
        if name in consistent
    }


def _without_values(document: Mapping[str, Any]) -> dict[str, Any]:
    """The scores of single images stay in the runs' folders."""
    scores = {
        name: {key: part for key, part in score.items() if key != "values"}
        for name, score in document["scores"].items()
    }
    return {**document, "scores": scores}


def _versions() -> dict[str, str]:
    return {"python": platform.python_version(), "torch": torch.__version__}


def _write(
    folder: Path, document: Mapping[str, Any], found: Mapping[str, Any], paths: Sequence[Path], device: str
) -> None:
    tables = [
        ExtraTable(f"{method}: AUROC and the like with bootstrap intervals of 95 %", HEADINGS, ood_rows(scored))
        for method, scored in found.items()
    ]
    compared = [
        [name, f"{one['value']:+.3f} ({one['low']:+.3f} to {one['high']:+.3f})"]
        for name, one in document["differences"].items()
    ]
    tables.append(ExtraTable("AUROC of the AVAE less that of the VAE, paired", ["score", "difference"], compared))
    counts = next(iter(found.values()))["num_images"]
    words = [
        f"{INSIDE} ({counts['inside']} test images) and {OUTSIDE} ({counts['outside']}); preset {document['preset']},"
        f" {document['training']['steps']} steps; every score is larger for stranger images; means in nats."
    ]
    write_json(folder / "results.json", document)
    write_atomically(folder / "table.md", markdown("Strange images", words, tables).encode())
    for method, path in zip(METHODS, paths, strict=True):
        write_atomically(folder / f"{method}.svg", RunFolder(path).ood_picture.read_bytes())
    write_report(paths, folder / "report.html", title=f"{OUTSIDE} beside {INSIDE}", device=device)


def _say(text: str, progress: bool) -> None:
    if progress:
        print(text, file=sys.stderr, flush=True)


def main(argv: Sequence[str] | None = None) -> None:
    """The command line of this script."""
    parser = OneLineParser(prog="ood_experiment", description="VAE and AVAE on Fashion-MNIST, scored against MNIST.")
    parser.add_argument("--preset", default="cpu", help=f"{', '.join(PRESETS)} (default: cpu)")
    parser.add_argument("--out", type=Path, required=True, metavar="DIR", help="what is finished there is kept")
    parser.add_argument("--data-root", default=None, metavar="DIR", help="default: a cache of downloads")
    parser.add_argument("--device", default=None, help="cpu, cuda, ... (default: cuda if there is one)")
    parser.add_argument("--seed", type=reader("--seed", Integer(0, 2**32 - 1)), default=0, help="default: 0")
    parser.add_argument("--no-progress", action="store_true", help="show no progress")
    args = parser.read(sys.argv[1:] if argv is None else argv)
    document = ood_experiment(
        args.out,
        preset=args.preset,
        data_root=args.data_root,
        device=args.device or default_device(),
        seed=args.seed,
        progress=not args.no_progress,
    )
    print(f"{document['seconds']:.0f} s; written to {shown(user_path(args.out))}")


if __name__ == "__main__":
    sys.exit(exit_status("ood_experiment", main))
