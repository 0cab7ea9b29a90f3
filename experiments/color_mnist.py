"""An AVAE on ColorMNIST, from data to attacked digits, as one script.

::

    python -m pyro_avae.experiments.color_mnist --data-root DATA                      # the paper's 102,000 steps
    python -m pyro_avae.experiments.color_mnist --data-root DATA --steps 2000 --limit 1000
    python -m pyro_avae.experiments.color_mnist --dataset color-digits --steps 2000 --lr 1e-3   # no download

DATA holds ``MNIST/raw``, as torchvision lays it out; without ``--data-root`` MNIST is downloaded into a cache.
``pyro-avae train`` does the same with checkpoints; this script is what to copy and change. It trains on the CPU unless
``--device`` says otherwise, and draws from torch's global generator, seeded once.

Source: Cemgil et al., The Autoencoding Variational Autoencoder, NeurIPS 2020; Adam at 1e-4, batches of 64, nu = 0.5,
64 latents, rho = 0.975, MLPs of 4 x 200.
"""

import argparse
import sys
from collections.abc import Sequence

import torch

from pyro_avae import AVAE_ELBO
from pyro_avae.data import load_dataset
from pyro_avae.evaluation import evaluate
from pyro_avae.experiments.exit_status import exit_status
from pyro_avae.experiments.one_line_parser import OneLineParser
from pyro_avae.experiments.options import COUNT, reader
from pyro_avae.guides import AVAEGuide, MLPEncoder
from pyro_avae.models import ExtendedVAE, MLPDecoder
from pyro_avae.runs.kinds import Integer, Number

LATENT_DIM = 64
HIDDEN = (200, 200, 200, 200)
RHO = 0.975
OBS_VARIANCE = 0.5
BATCH_SIZE = 64
LOG_EVERY = 500


def options(argv: Sequence[str]) -> argparse.Namespace:
    """The command line of this script."""
    parser = OneLineParser(prog="color_mnist", description="Train and attack an AVAE on ColorMNIST.")
    parser.add_argument("--dataset", default="color-mnist", help="or color-digits, which needs no download")
    parser.add_argument("--data-root", help="folder with MNIST/raw")
    parser.add_argument("--steps", type=reader("--steps", COUNT), default=102_000)
    parser.add_argument("--limit", type=reader("--limit", COUNT), help="use the first N images of each split only")
    parser.add_argument("--lr", type=reader("--lr", Number("a finite number above 0", lambda v: v > 0)), default=1e-4)
    parser.add_argument("--seed", type=reader("--seed", Integer(0, 2**32 - 1)), default=0)
    parser.add_argument("--device", default="cpu")
    return parser.read(argv)


def main(argv: Sequence[str] | None = None) -> None:
    """Data, model, guide, ELBO, loop, evaluation."""
    args = options(sys.argv[1:] if argv is None else argv)
    torch.manual_seed(args.seed)

    # Data: on the device; colours are drawn there, afresh for every batch.
    data = load_dataset(args.dataset, root=args.data_root, device=args.device, limit=args.limit)
    generator = torch.Generator(args.device).manual_seed(args.seed)

    # The target p(x|z) p(z) p_rho(z_aux|z) ...
    decoder = MLPDecoder(LATENT_DIM, data.shape, hidden=HIDDEN)
    model = ExtendedVAE(decoder, latent_dim=LATENT_DIM, rho=RHO, obs_variance=OBS_VARIANCE).to(args.device)

    # ... and the guide q(z|x) p(x_aux|z) q(z_aux|x_aux).
    encoder = MLPEncoder(data.shape, LATENT_DIM, hidden=HIDDEN)
    guide = AVAEGuide(encoder, model).to(args.device)

    # Minus the bound, in nats, summed over the batch.
    elbo = AVAE_ELBO()
    negative_bound = elbo(model, guide)

    # SVI: the sum over the batch is divided once, here.
    optimizer = torch.optim.Adam([*model.parameters(), *guide.parameters()], lr=args.lr)
    for step in range(1, args.steps + 1):
        indices = torch.randint(len(data.train), (BATCH_SIZE,), generator=generator, device=args.device)
        x, _ = data.train.batch(indices, generator)
        optimizer.zero_grad()
        loss = negative_bound(x) / len(x)
        loss.backward()
        optimizer.step()
        if step % LOG_EVERY == 0 or step == args.steps:
            terms = elbo.terms(model, guide, x)
            shown = "  ".join(f"{name} {float(term.detach()) / len(x):.2f}" for name, term in terms.items())
            print(f"step {step}  loss {float(loss.detach()):.2f}  {shown}", flush=True)

    # A linear probe on the posterior mean for each task, attacked by PGD.
    result = evaluate(model, guide, data, epsilons=[0.0, 0.1, 0.2], seed=args.seed)
    for task, measured in result["tasks"].items():
        accuracies = "  ".join(f"eps {eps}: {value:.3f}" for eps, value in measured["accuracy"].items())
        print(f"{task:<8}{accuracies}")
    print(f"mse     {result['mse']:.5f} per pixel")
    print(f"bound   {result['bound']['total']:.2f} nats per image")


if __name__ == "__main__":
    sys.exit(exit_status("color_mnist", main))
