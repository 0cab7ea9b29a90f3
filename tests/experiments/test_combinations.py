"""Methods, guides, likelihoods, networks and penalties in every combination: each trains, or says why not."""

import itertools
import os

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
    "likelihood": [
        "gaussian",
        "gaussian-learned",
        "bernoulli",
        "continuous-bernoulli",
        "categorical",
        "cross-entropy",
        "logistic-mixture",
    ],
    "architecture": ["mlp", "conv", "conv-small"],
    "normalization": ["none", "batch"],
    "jacobian_l1": [0.0, 0.1],
    "model": ["vae", "lossy"],
    "prior": ["gaussian", "flow"],
    "num_particles": [1, 2],
}
SMALL = {"latent_dim": 2, "image_shape": (1, 4, 4), "hidden": (8,), "channels": 4, "attack_steps": 2}
#: Given where another option calls for them.
FEW = {
    "guide": {"hamiltonian": {"leapfrog_steps": 2}},
    "model": {"lossy": {"window": (3, 1)}},
    "prior": {"flow": {"flow_steps": 2, "flow_hidden": 8}},
}


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
    if options["model"] == "lossy" and options["method"] == "avae-mean":
        found.append("view: expected sample with --model lossy")
    if options["jacobian_l1"] and "jacobian_l1" in unused:
        found.append("--jacobian-l1: the method")
    return found


def check(options):
    extra = {name: value for of, few in FEW.items() for name, value in few.get(options[of], {}).items()}
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
    images = torch.rand(8, 1, 4, 4)
    data = NoData(8) if not METHODS[options["method"]].needs_data else images.round()
    result = fit(model, guide, data, elbo=elbo, steps=3, batch_size=4, log_every=1)
    assert [row["step"] for row in result.history] == [1, 2, 3]
    terms = set(result.history[0]) - {"step", "loss", "rho", "obs_variance"}
    assert ("momentum" in terms) == (options["guide"] == "hamiltonian")
    assert ("jacobian_l1" in terms) == (options["jacobian_l1"] > 0)


def test_any_two_choices_go_together_or_say_why_not():
    chosen = pairwise()
    assert len(chosen) < 80
    for options in chosen:
        check(options)


#: What the networks are made of: with every combination of the other choices goes one combination of these, in turn,
#: or each of them where all are asked for.
IN_TURN = ("architecture", "normalization", "num_particles")
ALL = os.environ.get("PYRO_AVAE_EVERY_COMBINATION") == "1"


def combinations_of(method):
    others = [name for name in CHOICES if name not in (*IN_TURN, "method")]
    turns = itertools.cycle(itertools.product(*(CHOICES[name] for name in IN_TURN)))
    for values in itertools.product(*(CHOICES[name] for name in others)):
        for turn in itertools.product(*(CHOICES[name] for name in IN_TURN)) if ALL else [next(turns)]:
            yield {"method": method, **dict(zip(others, values, strict=True)), **dict(zip(IN_TURN, turn, strict=True))}


@pytest.mark.slow
@pytest.mark.parametrize("method", CHOICES["method"])
def test_every_combination_goes_together_or_says_why_not(method):
    for options in combinations_of(method):
        check(options)
