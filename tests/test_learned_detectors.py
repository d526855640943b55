"""The detectors that learn, and what they are made of: statistics of a run, plain trees, relations."""

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from bugbench.detector import HEALTHY, Diagnosis, Label, NotApplicable, Trace
from bugbench.detectors.deepfd import Deepfd
from bugbench.detectors.default_tree import DefaultTree
from bugbench.detectors.invariants import FAULTS, Invariants
from bugbench.plain_trees import forest_shares, plain_forest, plain_tree, tree_shares
from bugbench.recorder import Recorder
from bugbench.relations import relations, traits
from bugbench.run_statistics import run_statistics, table
from bugbench.suspects import check_suspects
from scipy import stats
from sklearn.datasets import load_iris
from sklearn.ensemble import RandomForestClassifier
from sklearn.tree import DecisionTreeClassifier
from torch import nn


@dataclass
class Program:
    """A small training program, every habit of which can be broken."""

    order: str = "zero_grad forward backward step"
    train_mode: bool = True
    eval_mode: bool = False
    frozen: bool = False
    reported: Callable[[float], float] = lambda mean: mean
    batches: Callable[[int], Iterator[torch.Tensor]] = lambda epoch: torch.randperm(40).split(10)
    rate: Callable[[int, int], float] = lambda epoch, step: 0.1
    val: torch.Tensor = field(default_factory=lambda: torch.arange(40, 60))
    inputs: Callable[[torch.Tensor], torch.Tensor] = lambda x: x
    epochs: int = 3

    def run(self, folder: Path, task: str = "classification") -> Trace:
        torch.manual_seed(0)
        x = torch.randn(60, 4)
        y = (x[:, 0] > 0).long()
        x = self.inputs(x)
        model = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Dropout(0.1), nn.Linear(8, 2))
        if self.frozen:
            model[0].requires_grad_(False)
        optimizer = torch.optim.SGD([p for p in model.parameters() if p.requires_grad], lr=0.1)
        recorder = Recorder(folder, task=task, classes=2)
        recorder.watch(model, optimizer)
        for epoch in range(self.epochs):
            model.train(self.train_mode)
            losses = []
            for step, chosen in enumerate(self.batches(epoch)):
                optimizer.param_groups[0]["lr"] = self.rate(epoch, step)
                calls: dict[str, Callable[[], Any]] = {"zero_grad": optimizer.zero_grad, "step": optimizer.step}
                for call in self.order.split():
                    if call == "forward":
                        outputs = model(x[chosen])
                        loss = nn.functional.cross_entropy(outputs, y[chosen])
                    elif call == "backward":
                        loss.backward()
                    else:
                        calls[call]()
                recorder.log_batch("train", inputs=x[chosen], targets=y[chosen], outputs=outputs, loss=loss)
                losses.append(loss.item())
            recorder.log_metrics("train", loss=self.reported(float(np.mean(losses))), accuracy=0.5)
            model.train(self.eval_mode)
            with torch.no_grad():
                outputs = model(x[self.val])
                loss = nn.functional.cross_entropy(outputs, y[self.val])
            recorder.log_batch("val", inputs=x[self.val], targets=y[self.val], outputs=outputs, loss=loss)
            recorder.log_metrics("val", loss=loss.item(), accuracy=0.5 + 0.1 * epoch)
        recorder.finish()
        return Trace(folder)


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


# -- relations and invariants ---------------------------------------------------------------------------------------


def broken(trace: Trace) -> set[str]:
    return {name for name, relation in relations(trace).items() if not relation.holds}


@pytest.fixture(scope="module")
def healthy(tmp_path_factory) -> Trace:
    return Program().run(tmp_path_factory.mktemp("healthy") / "t")


def test_relations_of_a_healthy_run(healthy):
    found = relations(healthy)
    assert set(FAULTS) <= set(found), "every relation of the table can be told"
    reversed_orders = {name for name in found if " comes before " in name and not found[name].holds}
    assert broken(healthy) == reversed_orders
    assert "backward comes before zero_grad" in reversed_orders
    assert "zero_grad comes before backward" not in reversed_orders
    assert traits(healthy) == ["layers Dropout", "layers Linear", "layers ReLU", "one model", "task classification"]


def constant(*batches: list[int]) -> Callable[[int], list[torch.Tensor]]:
    return lambda epoch: [torch.tensor(batch) for batch in batches]


TENS = [list(range(start, start + 10)) for start in range(0, 40, 10)]
BREAKS = {
    "missing_zero_grad": (Program(order="forward backward step"), "a batch with step has zero_grad"),
    "zero_grad_after_backward": (
        Program(order="forward backward zero_grad step"),
        "no zero_grad between backward and step",
    ),
    "step_before_backward": (Program(order="zero_grad forward step backward"), "backward comes before step"),
    "missing_step": (Program(order="zero_grad forward backward"), "a batch with backward has step"),
    "eval_mode_in_training": (Program(train_mode=False), "training is in mode train"),
    "train_mode_in_eval": (Program(eval_mode=True), "evaluation is in mode eval"),
    "frozen_layers": (Program(frozen=True), "every parameter gets a gradient"),
    "train_in_validation": (Program(val=torch.arange(35, 60)), "no sample is both trained and evaluated on"),
    "unshuffled_loader": (Program(batches=constant(*TENS)), "no epoch repeats another's order"),
    "duplicate_rows": (
        Program(batches=lambda epoch: torch.randint(40, (40,)).split(10)),
        "no sample comes twice in an epoch",
    ),
    "scheduler_per_batch": (
        Program(rate=lambda epoch, step: 0.1 * 0.9**step),
        "the learning rate stays within an epoch",
    ),
    "evaluation": (Program(reported=lambda mean: mean * 1.1), "the reported train loss is the mean of the batches"),
    "data": (
        Program(batches=lambda epoch: torch.randperm(40)[: 40 - 10 * epoch].split(10)),
        "epochs have equally many batches",
    ),
}


@pytest.mark.parametrize("fault", BREAKS)
def test_a_broken_habit_is_seen_and_named(fault, healthy, tmp_path):
    program, name = BREAKS[fault]
    trace = program.run(tmp_path / "t")
    assert name in broken(trace)
    detector = Invariants()
    runs = [(Invariants().extract(healthy), Label("none", "none", w, control=True)) for w in ("digits", "ecg")]
    detector.model = json.loads(json.dumps(detector.fit(runs)))
    assert detector.diagnose(healthy) == HEALTHY
    found = list(detector.diagnose(trace).suspects)
    check_suspects([vars(suspect) for suspect in found], families())
    named = [s.fault for s in found]
    assert fault in named, found
    (own,) = (s for s in found if s.fault == fault)
    assert own.evidence.startswith("in 2 healthy runs of other programs: ")


def families() -> dict[str, str]:
    from bugbench.catalogue import load

    return {fault: entry["family"] for fault, entry in load().faults.items()}


def test_table_of_relations_has_known_faults_only():
    faults = [fault for text in FAULTS.values() for fault in text.split()]
    check_suspects([{"fault": fault} for fault in faults], families())


def run(workload: str, holds: dict[str, bool], *own: str, control: bool = True) -> tuple[dict[str, Any], Label]:
    fault = "none" if control else "lr_too_high"
    return {"traits": list(own), "holds": holds}, Label(fault, "none" if control else "optimizer", workload, control)


def test_kinds_that_traincheck_does_not_have_can_be_left_out(healthy):
    theirs, everything = relations(healthy, own=False), relations(healthy)
    assert theirs.items() < everything.items()
    assert {"a batch with step has zero_grad", "every parameter changes", "losses are finite"} <= set(theirs)
    added = {name for name in everything if name not in theirs}
    assert {"a sample keeps its label", "the learning rate never rises", "the loss falls"} <= added
    assert not [name for name in added if name.startswith(("a batch with", "each ", "no backward"))]
    assert set(Invariants(own_kinds=False).extract(healthy)["holds"]) == set(theirs)


def test_a_relation_that_the_table_does_not_have_points_to_what_it_is_about(tmp_path):
    """A second held-out split: its evaluations and reports are no calls of the training loop."""
    recorder = Recorder(tmp_path / "t", task="classification", classes=2)
    model = nn.Linear(1, 2)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    recorder.watch(model, optimizer)
    for epoch in range(3):
        x = torch.randn(4, 1)
        loss = model(x).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        recorder.log_batch("train", inputs=x, targets=torch.zeros(4).long(), outputs=model(x), loss=loss)
        x = torch.randn(4 + epoch, 1)
        recorder.log_batch("test", inputs=x, targets=torch.zeros(4 + epoch).long(), outputs=model(x), loss=1.0)
        recorder.log_metrics("test", loss=2.0)
    recorder.finish()
    for name in ("evaluations on test have equally many samples", "the reported test loss is the mean of the batches"):
        assert name not in FAULTS
        detector = Invariants()
        detector.model = {name: {"if": None, "runs": 4}}
        assert [s.fault for s in detector.diagnose(Trace(tmp_path / "t")).suspects] == ["evaluation"]


def test_an_invariant_holds_in_all_healthy_runs_of_two_workloads():
    model = Invariants().fit(
        [
            run("a", {"always": True, "once": True, "not in b": True, "alone": True}, "task x"),
            run("a", {"always": True}, "task x"),
            run("b", {"always": True, "once": False, "not in b": False}, "task x"),
            run("c", {"always": False}, "task x", control=False),  # a bug says nothing of what is healthy
        ]
    )
    assert model == {"always": {"if": None, "runs": 3}}


def test_a_condition_is_learned_where_a_relation_does_not_hold_everywhere():
    model = Invariants().fit(
        [
            run("a", {"r": True}, "task x", "layers Y"),
            run("b", {"r": True}, "task x"),
            run("c", {"r": False}, "task z", "layers Y"),
            run("d", {"r": True}, "task w"),  # a trait of one workload alone is no condition
        ]
    )
    assert model == {"r": {"if": ["task x"], "runs": 4}}


def test_a_conditional_invariant_is_asked_for_where_the_condition_holds(tmp_path):
    trace = Program(train_mode=False).run(tmp_path / "t")
    detector = Invariants()
    for condition, expected in ((["task classification"], True), (["task other"], False), (None, True)):
        detector.model = {"training is in mode train": {"if": condition, "runs": 4}}
        assert bool(detector.diagnose(trace).suspects) == expected


def test_one_workload_is_too_few():
    with pytest.raises(NotApplicable, match="healthy runs of 2 other workloads are needed"):
        Invariants().fit([run("a", {"r": True}), run("a", {"r": True}), run("b", {"r": True}, control=False)])


def test_several_models_are_held_to_the_order_each_by_itself(tmp_path):
    recorder = Recorder(tmp_path / "t", task="generation")
    models = {name: nn.Linear(1, 1) for name in ("one", "two")}
    optimizers = {name: torch.optim.SGD(model.parameters(), lr=0.1) for name, model in models.items()}
    for name, model in models.items():
        recorder.watch(model, optimizers[name], name)
    x = torch.ones(2, 1)
    for _ in range(2):
        for name, model in models.items():
            if name == "one":
                optimizers[name].zero_grad()
            outputs = model(x)
            outputs.sum().backward()
            optimizers[name].step()
        recorder.log_batch("train", inputs=x, targets=x, outputs=outputs, loss=1.0)
    recorder.finish()
    found = relations(Trace(tmp_path / "t"))
    assert not found["a batch with step has zero_grad"].holds
    assert found["backward comes before step"].holds
    assert "several models" in traits(Trace(tmp_path / "t"))


def test_an_unfinished_epoch_breaks_nothing(tmp_path):
    """As in the prefixes on which the time to alarm is measured."""
    from bugbench.trace import export

    Program().run(tmp_path / "t")
    for until in (1, 3, 4, 6, 11):
        export(tmp_path / "t", tmp_path / f"cut {until}", {"tensors", "data"}, until)
        cut = relations(Trace(tmp_path / f"cut {until}"))
        assert not [name for name, r in cut.items() if name in FAULTS and not r.holds], until


def test_a_run_without_calls_says_nothing(tmp_path):
    Recorder(tmp_path / "t").finish(error="SyntaxError")
    with pytest.raises(NotApplicable, match="no step was recorded"):
        Invariants().extract(Trace(tmp_path / "t"))
