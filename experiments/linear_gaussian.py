"""Train a linear AVAE by SVI and watch its exact bound: no Monte Carlo in what is printed.

Run from anywhere, seconds on one core:

    python -m pyro_avae.experiments.linear_gaussian
    python -m pyro_avae.experiments.linear_gaussian --steps 2000 --rho 0.5

The table of all exact checks is ``pyro-avae verify``.
"""

import sys
from collections.abc import Sequence

import pyro
import torch
from pyro.infer import SVI
from pyro.optim import ClippedAdam

from pyro_avae import AVAE_ELBO
from pyro_avae.experiments.exit_status import exit_status
from pyro_avae.experiments.one_line_parser import OneLineParser
from pyro_avae.experiments.options import COUNT, reader
from pyro_avae.guides import AVAEGuide, LinearEncoder
from pyro_avae.linear_gaussian import exact_bound, exact_terms, verify_bound
from pyro_avae.models import PPCA, ExtendedVAE
from pyro_avae.runs.kinds import Integer

NUM_DATA, DATA_DIM, LATENT_DIM = 200, 8, 2  # small enough that every number below is exact in milliseconds
NOISE = 0.5  # standard deviation of the observation noise that makes the data
LEARNING_RATE = 0.02
PARTICLES = 8


def main(argv: Sequence[str] | None = None) -> int:
    """Run the script; see the module's docstring."""
    parser = OneLineParser(prog="linear_gaussian", description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--steps", type=reader("--steps", COUNT), default=1000)
    parser.add_argument("--rho", type=float, default=0.8)
    parser.add_argument("--seed", type=reader("--seed", Integer(0, 2**32 - 1)), default=0)
    options = parser.read(sys.argv[1:] if argv is None else argv)

    # Data: a plane in DATA_DIM dimensions, and noise.
    torch.manual_seed(options.seed)
    plane = torch.randn(DATA_DIM, LATENT_DIM)
    x = torch.randn(NUM_DATA, LATENT_DIM) @ plane.T + NOISE * torch.randn(NUM_DATA, DATA_DIM)

    # The best that any model of this family can do: the maximum-likelihood solution, in closed form.
    ppca = PPCA.fit(x, LATENT_DIM)
    best = float(ppca.log_evidence(x).mean().detach())
    print(f"maximum likelihood: log p(x) = {best:.4f} nats per datum, variance {float(ppca.obs_variance):.4f}")

    # Target, guide, objective.
    model = ExtendedVAE(
        torch.nn.Linear(LATENT_DIM, DATA_DIM), latent_dim=LATENT_DIM, rho=options.rho, obs_variance=NOISE**2
    )
    guide = AVAEGuide(LinearEncoder(DATA_DIM, LATENT_DIM, full_covariance=True), model)
    elbo = AVAE_ELBO(num_particles=PARTICLES, vectorize_particles=True)

    # Train with pyro.infer.SVI. The loss is a sum over the data.
    svi = SVI(model, guide, ClippedAdam({"lr": LEARNING_RATE}), loss=elbo)
    with pyro.validation_enabled(False):
        for step in range(options.steps + 1):
            if step % max(1, options.steps // 5) == 0:
                bound = -float(exact_bound(model, guide, x).detach()) / NUM_DATA
                terms = {name: float(term.detach()) / NUM_DATA for name, term in exact_terms(model, guide, x).items()}
                parts = ", ".join(f"{name} {value:.4f}" for name, value in terms.items())
                print(f"step {step:5d}: exact bound {bound:9.4f}   ({parts})")
            svi.step(x)

    # Would you have believed it? The same bound and every gradient, by Monte Carlo.
    check = verify_bound(model, guide, elbo, x, num_samples=200, seed=options.seed)
    print(check)
    return 0 if check.passed else 1


if __name__ == "__main__":
    sys.exit(exit_status("linear_gaussian", main))
