"""The classifiers that learn, and what they are made of: statistics of a run, plain trees."""

import json
from typing import Any

import numpy as np
import pytest
import torch
from breakable_program import Program
from bugbench.detector import Diagnosis, Label, NotApplicable, Trace
from bugbench.detectors.deepfd import Deepfd
from bugbench.detectors.default_tree import DefaultTree
from bugbench.plain_trees import forest_shares, plain_forest, plain_tree, tree_shares
from bugbench.recorder import Recorder
from bugbench.run_statistics import run_statistics, table
from scipy import stats
from sklearn.datasets import load_iris
from sklearn.ensemble import RandomForestClassifier
from sklearn.tree import DecisionTreeClassifier

# -- statistics -----------------------------------------------------------------------------------------------------


def test_eight_statistics_of_a_series_agree_with_scipy(tmp_path):
    run = Recorder(tmp_path / "t", access=("curves", "tensors"))
    losses = [3.0, 1.0, float("inf"), 2.0, 1.5, float("nan")]
    for loss in losses:
        run.log_batch("train", inputs=torch.ones(1), targets=torch.ones(1), outputs=torch.ones(1), loss=loss)
    run.finish()
    found = run_statistics(Trace(tmp_path / "t"))
    finite = np.array([3.0, 1.0, 2.0, 1.5])
    expected = {
        **{"mean": 1.875, "median": 1.75, "max": 3.0, "min": 1.0, "std": finite.std(ddof=1), "var": finite.var(ddof=1)},
        **{"sem": stats.sem(finite), "skew": stats.skew(finite, bias=False)},
    }
    assert {name: found[f"loss_{name}"] for name in expected} == pytest.approx(expected)
    assert found["nan_loss_mean"] == pytest.approx(2 / 6)
    assert found["val_acc_mean"] is None, "nothing was reported"
    json.dumps(found, allow_nan=False)


def test_series_of_a_run(tmp_path):
    trace = Program(reported=lambda mean: 7.0).run(tmp_path / "t")
    found = run_statistics(trace)
    assert (found["train_loss_mean"], found["acc_max"], found["lr_mean"]) == (7.0, 0.5, pytest.approx(0.1))
    assert [found[f"val_acc_{name}"] for name in ("min", "mean", "max")] == pytest.approx([0.5, 0.6, 0.7])
    assert found["test_not_well_max"] == 0, "validation is better"
    assert found["increase_loss_max"] == 0
    weights = trace.layers[trace.layers["kind"] == "weight"]
    assert found["weight_max"] == pytest.approx(weights[["min", "max"]].abs().max().max())
    relu = trace.layers[(trace.layers["kind"] == "activation") & (trace.layers["layer"] == "1")]
    assert found["dead_relu_mean"] == pytest.approx(relu["zero_share"].mean())


def test_a_metric_that_is_reported_twice_in_an_epoch(tmp_path):
    run = Recorder(tmp_path / "t", access=("curves", "tensors"))
    for split, accuracy in (("train", 0.2), ("train", 0.95), ("val", 0.9), ("val", 0.6)):
        run.log_metrics(split, accuracy=accuracy)
    run.finish()
    found = run_statistics(Trace(tmp_path / "t"))
    assert (found["acc_mean"], found["val_acc_mean"], found["test_not_well_mean"]) == (0.95, 0.6, 1)


def test_vanished_gradients_and_dead_layers_show(tmp_path):
    found = run_statistics(Program(inputs=lambda x: x * 1e-6).run(tmp_path / "t"))
    assert found["vanish_gradient_mean"] == 1
    assert found["explode_gradient_max"] == 0
    alive = run_statistics(Program().run(tmp_path / "u"))
    assert alive["vanish_gradient_max"] == 0


def test_table_has_nan_for_what_is_missing():
    rows = table([{"a": 1.0, "b": None}, {"b": 2.0}], ["a", "b"])
    assert np.array_equal(rows, [[1, np.nan], [np.nan, 2]], equal_nan=True)
    assert table([], ["a", "b"]).shape == (0, 2)


# -- trees ----------------------------------------------------------------------------------------------------------


def test_plain_trees_say_what_scikit_learn_says():
    x, y = load_iris(return_X_y=True)
    tree = DecisionTreeClassifier(max_depth=5, random_state=0).fit(x[::2], y[::2])
    forest = RandomForestClassifier(7, random_state=0).fit(x[::2], y[::2])
    lists = json.loads(json.dumps([plain_tree(tree), plain_forest(forest)]))
    for row in x:
        assert tree_shares(lists[0], row, 3) == pytest.approx(tree.predict_proba([row])[0], abs=1e-4)
        assert forest_shares(lists[1], row, 3) == pytest.approx(forest.predict_proba([row])[0], abs=1e-4)


def test_a_tree_of_a_single_leaf():
    tree = plain_tree(DecisionTreeClassifier().fit(np.zeros((3, 1)), [0, 0, 1]))
    assert tree_shares(tree, np.array([5.0]), 2) == pytest.approx([2 / 3, 1 / 3], abs=1e-4)


# -- classifiers ----------------------------------------------------------------------------------------------------

CENTERS = {"none": 0.0, "lr_too_high": 5.0, "missing_step": -5.0, "softmax_dim": 9.0}
FAMILIES = {"none": "none", "lr_too_high": "optimizer", "missing_step": "training_loop", "softmax_dim": "model"}


def examples(runs: int = 12) -> list[tuple[dict[str, float | None], Label]]:
    generator = np.random.default_rng(0)
    found: list[tuple[dict[str, float | None], Label]] = []
    for fault, center in CENTERS.items():
        for _ in range(runs):
            label = Label(fault, FAMILIES[fault], "digits", control=fault == "none")
            found.append(({"loss_mean": center + generator.normal(), "acc_mean": generator.normal()}, label))
    return found


@pytest.mark.parametrize("kind", [Deepfd, DefaultTree])
@pytest.mark.parametrize("fault", CENTERS)
def test_clear_cases_are_told_apart(kind, fault, monkeypatch):
    detector = kind()
    detector.model = json.loads(json.dumps(kind().fit(examples()), allow_nan=False))
    assert json.dumps(kind().fit(examples())) == json.dumps(detector.model), "the same model each time"
    monkeypatch.setattr(kind, "extract", lambda self, trace: {"loss_mean": CENTERS[fault], "acc_mean": None})
    found = detector.diagnose(Trace("anywhere")).suspects
    assert [s.fault for s in found[:1]] == ([] if fault == "none" else [fault])
    assert all(0 < s.confidence <= 1 for s in found)


@pytest.mark.parametrize("kind", [Deepfd, DefaultTree])
def test_one_class_alone_is_nothing_to_learn(kind):
    healthy = [example for example in examples() if example[1].control]
    with pytest.raises(NotApplicable, match="of other workloads are"):
        kind().fit(healthy)


@pytest.mark.parametrize("kind", [Deepfd, DefaultTree])
def test_a_run_without_steps_is_not_learned_from(kind, tmp_path):
    Recorder(tmp_path / "t").finish(error="SyntaxError")
    with pytest.raises(NotApplicable, match="no training step"):
        kind().extract(Trace(tmp_path / "t"))


@pytest.mark.parametrize("kind", [Deepfd, DefaultTree])
def test_numbers_beyond_all_that_was_learned(kind, monkeypatch):
    detector = kind()
    detector.model = kind().fit(examples())
    monkeypatch.setattr(kind, "extract", lambda self, trace: {"loss_mean": 1e308, "other": 1.0})
    assert isinstance(detector.diagnose(Trace("anywhere")), Diagnosis)


@pytest.mark.parametrize(
    ("votes", "expected"),
    [
        (("none", "none", "lr_too_high"), []),
        (("none", "lr_too_high", "lr_too_high"), ["lr_too_high"]),
        (("missing_step", "lr_too_high", "lr_too_high"), ["lr_too_high", "missing_step"]),
        (("none", "lr_too_high", "missing_step"), ["lr_too_high", "missing_step"]),
    ],
)
def test_two_of_three_classifiers_decide(votes, expected, monkeypatch):
    """The neighbours are of one class; tree and forest are leaves; of one vote each, the larger mean share is first."""
    classes = sorted(CENTERS)

    def leaf(fault: str, share: float) -> dict[str, Any]:
        return {"feature": [-1], "threshold": [None], "left": [-1], "right": [-1], "shares": [[[fault, share]]]}

    tree, forest = (leaf(classes.index(v), share) for v, share in zip(votes[1:], (0.9, 0.8), strict=True))
    detector = Deepfd()
    detector.model = {
        **{"classes": classes, "names": ["a"], "low": [0.0], "high": [1.0], "rows": [[0.0]] * 5},
        **{"target": [classes.index(votes[0])] * 5, "tree": tree, "forest": [forest]},
    }
    monkeypatch.setattr(Deepfd, "extract", lambda self, trace: {"a": 0.0})
    assert [s.fault for s in detector.diagnose(Trace("anywhere")).suspects] == expected


def test_a_class_is_cut_down(monkeypatch):
    many = [*examples(12), *[example for example in examples(80) if example[1].control]]
    model = Deepfd().fit(many)
    counts = np.bincount(model["target"], minlength=4)
    assert dict(zip(model["classes"], counts.tolist(), strict=True)) == {
        **dict.fromkeys(["lr_too_high", "missing_step", "softmax_dim"], 12),
        "none": 50,
    }
