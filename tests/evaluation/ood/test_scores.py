"""All scores of a pair at once: which are there, what they are made of, and that one seed gives one result."""

import json
import math

import pytest
import torch

from pyro_avae.errors import InputError
from pyro_avae.evaluation.likelihood import log_weights
from pyro_avae.evaluation.ood import LABELS, Pair, evaluate_ood, likelihood_regret, ood_scores
from pyro_avae.evaluation.width import parameters_per_value
from pyro_avae.guides import AmortizedGuide, LinearEncoder, MLPEncoder
from pyro_avae.models import PPCA, VAE, MLPDecoder, bernoulli, categorical

SHAPE = (1, 6, 6)
FEW = {"steps": 4, "num_samples": 2, "num_importance_samples": 3, "repetitions": 20}
ALONE = {"log_likelihood", "regret_free", "regret_encoder", "complexity", "typicality", "drift", "chain_drift"}


def pair(seed=0):
    torch.manual_seed(seed)
    decoder = MLPDecoder(2, (256, 6, 6), hidden=[8], output=None)
    return Pair(VAE(decoder, latent_dim=2, likelihood=categorical), AmortizedGuide(MLPEncoder(SHAPE, 2, hidden=[8])))


def images(count, seed=1):
    return torch.randint(256, (count, *SHAPE), generator=torch.Generator().manual_seed(seed)) / 255


def test_scores_that_need_other_runs_are_marked_absent():
    found = evaluate_ood(*pair(), images(5), images(4, 2), train=images(6, 3), **FEW)
    assert set(found["scores"]) == ALONE
    assert found["absent"] == {
        "likelihood_ratio": "takes another run, of the background",
        "waic": "takes runs of several seeds",
    }
    assert set(found["scores"]) | set(found["absent"]) == set(LABELS)
    assert found["num_images"] == {"inside": 5, "outside": 4, "train": 6}
    json.dumps(found, allow_nan=False)


def test_with_other_runs_every_score_is_there():
    found = evaluate_ood(
        *pair(), images(5), images(4, 2), train=images(6), background=pair(1), ensemble=[pair(2), pair(3)], **FEW
    )
    assert set(found["scores"]) == set(LABELS)
    assert found["absent"] == {}
    assert found["settings"]["ensemble"] == 3
    for score in found["scores"].values():
        assert len(score["values"]["inside"]) == 5 and len(score["values"]["outside"]) == 4
        assert score["mean"]["outside"] == pytest.approx(sum(score["values"]["outside"]) / 4)


def test_a_variant_that_was_not_asked_for_is_absent():
    found = evaluate_ood(*pair(), images(3), images(3, 2), train=images(3), variants=["free"], **FEW)
    assert found["absent"]["regret_encoder"] == "not asked for"
    assert found["settings"]["lr"] == {"free": 0.05}


def test_one_seed_gives_one_result_and_leaves_the_random_state():
    state = torch.get_rng_state()
    calls = [evaluate_ood(*pair(), images(3), images(3, 2), train=images(3), seed=seed, **FEW) for seed in (1, 1, 2)]
    torch.manual_seed(0)
    assert torch.equal(state, torch.get_rng_state())
    assert calls[0] == calls[1] != calls[2]


def test_the_scores_are_those_of_their_functions():
    model, guide = pair()
    x = images(5)
    found = ood_scores(model, guide, x, train_log_p=torch.tensor([-100.0]), steps=3, num_samples=2, seed=5)
    alone = likelihood_regret(model, guide, x, steps=3, num_samples=2, seed=5)
    torch.testing.assert_close(found["regret_free"], alone.regret.double(), rtol=0, atol=0)
    torch.testing.assert_close(found["typicality"], (found["log_likelihood"] - 100).abs(), rtol=0, atol=0)
    # a pmf: 36 pixels of 256 levels, from a decoder that was never trained
    assert bool((found["log_likelihood"] > 0.5 * 36 * math.log(256)).all())


def test_images_that_are_vectors_have_no_complexity():
    model = PPCA(torch.randn(4, 2), obs_variance=0.5)
    guide = AmortizedGuide(LinearEncoder(4, 2))
    found = evaluate_ood(model, guide, torch.randn(4, 4), torch.randn(4, 4) + 5, train=torch.randn(4, 4), **FEW)
    assert found["absent"]["complexity"] == "takes images of one or three channels"
    assert found["scores"]["log_likelihood"]["auroc"]["value"] == 1.0


def test_progress_names_every_stage():
    told = []
    evaluate_ood(*pair(), images(3), images(2, 2), train=images(3), progress=lambda *what: told.append(what), **FEW)
    assert {stage for stage, _, _ in told} >= {
        "log p, training",
        "inside: log p",
        "inside: free: likelihood regret",
        "outside: encoder: likelihood regret",
    }
    assert all(done <= total for _, done, total in told)


def test_what_does_not_fit_is_refused():
    with pytest.raises(InputError, match=r"\Aoutside: expected images of shape \(1, 6, 6\), as the familiar ones, got"):
        evaluate_ood(*pair(), images(2), torch.zeros(2, 1, 5, 5), train=images(2))
    with pytest.raises(InputError, match="variants: expected some of free, encoder, got 'both'"):
        evaluate_ood(*pair(), images(2), images(2), train=images(2), variants=["both"])


def test_the_likelihood_is_decoded_in_chunks_that_its_outputs_fit(monkeypatch):
    """256 logits a pixel: a chunk that holds 36 x 256 values decodes one image at a time."""
    from pyro_avae.evaluation import likelihood

    model, guide = pair()
    assert parameters_per_value(model.observe(torch.zeros(3, 2))) == 256
    assert parameters_per_value(VAE(torch.nn.Linear(2, 5), latent_dim=2).observe(torch.zeros(3, 2))) == 1
    assert parameters_per_value(bernoulli(torch.zeros(3, 2))) == 1
    monkeypatch.setitem(likelihood._CHUNK_VALUES, "cpu", 36 * 256)
    rows = []
    model.decoder.register_forward_hook(lambda module, inputs, out: rows.append(len(out)))
    assert log_weights(model, guide, images(3), 2).shape == (2, 3)
    assert set(rows) == {1}
