"""``pyro-avae influence``: which training images made a run what it is; ``RUN/influence.json`` and pictures."""

import argparse
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pyro.infer import ELBO
from rich.console import Console, Group
from rich.table import Table
from rich.text import Text

from pyro_avae.data import load_dataset
from pyro_avae.devices import as_device, default_device
from pyro_avae.errors import InputError
from pyro_avae.evaluation import influence
from pyro_avae.experiments.influence_document import influence_document, influence_pictures
from pyro_avae.experiments.methods import METHODS
from pyro_avae.experiments.options import COUNT, reader
from pyro_avae.experiments.stage_bars import stage_bars
from pyro_avae.experiments.triples import add_trust, load_trusted, make_triple
from pyro_avae.paths import shown
from pyro_avae.runs.files import write_atomically, write_json
from pyro_avae.runs.kept import kept_checkpoints, stages
from pyro_avae.runs.kinds import Integer
from pyro_avae.runs.run_folder import RunFolder
from pyro_avae.runs.settings import Settings
from pyro_avae.runs.trust import Trust

__all__ = ["add_arguments", "run"]

#: Test images named in the table.
_SHOWN = 5


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options."""
    parser.add_argument("run", type=Path, metavar="RUN", help="the folder of a trained run")
    parser.add_argument(
        "--top", type=reader("--top", COUNT), default=10, metavar="N", help="strongest images named (default: 10)"
    )
    parser.add_argument("--data-root", default=None, metavar="DIR", help="default: the one stored in the run")
    parser.add_argument(
        "--limit",
        type=reader("--limit", COUNT),
        default=None,
        metavar="N",
        help="look at the first N training images only (default: those that the run was trained on)",
    )
    parser.add_argument(
        "--test-limit",
        type=reader("--test-limit", Integer(0, 10**12)),
        default=100,
        metavar="N",
        help="influence on the first N test images (default: 100)",
    )
    parser.add_argument(
        "--samples",
        type=reader("--samples", Integer(2, 10**6)),
        default=16,
        metavar="N",
        help="posterior samples of an image at each checkpoint, an even number (default: 16)",
    )
    parser.add_argument(
        "--projection",
        type=reader("--projection", COUNT),
        default=None,
        metavar="N",
        help="project gradients to N numbers where those of the test images do not fit into memory",
    )
    add_trust(parser)
    parser.add_argument("--no-progress", action="store_true", help="show no progress")


def run(args: argparse.Namespace) -> int:
    """Measure; returns the exit status."""
    device = as_device(args.device or default_device())
    folder = RunFolder(args.run)
    loaded = load_trusted(folder.path, device=device, trust=args.trust)
    config = loaded.config
    elbo = _elbo(config, args.trust)
    root = args.data_root if args.data_root is not None else config.data_root
    data = load_dataset(config.dataset, root=root, limit=config.limit)
    train = data.train if args.limit is None else data.train.limit(args.limit)
    test = data.test.limit(args.test_limit) if args.test_limit else None
    with stage_bars(enabled=not args.no_progress) as report:
        found = influence(
            loaded.model,
            loaded.guide,
            train,
            test,
            elbo=elbo,
            stages=stages(kept_checkpoints(folder)),
            num_samples=args.samples,
            projection=args.projection,
            seed=args.seed,
            progress=report,
        )
    document = {
        "method": config.method,
        "dataset": config.dataset,
        "seed": config.seed,
        "steps": loaded.step,
        "influence_seed": args.seed,
        **influence_document(found, data, top=args.top),
    }
    for name, picture in influence_pictures(document, data).items():
        write_atomically(folder.path / name, picture.content)
    write_json(folder.influence, document)
    Console().print(_table(document))
    print(f"written to {shown(folder.influence)}")
    return 0


def _elbo(config: Settings, trust: Trust) -> ELBO:
    """The bound that the run was trained with.

    Raises:
        InputError: a method that looks at no image.
    """
    method = METHODS.get(config.method)
    if method is not None and not method.needs_data:
        raise InputError(f"RUN: the method {config.method} trains on no images, so that none had an influence")
    return make_triple(config, trust=trust).elbo


def _table(document: Mapping[str, Any]) -> Group:
    title = f"{document['method']} on {document['dataset']}, {document['steps']} steps"
    own = Table(title=f"{title}: most self-influential of {document['train_images']} training images")
    for name in ("image", "label", "self-influence", "loss, nats"):
        own.add_column(name, justify="left" if name == "label" else "right")
    for fact in document["self_influence"]["top"]:
        own.add_row(str(fact["image"]), fact["name"], f"{fact['value']:.4g}", f"{fact['loss']:.2f}")
    lines: list[Table | Text] = [own]
    if document["test"]:
        others = Table(title="strongest images of the first test images")
        for name in ("test image", "proponents", "opponents"):
            others.add_column(name)
        for fact in document["test"][:_SHOWN]:
            named = [", ".join(f"{one['image']} ({one['name']})" for one in fact[k][:3]) for k in _STRONGEST]
            others.add_row(f"{fact['image']} ({fact['name']})", *named)
        lines.append(others)
    lines += [Text(line) for line in _remarks(document)]
    return Group(*lines)


_STRONGEST = ("proponents", "opponents")


def _remarks(document: Mapping[str, Any]) -> list[str]:
    found = [
        f"{task}: {100 * share['strongest_proponent']:.0f} % of the strongest proponents and"
        f" {100 * share['strongest_opponent']:.0f} % of the strongest opponents have the test image's label,"
        f" {100 * share['any_image']:.0f} % of all training images"
        for task, share in document["same_label"].items()
    ]
    return [*found, *([document["note"]] if document["note"] else [])]
