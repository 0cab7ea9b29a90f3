"""VAE-TracIn on MNIST with images of Fashion-MNIST among the training images: which are found, and what else is seen.

::

    python -m pyro_avae.experiments.influence_experiment --preset cpu --data-root DATA --out OUT

DATA holds ``MNIST/raw`` and ``FashionMNIST/raw``, as torchvision lays them out; ``--preset smoke`` needs no data. A VAE
is trained on both, its labels unseen; ``OUT/results.json``, ``OUT/table.md`` and two pictures are written. Mislabelled
images mean nothing here: no label enters the training.

Source: Kong and Chaudhuri 2021 (arXiv 2105.14203): MNIST with 1,000 letters of EMNIST, MLP of 128 latents, SGD.
"""

import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from pyro_avae.data import ImageData, Split, load_dataset
from pyro_avae.devices import as_device
from pyro_avae.evaluation import Influence, cleaning_auc, influence
from pyro_avae.experiments.exit_status import exit_status
from pyro_avae.experiments.influence_document import influence_document, influence_pictures
from pyro_avae.experiments.markdown import markdown
from pyro_avae.experiments.methods import builder_of
from pyro_avae.experiments.one_line_parser import OneLineParser
from pyro_avae.experiments.stage_bars import stage_bars
from pyro_avae.experiments.train import train_run
from pyro_avae.experiments.triples import make_triple
from pyro_avae.paths import user_path
from pyro_avae.report import ExtraTable
from pyro_avae.runs.files import write_atomically, write_json
from pyro_avae.runs.kept import kept_checkpoints, stages
from pyro_avae.runs.run_folder import RunFolder
from pyro_avae.runs.settings import Settings

__all__ = ["PRESETS", "Preset", "main", "run_experiment"]


@dataclass(frozen=True)
class Preset:
    """One size.

    Attributes:
        datasets: of the training images, and of those planted among them.
        images: how many of the first.
        planted: how many of the second.
        tests: test images.
        sanity: training images that are test images too: is each its own strongest proponent?
        num_samples: posterior samples of each image at each checkpoint.
        seeds: trainings.
        settings: of each.
    """

    datasets: tuple[str, str]
    images: int
    planted: int
    tests: int
    sanity: int
    num_samples: int
    seeds: int
    settings: Mapping[str, Any]


PRESETS: Mapping[str, Preset] = {
    # Shows that all of it runs: grey digits among coloured ones.
    "smoke": Preset(
        datasets=("color-digits", "color-digits"),
        images=200,
        planted=5,
        tests=4,
        sanity=8,
        num_samples=4,
        seeds=1,
        settings={"hidden": (16,), "latent_dim": 4, "steps": 40, "lr": 3e-3, "batch_size": 32},
    ),
    # Minutes on two cores.
    "cpu": Preset(
        datasets=("mnist", "fashion-mnist"),
        images=5000,
        planted=100,
        tests=100,
        sanity=128,
        num_samples=16,
        seeds=1,
        settings={"hidden": (128,), "latent_dim": 32, "steps": 8000, "lr": 1e-3, "batch_size": 64, "obs_variance": 0.1},
    ),
    # All of MNIST and as many planted images as in the paper.
    "full": Preset(
        datasets=("mnist", "fashion-mnist"),
        images=60_000,
        planted=1000,
        tests=1000,
        sanity=128,
        num_samples=16,
        seeds=3,
        settings={"hidden": (400, 400), "latent_dim": 64, "steps": 100_000, "lr": 3e-4, "obs_variance": 0.1},
    ),
}


def planted_data(preset: Preset, root: str | None) -> ImageData:
    """The training images with the planted ones behind them, which have a class of their own."""
    of, other = (load_dataset(name, root=root) for name in preset.datasets)
    strange = other.train if other.shape != of.shape or other.name != of.name else _inverted(other.train)
    (task, names), *_ = of.class_names.items()
    train, planted = of.train.limit(preset.images), strange.limit(preset.planted)
    images = [split.fixed_batch(torch.arange(len(split)))[0] for split in (train, planted)]
    labels = torch.cat([train.labels[task], torch.full((len(planted),), len(names))])
    pixels = (torch.cat(images) * 255).round().to(torch.uint8)
    test = of.test.fixed_batch(torch.arange(len(of.test)))
    return ImageData(
        f"{of.name} with {len(planted)} of {'inverted ' if other.name == of.name else ''}{other.name}",
        Split(pixels, {task: labels}),
        Split((test[0] * 255).round().to(torch.uint8), {task: test[1][task]}),
        {task: (*names, "planted")},
    )


def _inverted(split: Split) -> Split:
    pixels = split.fixed_batch(torch.arange(len(split)))[0]
    return Split(((1 - pixels) * 255).round().to(torch.uint8), {})


def run_experiment(preset: Preset, *, root: str | None, out: Path, device: torch.device, progress: bool) -> None:
    """Train, measure, and write results, table and pictures."""
    data = planted_data(preset, root)
    RunFolder(out).begin()
    rows = [_measured(preset, data, seed, out=out, device=device, progress=progress) for seed in range(preset.seeds)]
    write_json(out / "results.json", {"data": data.name, "preset": _plain(preset), "runs": rows})
    write_atomically(out / "table.md", _table(data, rows).encode())
    print(_table(data, rows), end="")


def _measured(
    preset: Preset, data: ImageData, seed: int, *, out: Path, device: torch.device, progress: bool
) -> dict[str, Any]:
    settings = Settings(
        method="vae", builder=builder_of("vae"), dataset=preset.datasets[0], seed=seed, image_shape=data.shape,
        **preset.settings,
    )  # fmt: skip
    folder, began = RunFolder(out / "runs" / f"seed-{seed}"), time.process_time()
    trained = train_run(settings, data, folder, device=device, progress=progress)
    training, began = time.process_time() - began, time.process_time()
    kept = stages(kept_checkpoints(folder))
    first = torch.arange(preset.sanity)
    tests = torch.cat([data.test.fixed_batch(torch.arange(preset.tests))[0], data.train.fixed_batch(first)[0]])
    options: dict[str, Any] = {"elbo": make_triple(settings).elbo, "num_samples": preset.num_samples, "seed": seed}
    with stage_bars(enabled=progress) as report:
        found = influence(trained.model, trained.guide, data.train, tests, stages=kept, progress=report, **options)
        last = influence(trained.model, trained.guide, data.train, stages=kept[-1:], **options)
    measuring = time.process_time() - began
    own = found.influence[:, preset.tests :].argmax(0) == first
    found = replace(found, influence=found.influence[:, : preset.tests])
    document = influence_document(found, data, top=30)
    if not seed:
        for name, picture in influence_pictures(document, data).items():
            write_atomically(out / name, picture.content)
    return {
        "seed": seed,
        "loss": trained.result.history[-1]["loss"],
        "cleaning_auc": _cleaning(found, last, preset),
        "own_strongest_proponent": float(own.double().mean()),
        "planted_in_top": {str(k): _share_planted(found, preset, k) for k in (preset.planted // 2, preset.planted)},
        "cpu_seconds": {"training": training, "influence": measuring},
        **document,
        "test": document["test"][:8],
    }


def _cleaning(found: Influence, last: Influence, preset: Preset) -> dict[str, float]:
    count = preset.images + preset.planted
    planted = torch.arange(len(found.loss)) >= len(found.loss) - preset.planted
    return {
        "self_influence": cleaning_auc(found.self_influence, planted),
        "last_checkpoint_alone": cleaning_auc(last.self_influence, planted),
        "loss": cleaning_auc(found.loss, planted),
        "perfect": 1 - (preset.planted - 1) / (2 * count),
        "random": (count + 1) / (2 * count),
    }


def _share_planted(found: Influence, preset: Preset, count: int) -> float:
    top = found.most_self_influential(count)
    return float((top >= len(found.loss) - preset.planted).double().mean())


def _table(data: ImageData, rows: list[dict[str, Any]]) -> str:
    task = next(iter(rows[0]["same_label"]))
    lines: list[tuple[str, list[float]]] = [
        ("cleaning AUC, self-influence over all checkpoints", [r["cleaning_auc"]["self_influence"] for r in rows]),
        ("... at the last checkpoint alone", [r["cleaning_auc"]["last_checkpoint_alone"] for r in rows]),
        ("... of the loss", [r["cleaning_auc"]["loss"] for r in rows]),
        ("... of a perfect ranking", [r["cleaning_auc"]["perfect"] for r in rows]),
        ("training images that are their own strongest proponent", [r["own_strongest_proponent"] for r in rows]),
        ("strongest proponents with the test label", [r["same_label"][task]["strongest_proponent"] for r in rows]),
        ("strongest opponents with the test label", [r["same_label"][task]["strongest_opponent"] for r in rows]),
        ("training images with the test label", [r["same_label"][task]["any_image"] for r in rows]),
        (
            "rank correlation of self-influence and loss",
            [r["self_influence"]["rank_correlation_with_loss"] for r in rows],
        ),
        ("CPU seconds of training", [r["cpu_seconds"]["training"] for r in rows]),
        ("CPU seconds of influence", [r["cpu_seconds"]["influence"] for r in rows]),
    ]
    headings = ["", *(f"seed {r['seed']}" for r in rows)]
    cells = [[name, *(f"{value:.3f}" for value in values)] for name, values in lines]
    return markdown(
        "Influence of training images",
        [f"{data.name}; method vae, {rows[0]['checkpoints'][-1]['step']} steps of Adam."],
        [ExtraTable("Shares and areas are out of 1.", headings, cells)],
    )


def _plain(preset: Preset) -> dict[str, Any]:
    return {**vars(preset), "settings": {k: list(v) if isinstance(v, tuple) else v for k, v in preset.settings.items()}}


def main(argv: list[str] | None = None) -> int:
    """The command line of this experiment."""
    parser = OneLineParser(
        prog="influence_experiment", description="VAE-TracIn on MNIST with planted images of Fashion-MNIST."
    )
    parser.add_argument("--preset", choices=sorted(PRESETS), default="cpu")
    parser.add_argument("--data-root", help="folder with MNIST/raw and FashionMNIST/raw; by default a cache")
    parser.add_argument("--out", type=Path, required=True, help="folder to write, new or empty")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--no-progress", action="store_true")
    args = parser.read(sys.argv[1:] if argv is None else argv)
    run_experiment(
        PRESETS[args.preset],
        root=args.data_root,
        out=user_path(args.out),
        device=as_device(args.device),
        progress=not args.no_progress,
    )
    return 0


if __name__ == "__main__":
    sys.exit(exit_status("influence_experiment", main))
