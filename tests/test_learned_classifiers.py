"""The classifiers that learn, and the plain trees they are made of."""

import json
import math
from typing import Any

import numpy as np
import pytest
from bugbench.detector import Diagnosis, Label, NotApplicable, Trace
from bugbench.detectors.deepfd import Deepfd
from bugbench.detectors.default_tree import DefaultTree
from bugbench.plain_trees import forest_shares, plain_forest, plain_tree, tree_shares
from bugbench.recorder import Recorder
from sklearn.datasets import load_iris
from sklearn.ensemble import RandomForestClassifier
from sklearn.tree import DecisionTreeClassifier

# -- trees ----------------------------------------------------------------------------------------------------------


def test_plain_trees_say_what_scikit_learn_says():
    x, y = load_iris(return_X_y=True)
    tree = DecisionTreeClassifier(max_depth=5, random_state=0).fit(x[::2], y[::2])
    forest = RandomForestClassifier(7, random_state=0).fit(x[::2], y[::2])
    lists = json.loads(json.dumps([plain_tree(tree), plain_forest(forest)]))
    for row in x:
        assert tree_shares(lists[0], row, 3) == pytest.approx(tree.predict_proba([row])[0], abs=1e-4)
        assert forest_shares(lists[1], row, 3) == pytest.approx(forest.predict_proba([row])[0], abs=1e-4)


def test_plain_trees_of_labels_say_yes_as_scikit_learn_does():
    x, y = load_iris(return_X_y=True)
    answers = np.stack([y == 1, y == 2], axis=1).astype(int)
    tree = DecisionTreeClassifier(max_depth=2, random_state=0).fit(x[::2], answers[::2])
    forest = RandomForestClassifier(7, max_depth=2, random_state=0).fit(x[::2], answers[::2])
    lists = json.loads(json.dumps([plain_tree(tree, labels=True), plain_forest(forest, labels=True)]))
    yes = [np.stack([share[:, 1] for share in fitted.predict_proba(x)], axis=1) for fitted in (tree, forest)]
    for row, of_tree, of_forest in zip(x, *yes, strict=True):
        assert tree_shares(lists[0], row, 2) == pytest.approx(of_tree, abs=1e-4)
        assert forest_shares(lists[1], row, 2) == pytest.approx(of_forest, abs=1e-4)


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


@pytest.mark.parametrize("kind", [Deepfd, DefaultTree])
def test_runs_that_explode_are_learned_from(kind, monkeypatch):
    runs = examples()
    for number, (run, label) in enumerate(runs):
        run["norm"] = (1e300, math.inf)[number % 2] if label.fault == "lr_too_high" else 1.0
    detector = kind()
    detector.model = json.loads(json.dumps(kind().fit(runs), allow_nan=False))
    monkeypatch.setattr(kind, "extract", lambda self, trace: {"loss_mean": 5.0, "acc_mean": None, "norm": 1e300})
    assert detector.diagnose(Trace("anywhere")).suspects[0].fault == "lr_too_high"


NO: dict[str, float] = {}
LR, STEP = {"lr_too_high": 0.6}, {"missing_step": 0.6}


@pytest.mark.parametrize(
    ("neighbours", "tree", "forest", "expected"),
    [
        (NO, NO, NO, []),
        (NO, NO, LR, ["lr_too_high"]),
        (STEP, LR, LR, ["lr_too_high", "missing_step"]),
        (NO, LR, {"missing_step": 0.9}, ["missing_step", "lr_too_high"]),
        ({"lr_too_high": 0.4}, {"lr_too_high": 0.5}, {"missing_step": 0.5}, []),
    ],
)
def test_a_fault_is_diagnosed_where_one_of_three_has_more_than_half_for_it(
    neighbours, tree, forest, expected, monkeypatch
):
    """Tree and forest are leaves. Of as many votes, the larger mean share is first."""
    labels = ["lr_too_high", "missing_step"]

    def leaf(shares: dict[str, float]) -> dict[str, Any]:
        found = [[labels.index(name), share] for name, share in shares.items()]
        return {"feature": [-1], "threshold": [None], "left": [-1], "right": [-1], "shares": [found]}

    answers = [[int(i < 5 * neighbours.get(name, 0)) for name in labels] for i in range(5)]
    detector = Deepfd()
    detector.model = {
        **{"labels": labels, "names": ["a"], "low": [0.0], "high": [1.0], "rows": [[0.0]] * 5},
        **{"answers": answers, "tree": leaf(tree), "forest": [leaf(forest)]},
    }
    monkeypatch.setattr(Deepfd, "extract", lambda self, trace: {"a": 0.0})
    assert [s.fault for s in detector.diagnose(Trace("anywhere")).suspects] == expected


def test_a_single_fault_is_learned_too(monkeypatch):
    detector = Deepfd()
    detector.model = detector.fit([e for e in examples() if e[1].fault in ("none", "softmax_dim")])
    monkeypatch.setattr(Deepfd, "extract", lambda self, trace: {"loss_mean": 9.0, "acc_mean": None})
    assert [s.fault for s in detector.diagnose(Trace("anywhere")).suspects] == ["softmax_dim"]


def counts(model: dict[str, Any]) -> dict[str, int]:
    answers = np.array(model["answers"])
    faulty = dict(zip(model["labels"], answers.sum(axis=0).tolist(), strict=True))
    return {**faulty, "none": int((answers.sum(axis=1) == 0).sum())}


def test_a_class_is_cut_down_to_the_smallest_fault_but_not_below_fifty():
    healthy = [example for example in examples(80) if example[1].control]
    faults = [example for example in examples(12) if not example[1].control]
    assert counts(Deepfd().fit([*faults, *healthy])) == {
        **dict.fromkeys(["lr_too_high", "missing_step", "softmax_dim"], 12),
        "none": 50,
    }
    assert set(counts(Deepfd(most=6).fit(examples(12))).values()) == {12}


def questions() -> list[tuple[dict[str, float | None], Label]]:
    """Sixteen healthy runs and sixteen of four faults in two families; a, b and c each answer one question."""
    named = {"lr_too_high": "optimizer", "lr_too_low": "optimizer", "missing_step": "loop", "missing_zero_grad": "loop"}
    found: list[tuple[dict[str, float | None], Label]] = []
    for i in range(16):
        noise = {"noise": float(i % 4)}
        found.append(({"a": 0.0, "b": 0.0, "c": 0.0, **noise}, Label("none", "none", "digits", control=True)))
        fault, family = list(named.items())[i % 4]
        run = {"a": 1.0, "b": float(family == "loop"), "c": float(fault in ("lr_too_low", "missing_zero_grad"))}
        found.append(({**run, "noise": float(i // 4)}, Label(fault, family, "digits", control=False)))
    return found


def test_each_question_has_statistics_of_its_own():
    model = DefaultTree(kept=1).fit(questions())
    assert (model["faulty"]["names"], model["family"]["names"]) == (["a"], ["b"])
    assert {family: level["names"] for family, level in model["fault"].items()} == {"loop": ["c"], "optimizer": ["c"]}
    assert (model["faulty"]["mean"], model["family"]["mean"]) == ([0.5], [0.5])
    whole = DefaultTree().fit(questions())
    at = whole["family"]["names"].index("a")
    assert whole["family"]["low"][at] == 1.0, "healthy runs are no part of this question"


def test_the_forest_that_chooses_statistics_has_no_limits(monkeypatch):
    grown = []

    class Watched(RandomForestClassifier):
        def fit(self, rows, target):
            grown.append((self.n_estimators, self.max_depth, self.min_samples_leaf, rows.shape[1]))
            return super().fit(rows, target)

    monkeypatch.setattr("sklearn.ensemble.RandomForestClassifier", Watched)
    DefaultTree(kept=2).fit(questions())
    assert grown[:2] == [(100, None, 1, 4), (50, 10, 4, 2)]
    assert len(grown) == 2 * 4, "faulty, family, and a level for each of two families"
