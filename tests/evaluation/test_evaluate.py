"""The whole evaluation on a trained pair: what it says, that it repeats, and that it leaves no trace."""

import copy
import json
from dataclasses import replace

import pytest
import torch

from pyro_avae.data import ImageData
from pyro_avae.errors import InputError
from pyro_avae.evaluation import Classifier, evaluate

QUICK = {"epsilons": [0.0, 0.02], "steps": 5, "limit": 60, "num_importance_samples": 50}


@pytest.fixture(scope="module")
def result(trained) -> dict:
    return evaluate(trained.model, trained.guide, trained.data, **QUICK)


def test_it_is_plain_json(result: dict) -> None:
    assert json.loads(json.dumps(result, allow_nan=False)) == result


def test_accuracies_are_those_of_the_probe(result: dict, trained, digit_classifier: Classifier) -> None:
    x, labels = trained.data.test.fixed_batch(torch.arange(60))
    clean = float((digit_classifier(x).argmax(-1) == labels["digit"]).double().mean())
    digit = result["tasks"]["digit"]
    assert list(digit["accuracy"]) == ["0.0", "0.02"]
    assert digit["accuracy"]["0.0"] == pytest.approx(clean)
    assert digit["accuracy"]["0.02"] < digit["accuracy"]["0.0"]
    assert digit["majority"] == pytest.approx(float(labels["digit"].bincount().max()) / 60)
    assert digit["accuracy"]["0.0"] > digit["majority"], "the trained representation must beat guessing"
    assert result["tasks"]["color"]["accuracy"]["0.0"] > 0.9
    assert digit["probe"]["C"] == digit_classifier.probe.c
    assert digit["probe"]["converged"] is True
    assert "accuracy_autoattack" not in digit


def test_errors_agree_on_every_scale(result: dict, trained) -> None:
    x, _ = trained.data.test.fixed_batch(torch.arange(60))
    with torch.no_grad():
        output = trained.model.decoder(trained.guide.encoder(x)[0])
    assert result["mse"] == pytest.approx(float(((x - output) ** 2).mean()), rel=1e-5)
    assert result["mse_255"] == pytest.approx(float(((255 * x - 255 * output) ** 2).mean()), rel=1e-5)
    assert result["sse"] == pytest.approx(float(((x - output) ** 2).sum()) / 60, rel=1e-5)


def test_the_likelihood_bounds_the_plain_bound(result: dict) -> None:
    bound = result["bound"]
    assert set(bound) == {"x", "z", "z_aux", "total"}
    # E log-mean-exp of 50 weights is above the ELBO (one weight), by far more than either's error here.
    assert result["log_likelihood"] > bound["x"] + bound["z"]
    assert set(result["psis_khat"]) == {"median", "max", "fraction_above_0.7"}
    assert result["importance_sampling"] == {"num_images": 60, "num_samples": 50}


def test_it_records_how_it_was_done(result: dict, trained) -> None:
    assert result["num_test_images"] == 60
    assert result["num_train_images"] == len(trained.data.train)
    assert result["attack"]["name"] == "pgd"
    assert result["attack"]["epsilons"] == [0.0, 0.02]
    assert result["attack"]["pgd"]["steps"] == 5
    assert result["attack"]["pgd"]["restarts"] == 4
    assert "autoattack" not in result["attack"]


def test_it_repeats_and_leaves_nothing_behind(result: dict, trained) -> None:
    trained.guide.train()
    trained.guide.encoder.layers[0].eval()
    torch.manual_seed(99)
    before = torch.get_rng_state()
    calls: list[tuple[str, int, int]] = []
    again = evaluate(trained.model, trained.guide, trained.data, progress=lambda *call: calls.append(call), **QUICK)
    assert again == result
    assert torch.equal(before, torch.get_rng_state())
    assert trained.guide.training and not trained.guide.encoder.layers[0].training
    assert all(p.requires_grad and p.grad is None for p in [*trained.model.parameters(), *trained.guide.parameters()])
    stages = {stage: (done, total) for stage, done, total in calls}
    assert {"encode", "pgd: digit", "pgd: color", "bound", "likelihood"} <= set(stages)
    assert all(done == total for done, total in stages.values())
    assert stages["pgd: digit"] == (120, 120)


def test_a_radius_has_the_same_accuracy_in_any_company(result: dict, trained) -> None:
    alone = evaluate(trained.model, trained.guide, trained.data, **{**QUICK, "epsilons": [0.02]})
    assert alone["tasks"]["digit"]["accuracy"]["0.02"] == result["tasks"]["digit"]["accuracy"]["0.02"]


def test_another_seed_is_another_attack(result: dict, trained) -> None:
    other = evaluate(trained.model, trained.guide, trained.data, seed=1, **QUICK)
    assert other["log_likelihood"] != result["log_likelihood"]
    assert other["mse"] == result["mse"]


def test_the_batch_size_changes_no_average(result: dict, trained) -> None:
    small = evaluate(trained.model, trained.guide, trained.data, batch_size=7, **QUICK)
    assert small["sse"] == pytest.approx(result["sse"], rel=1e-5)
    for task in ("digit", "color"):
        assert small["tasks"][task]["accuracy"]["0.0"] == result["tasks"][task]["accuracy"]["0.0"]
    assert small["bound"]["z"] == pytest.approx(result["bound"]["z"], rel=1e-5)  # in closed form: nothing is drawn


@pytest.mark.cuda
def test_cuda_agrees_with_the_cpu(result: dict, trained) -> None:
    before = torch.cuda.get_rng_state()
    model, guide = copy.deepcopy((trained.model, trained.guide))
    there = evaluate(model.cuda(), guide.cuda(), trained.data.to("cuda"), **QUICK)
    assert torch.equal(before, torch.cuda.get_rng_state())
    assert there["sse"] == pytest.approx(result["sse"], rel=1e-3)
    # Rounding may move an image or two of the sixty across a boundary.
    for epsilon in ("0.0", "0.02"):
        pair = (there["tasks"]["digit"]["accuracy"][epsilon], result["tasks"]["digit"]["accuracy"][epsilon])
        assert abs(pair[0] - pair[1]) <= 3 / 60


def test_autoattack_runs_beside_pgd(trained) -> None:
    pytest.importorskip("torchattacks", reason="the extra `attacks` is not installed")
    settings = {**QUICK, "limit": 10, "epsilons": [0.0, 0.05]}
    small = replace(trained.data, class_names={"digit": trained.data.class_names["digit"]})
    result = evaluate(trained.model, trained.guide, small, attack="autoattack", **settings)
    digit = result["tasks"]["digit"]
    assert list(digit["accuracy_autoattack"]) == ["0.0", "0.05"]
    assert digit["accuracy_autoattack"]["0.0"] == digit["accuracy"]["0.0"]
    assert digit["accuracy_autoattack"]["0.05"] <= digit["accuracy"]["0.05"] + 0.1
    described = result["attack"]["autoattack"]
    assert described["library"].startswith("torchattacks ")
    assert described["parts"] == {"digit": ["apgd-ce", "apgd-t", "fab-t", "square"]}
    assert described["num_images"] == 10


def test_images_without_labels_are_still_reconstructed(trained) -> None:
    bare = ImageData("bare", trained.data.train, trained.data.test, {})
    result = evaluate(trained.model, trained.guide, bare, **QUICK)
    assert result["tasks"] == {}
    assert result["mse"] > 0


def test_images_alone_are_no_data_set(trained) -> None:
    images = torch.rand(5, *trained.data.shape)
    with pytest.raises(InputError, match=r"^data: expected an ImageData, got Tensor; load_dataset\(\)"):
        evaluate(trained.model, trained.guide, images, **QUICK)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"attack": "fgsm"}, "attack: expected one of pgd, autoattack, got 'fgsm'"),
        ({"epsilons": [0.1, -0.2]}, r"epsilons: expected L∞ radii in \[0, 1\] .* got -0.2"),
        ({"epsilons": [float("nan")]}, "got nan"),
        ({"epsilons": [1.5]}, "got 1.5"),
        ({"steps": 0}, "steps: expected at least 1, got 0"),
        ({"restarts": 0}, "restarts: expected at least 1, got 0"),
        ({"limit": 0}, "limit: expected at least 1 test image, got 0"),
        ({"batch_size": 0}, "batch_size: expected at least 1, got 0"),
        ({"num_importance_samples": 24}, "num_importance_samples: expected at least 25"),
    ],
)
def test_bad_options_are_named_before_anything_runs(trained, change: dict, message: str) -> None:
    calls: list[tuple[str, int, int]] = []
    with pytest.raises(InputError, match=message):
        evaluate(trained.model, trained.guide, trained.data, progress=lambda *c: calls.append(c), **{**QUICK, **change})
    assert calls == []


def test_a_task_that_cannot_be_probed_is_named(trained) -> None:
    train = trained.data.train.limit(5)
    with pytest.raises(InputError, match="task 'digit': probe: expected at least 10 training images"):
        evaluate(trained.model, trained.guide, replace(trained.data, train=train), **QUICK)
