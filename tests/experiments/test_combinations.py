"""Methods, guides, likelihoods, networks and penalties in every combination: each trains, or says why not."""

import itertools

import pytest
import torch

from pyro_avae.errors import InputError
from pyro_avae.experiments.defaults import settings_for
from pyro_avae.experiments.methods import METHODS, build
from pyro_avae.experiments.unused import refuse_unused
from pyro_avae.training import fit
from pyro_avae.training.sources import NoData

CHOICES = {
    "method": sorted(METHODS),
    "guide": ["gaussian", "hamiltonian"],
    "likelihood": ["gaussian", "gaussian-learned", "bernoulli", "continuous-bernoulli", "cross-entropy"],
    "architecture": ["mlp", "conv", "conv-small"],
    "normalization": ["none", "batch"],
    "jacobian_l1": [0.0, 0.1],
    "num_particles": [1, 2],
}
SMALL = {"latent_dim": 2, "image_shape": (1, 8, 8), "hidden": (8,), "channels": 4, "attack_steps": 2}
FEW = {"leapfrog_steps": 2}


def combinations():
    return [dict(zip(CHOICES, values, strict=True)) for values in itertools.product(*CHOICES.values())]


def pairwise():
    """Few combinations in which any two choices meet: greedily, the one that brings most new pairs."""
    every, left = combinations(), set()
    pairs = {
        place: {frozenset(pair) for pair in itertools.combinations(one.items(), 2)} for place, one in enumerate(every)
    }
    left = set().union(*pairs.values())
    chosen = []
    while left:
        best = max(pairs, key=lambda place: len(pairs[place] & left))
        chosen.append(every[best])
        left -= pairs[best]
    return chosen


def reasons(options):
    """What a combination is refused for; nothing for a legal one."""
    unused, found = METHODS[options["method"]].unused, []
    if options["guide"] == "hamiltonian" and "guide" in unused:
        found.append("--guide: the method")
    if options["guide"] == "hamiltonian" and options["method"] == "beta-vae":
        found.append("beta: expected 1 with --guide hamiltonian")
    if options["jacobian_l1"] and "jacobian_l1" in unused:
        found.append("--jacobian-l1: the method")
    return found


def check(options):
    extra = FEW if options["guide"] == "hamiltonian" else {}
    settings = settings_for({**SMALL, **extra, **options})
    defaults = settings_for({"method": options["method"]})
    expected = reasons(options)
    try:
        refuse_unused(settings, {n: value for n, value in options.items() if value != getattr(defaults, n)})
        torch.manual_seed(0)
        model, guide, elbo = build(settings)
    except InputError as error:
        assert any(str(error).startswith(each) for each in expected), (options, error)
        return
    assert not expected, options
    images = torch.rand(8, 1, 8, 8)
    data = NoData(8) if not METHODS[options["method"]].needs_data else images.round()
    result = fit(model, guide, data, elbo=elbo, steps=3, batch_size=4, log_every=1)
    assert [row["step"] for row in result.history] == [1, 2, 3]
    terms = set(result.history[0]) - {"step", "loss", "rho", "obs_variance"}
    assert ("momentum" in terms) == (options["guide"] == "hamiltonian")
    assert ("jacobian_l1" in terms) == (options["jacobian_l1"] > 0)


def test_any_two_choices_go_together_or_say_why_not():
    chosen = pairwise()
    assert len(chosen) < 60
    for options in chosen:
        check(options)


@pytest.mark.slow
@pytest.mark.parametrize("method", CHOICES["method"])
def test_every_combination_goes_together_or_says_why_not(method):
    for options in combinations():
        if options["method"] == method:
            check(options)
