"""The whole evaluation on a trained pair: what it says, that it repeats, and that it leaves no trace."""

import copy
import json
from dataclasses import replace

import numpy as np
import pytest
import torch

from pyro_avae.data import ImageData, Split
from pyro_avae.errors import InputError
from pyro_avae.evaluation import Classifier, evaluate, fit_probe

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
    assert set(stages) == {
        *("encode", "bound", "likelihood"),
        *(f"{stage}: {task}" for stage in ("pgd", "gradient masking") for task in ("digit", "color")),
    }
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


def test_every_accuracy_has_its_balanced_one(result: dict) -> None:
    for task in result["tasks"].values():
        names = {"accuracy", "accuracy_one_step", "accuracy_noise"}
        assert {key for key in task if key.startswith("accuracy")} == names
        assert {key.removeprefix("balanced_") for key in task if key.startswith("balanced_")} == names
        for name in names:
            assert list(task[name]) == list(task[f"balanced_{name}"]) == ["0.0", "0.02"]
            assert task[name]["0.0"] == task["accuracy"]["0.0"]
            assert task[name]["0.02"] >= task["accuracy"]["0.02"], "PGD is the strongest"


def test_the_pair_is_checked_for_gradient_masking(result: dict) -> None:
    for task, chance in (("digit", 0.1), ("color", 1 / 7)):
        measured = result["tasks"][task]
        check = measured["gradient_masking"]
        assert check["passed"] is True
        assert check["stronger_than_pgd"] == []
        assert (check["norm"], check["epsilon"], check["num_images"]) == ("Linf", 0.5, 60)
        assert check["chance"] == pytest.approx(max(chance, measured["majority"]))
        assert check["accuracy"]["pgd"] <= min(check["accuracy"].values())
        assert set(check["accuracy"]) == {"pgd", "one_step", "noise"}


def test_a_small_masking_radius_does_not_reach_chance(trained) -> None:
    found = evaluate(trained.model, trained.guide, trained.data, masking_epsilon=0.01, **QUICK)
    check = found["tasks"]["color"]["gradient_masking"]
    assert (check["epsilon"], check["at_or_below_chance"], check["passed"]) == (0.01, False, False)


def test_l2_radii_stand_beside_the_others(result: dict, trained) -> None:
    both = evaluate(trained.model, trained.guide, trained.data, epsilons_l2=[0, 0.3, 5], **QUICK)
    for name, task in both["tasks"].items():
        assert {key: task[key] for key in result["tasks"][name]} == result["tasks"][name]
        assert list(task["accuracy_l2"]) == list(task["balanced_accuracy_noise_l2"]) == ["0.0", "0.3", "5.0"]
        assert task["accuracy_l2"]["0.0"] == task["accuracy"]["0.0"] > task["accuracy_l2"]["5.0"]
        assert task["accuracy_one_step_l2"]["0.3"] >= task["accuracy_l2"]["0.3"]
    assert both["attack"]["epsilons_l2"] == [0.0, 0.3, 5.0]
    assert (both["attack"]["norms"], result["attack"]["norms"]) == (["Linf", "L2"], ["Linf"])


def test_images_made_against_another_pair_transfer(result: dict, trained) -> None:
    pair = (trained.model, trained.guide)
    own = evaluate(*pair, trained.data, transfer_from=pair, **QUICK)["tasks"]["digit"]
    assert own["accuracy_transfer"]["0.0"] == own["accuracy"]["0.0"]
    assert own["accuracy"]["0.02"] <= own["accuracy_transfer"]["0.02"] < own["accuracy_noise"]["0.02"]
    assert own["accuracy"] == result["tasks"]["digit"]["accuracy"]
    assert "transfer" in own["gradient_masking"]["accuracy"]
    other = copy.deepcopy(pair)
    with torch.no_grad():
        for parameter in other[1].parameters():
            parameter.copy_(torch.randn_like(parameter) * parameter.std().nan_to_num(0.1))
    found = evaluate(*pair, trained.data, transfer_from=other, **QUICK)
    stranger = found["tasks"]["digit"]["accuracy_transfer"]
    assert stranger["0.02"] > own["accuracy_transfer"]["0.02"], "an encoder never trained has other weaknesses"
    assert found["attack"]["transfer"] == {"steps": 5, "restarts": 1, "num_images": 60}


def test_a_probe_on_samples_sees_less_than_one_on_the_mean(result: dict, trained) -> None:
    settings = {**QUICK, "limit": 40, "restarts": 1, "tasks": ["digit"]}
    one, two = (evaluate(trained.model, trained.guide, trained.data, representation="sample", **settings) for _ in "12")
    assert one == two
    digit = one["tasks"]["digit"]
    assert digit["probe"]["classifier"].endswith("on one posterior sample an image")
    assert digit["probe"]["held_out_accuracy"] < result["tasks"]["digit"]["probe"]["held_out_accuracy"]
    assert digit["accuracy"]["0.02"] < digit["accuracy"]["0.0"]
    assert one["attack"]["representation"] == {"name": "sample", "samples_per_step": 32, "samples_per_verdict": 256}
    assert result["attack"]["representation"] == {"name": "mean"}


def test_a_probe_of_one_s_own_is_the_one_that_is_attacked(trained) -> None:
    def first_class(features, labels, num_classes, *, seed):
        probe = fit_probe(features, labels, num_classes, seed=seed)
        probe.weight.zero_()
        probe.bias.copy_(torch.eye(num_classes)[0])
        return probe

    found = evaluate(trained.model, trained.guide, trained.data, **QUICK, tasks=["digit"], fit=first_class)
    _, labels = trained.data.test.fixed_batch(torch.arange(60))
    assert found["tasks"]["digit"]["accuracy"] == pytest.approx(
        dict.fromkeys(["0.0", "0.02"], float((labels["digit"] == 0).double().mean()))
    )


def test_chosen_tasks_are_those_of_the_whole(result: dict, trained) -> None:
    found = evaluate(trained.model, trained.guide, trained.data, tasks=["color"], **QUICK)
    assert found["tasks"] == {"color": result["tasks"]["color"]}
    assert found["tasks_skipped"] == result["tasks_skipped"] == {}
    assert evaluate(trained.model, trained.guide, trained.data, tasks=[], **QUICK)["tasks"] == {}


def labelled(data: ImageData, train: torch.Tensor, test: torch.Tensor) -> ImageData:
    """Plain images with one task of two classes, ``glasses``, beside ``shape``, which has both in both splits."""
    splits = []
    for split, labels in ((data.train, train), (data.test, test)):
        images = (split.fixed_batch(torch.arange(len(labels)))[0] * 255).to(torch.uint8)
        splits.append(Split(images, {"glasses": labels, "shape": torch.arange(len(labels)) % 2}))
    return ImageData("faces", *splits, {"glasses": ("no", "yes"), "shape": ("round", "long")})


@pytest.mark.parametrize("where", ["training", "test"])
def test_a_task_of_one_class_is_left_out_and_the_rest_goes_on(trained, where: str) -> None:
    labels = {"training": torch.arange(80) % 2, "test": torch.arange(40) % 2}
    labels[where] = torch.ones_like(labels[where])
    data = labelled(trained.data, labels["training"], labels["test"])
    found = evaluate(trained.model, trained.guide, data, **{**QUICK, "limit": 10})
    assert list(found["tasks"]) == ["shape"]
    assert found["tasks_skipped"] == {"glasses": f"all {len(labels[where])} {where} labels are of class 1"}


def test_a_class_that_is_held_out_from_the_probe_leaves_its_task_out(trained) -> None:
    train = torch.zeros(80, dtype=torch.long)
    train[int(np.random.default_rng(0).permutation(80)[0])] = 1  # in the held-out tenth of seed 0
    data = labelled(trained.data, train, torch.arange(40) % 2)
    found = evaluate(trained.model, trained.guide, data, **{**QUICK, "limit": 10})
    assert list(found["tasks"]) == ["shape"]
    assert "at least two classes among the training labels" in found["tasks_skipped"]["glasses"]


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
        ({"epsilons_l2": [-1.0]}, "epsilons_l2: expected finite L2 radii of at least 0, got -1.0"),
        ({"masking_epsilon": 2}, r"masking_epsilon: expected L∞ radii in \[0, 1\] .* got 2.0"),
        ({"representation": "mode"}, "representation: expected one of mean, sample, got 'mode'"),
        ({"tasks": ["digit", "hat"]}, r"tasks: expected some of digit, color \(color-digits\), got 'hat'"),
        ({"tasks": ["digit", "digit"]}, "tasks: expected each task once"),
        ({"transfer_from": 3}, r"transfer_from: expected a model and a guide, \(model, guide\), got 3"),
        ({"limit": 0}, "limit: expected at least 1 test image, got 0"),
        ({"batch_size": 0}, "batch_size: expected at least 1, got 0"),
        ({"num_importance_samples": 29}, "num_importance_samples: expected at least 30"),
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
