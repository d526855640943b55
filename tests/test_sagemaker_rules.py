"""SageMaker Debugger's rules on numbers worked out by hand, on both sides of their limits."""

from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pandas as pd
import pytest
from bugbench.debugger_rules import loss_pairs
from bugbench.detectors import sagemaker_rules
from bugbench.trace import Batch


@dataclass
class Run:
    """As much of a trace as the rules read."""

    layers: pd.DataFrame
    steps: pd.DataFrame
    meta: dict[str, Any] = field(default_factory=lambda: {"task": "classification", "layers": {}})
    labels: list[int] = field(default_factory=list)
    kept: list[Batch] = field(default_factory=list)

    @property
    def samples(self) -> pd.DataFrame:
        return pd.DataFrame({"split": "train", "label": np.array(self.labels, float)})

    def train_steps(self) -> pd.DataFrame:
        return self.steps[self.steps["split"] == "train"].reset_index(drop=True)

    def batches(self, split: str = "train") -> list[Batch]:
        return [b for b in self.kept if b.split == split]


def layer(step: int, name: str, kind: str, mean: float = 0.0, std: float = 0.1, **more: float) -> dict[str, Any]:
    row = {"step": step, "layer": name, "kind": kind, "mean": mean, "std": std, "min": -1.0, "max": 1.0}
    return {**row, "zero_share": 0.0, "nonfinite": 0, **more}


def losses(train: list[float], held_out: list[float], apart: int = 10) -> pd.DataFrame:
    rows = [("train", apart * i, i, loss) for i, loss in enumerate(train)]
    rows += [("val", apart * (i + 1), i, loss) for i, loss in enumerate(held_out)]
    table = pd.DataFrame(rows, columns=["split", "step", "epoch", "loss"]).sort_values(["epoch", "split"])
    return table.reset_index(drop=True)


def fired(*rows: dict[str, Any], steps: pd.DataFrame | None = None, **more: Any) -> set[str]:
    table = pd.DataFrame(list(rows) or [layer(0, "a.bias", "weight")])
    run = Run(table, losses([1.0], [1.0]) if steps is None else steps, **more)
    said = sagemaker_rules.SagemakerRules().diagnose(run)  # type: ignore[arg-type]
    return {s.evidence.partition(":")[0] for s in said.suspects}


def test_sound_numbers_fire_no_rule() -> None:
    assert fired(layer(0, "a.weight", "gradient"), layer(0, "a.weight", "weight")) == set()


@pytest.mark.parametrize(
    ("rule", "row", "fires"),
    [
        ("VanishingGradient", layer(0, "a.weight", "gradient", 3e-8, 4e-8), True),  # root mean square 5e-8
        ("VanishingGradient", layer(0, "a.weight", "gradient", 9e-8, 12e-8), False),  # 15e-8
        ("VanishingGradient", layer(0, "a.bias", "gradient", 0.0, 1e-9), True),  # biases belong to the collection
        ("ExplodingTensor", layer(0, "a", "activation", nonfinite=1), True),
        ("AllZero", layer(0, "a.weight", "gradient", 1.0, zero_share=1.0), True),
        ("AllZero", layer(0, "a.weight", "gradient", 1.0, zero_share=0.99), False),
        ("TensorVariance", layer(0, "a.weight", "weight", std=1e9), False),  # has no limits by default
    ],
)
def test_rule_on_one_tensor(rule: str, row: dict[str, Any], fires: bool) -> None:
    assert (rule in fired(row)) == fires


@pytest.mark.parametrize(("update", "weight", "size"), [(20.0, 1.0, "large"), (5e-10, 0.1, "small"), (9.0, 1.0, None)])
def test_update_ratio(update: float, weight: float, size: str | None) -> None:
    rows = [layer(3, "a.weight", kind, 0.0, std) for kind, std in (("update", update), ("weight", weight))]
    assert fired(*rows) == ({f"WeightUpdateRatio.{size}"} if size else set())


def test_weight_that_starts_at_zero_is_no_large_update() -> None:
    rows = [layer(0, "a.weight", kind, 0.0, 0.01) for kind in ("update", "weight")]
    assert fired(*rows) == set()


@pytest.mark.parametrize(("values", "fires"), [((0.5, 0.5, 0.5), True), ((0.5, 0.5, 0.501), False)])
def test_tensor_unchanged_over_three_steps(values: tuple[float, ...], fires: bool) -> None:
    rows = [layer(step, "a.weight", "weight", value) for step, value in enumerate(values)]
    assert fired(*rows) == ({"UnchangedTensor"} if fires else set())


@pytest.mark.parametrize(("share", "fires"), [(0.996, True), (0.994, False)])
def test_dead_relu_needs_more_zeros_than_half_the_units_could_leave(share: float, fires: bool) -> None:
    # at most half of the units are dead: then the others are zero in 99 % at most, and all together in 99.5 %
    rows = [layer(20, "a", "activation"), layer(20, "r", "activation", zero_share=share)]
    assert fired(*rows, meta={"task": None, "layers": {"r": "ReLU"}}) == ({"DeadRelu"} if fires else set())


@pytest.mark.parametrize(
    ("kind", "mean", "std", "fires"),
    [
        ("Tanh", 0.0, 20.0, True),  # 2 (1 - Phi(0.475)) = 0.635
        ("Tanh", 0.0, 10.0, False),  # 2 (1 - Phi(0.95)) = 0.342
        ("Sigmoid", 17.5, 0.1, True),
        ("Sigmoid", -22.0, 0.5, False),  # 1 - Phi(2) = 0.02
    ],
)
def test_saturated_activation(kind: str, mean: float, std: float, fires: bool) -> None:
    rows = [layer(20, "a", "activation", mean, std), layer(20, "t", "activation")]
    assert fired(*rows, meta={"task": None, "layers": {"t": kind}}) == ({"SaturatedActivation"} if fires else set())


@pytest.mark.parametrize(("step", "std", "fires"), [(0, 0.3, True), (0, 0.4, False), (10, 0.3, False)])
def test_poor_initialization_is_a_ratio_of_variances_above_ten(step: int, std: float, fires: bool) -> None:
    rows = [layer(step, name, "activation", 0.0, s) for name, s in (("a", 1.0), ("r", 1.0), ("b", std), ("s", 1.0))]
    said = fired(*rows, meta={"task": None, "layers": {"r": "ReLU", "s": "ReLU"}})
    assert said == ({"PoorWeightInitialization"} if fires else set())  # 1 / 0.09 = 11.1, 1 / 0.16 = 6.25


@pytest.mark.parametrize(
    ("train", "held_out", "rule"),
    [
        ([1.0, 1.0], [1.0, 0.9995], "LossNotDecreasing"),  # by 0.05 %
        ([1.0, 1.0], [1.0, 0.998], None),
        ([1.0], [1.11], "Overfit"),
        ([1.0], [1.09], None),
        ([1 - 0.0019 * i for i in range(6)], [0.9 - 0.0019 * i for i in range(6)], "Overtraining"),  # 0.0095 in all
        ([1 - 0.015 * i for i in range(6)], [0.9 - 0.015 * i for i in range(6)], None),
    ],
)
def test_rule_on_curves(train: list[float], held_out: list[float], rule: str | None) -> None:
    assert fired(steps=losses(train, held_out)) == ({rule} if rule else set())


@pytest.mark.parametrize(
    ("train", "fires"), [([1.0, 0.9995], True), ([1.0, 0.998], False), ([1.0], False), ([1.0, 0.9, 0.95], True)]
)
def test_training_losses_stand_in_where_nothing_is_evaluated(train: list[float], fires: bool) -> None:
    assert fired(steps=losses(train, [])) == ({"LossNotDecreasing"} if fires else set())
    evaluated = losses(train, [0.8 - 0.1 * i for i in range(len(train))])
    assert fired(steps=evaluated) == set()  # these fall


@pytest.mark.parametrize(
    ("curve", "compared"),
    [
        ({i: 1.0 for i in range(9, 34, 3)}, [(9, 21), (21, 33)]),  # the guide's example: saved every three steps
        ({0: 0.3, 4: 0.33, 8: 0.31, 12: 0.3, 16: 0.28}, [(0, 12)]),  # test_default of the rule's deleted tests
        ({0: 0.3, 4: 0.33, 8: 0.31, 12: 0.3, 16: 0.28, 20: 0.2, 24: 0.42}, [(0, 12), (12, 24)]),
        ({0: 1.0, 15: 0.5, 18: 0.9, 30: 0.6}, [(0, 15), (18, 30)]),  # not with the last one looked at
        ({0: 1.0, 9: 1.0}, []),
    ],
)
def test_losses_are_compared_across_ten_steps(curve: dict[int, float], compared: list[tuple[int, int]]) -> None:
    pairs = list(loss_pairs(np.array(list(curve.items())), 10))
    assert [(then, step) for (then, _), (step, _) in pairs] == compared
    assert all((before, now) == (curve[then], curve[step]) for (then, before), (step, now) in pairs)


@pytest.mark.parametrize(
    ("train", "held_out", "fires"),
    [
        ([1.0] * 5, [0.9 - 0.1 * i for i in range(5)], False),  # the first loss and four that are no better
        ([1.0] * 6, [0.9 - 0.1 * i for i in range(6)], True),  # five: that of training alone will do
        ([1.0 - 0.05 * i for i in range(11)], [0.4] * 11, True),  # ten in evaluation
        ([1.0 - 0.05 * i for i in range(10)], [0.4] * 10, False),
    ],
)
def test_overtraining_takes_either_loss(train: list[float], held_out: list[float], fires: bool) -> None:
    assert ("Overtraining" in fired(steps=losses(train, held_out))) == fires


@pytest.mark.parametrize(("rare", "fires"), [(49, True), (50, False)])
def test_class_imbalance_is_more_than_ten_to_one(rare: int, fires: bool) -> None:
    assert fired(labels=[0] * 500 + [1] * rare) == ({"ClassImbalance"} if fires else set())


def kept(inputs: np.ndarray, targets: np.ndarray, outputs: np.ndarray, step: int = 0) -> Batch:
    return Batch("train", step, 0, "train", inputs, targets, outputs, 1.0)


@pytest.mark.parametrize(("wrong", "fires"), [(71, True), (70, False)])
def test_class_mistaken_in_more_than_seven_of_ten(wrong: int, fires: bool) -> None:
    targets = np.repeat(np.arange(5), 100)
    predicted = targets.copy()
    predicted[:wrong] = 3
    early = kept(np.zeros((500, 2)), targets, np.eye(5)[(targets + 1) % 5])  # all wrong, and outdated by the later one
    batches = [early, kept(np.zeros((500, 2)), targets, np.eye(5)[predicted], step=9)]
    said = fired(labels=[*targets], kept=batches)
    assert said == ({"ClassImbalance.misprediction"} if fires else set())


@pytest.mark.parametrize(
    ("mean", "images", "fires"), [(0.3, 500, True), (-0.3, 500, True), (0.1, 500, False), (0.3, 499, False)]
)
def test_input_images(mean: float, images: int, fires: bool) -> None:
    steps = losses([1.0], [1.0]).assign(input_mean=mean, batch_size=images)
    batch = kept(np.zeros((4, 1, 8, 8), np.float32), np.zeros(4), np.zeros((4, 1)))
    assert fired(steps=steps, kept=[batch]) == ({"CheckInputImages"} if fires else set())


@pytest.mark.parametrize(("zeros", "fires"), [(6, True), (5, False)])
def test_padding_tokens(zeros: int, fires: bool) -> None:
    tokens = np.array([[0] * zeros + [7] * (10 - zeros)])
    assert fired(kept=[kept(tokens, np.zeros(1), np.zeros((1, 2)))]) == ({"NLPSequenceRatio"} if fires else set())
