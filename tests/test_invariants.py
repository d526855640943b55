"""Relations that hold in healthy runs, and the invariants that are learned from them."""

import json
from collections.abc import Callable
from typing import Any

import pytest
import torch
from breakable_program import Program
from bugbench.detector import HEALTHY, Label, NotApplicable, Trace
from bugbench.detectors.invariants import FAULTS, Invariants
from bugbench.recorder import Recorder
from bugbench.relations import relations, traits
from bugbench.suspects import check_suspects
from torch import nn


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
    from bugbench.catalogue import catalogue_of

    return {fault: entry["family"] for fault, entry in catalogue_of().faults.items()}


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
    assert {"no zero_grad between backward and step", "no backward in evaluation", "inputs are finite"} <= added
    assert not [name for name in added if name.startswith(("a batch with", "each "))]
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
