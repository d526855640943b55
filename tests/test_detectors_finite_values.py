"""Values that are not finite, blank or enormous, in the inputs, the model, the loss and the updates."""

import pytest
import torch
import torch.nn.functional as F
from bugbench.detectors.finite_checks import FiniteChecks
from bugbench.detectors.input_checks import InputChecks
from bugbench.recorder import Recorder
from data_runs import Run, changed, digits, faults, regression, sequential, suspects, table
from torch import nn

NAN = float("nan")

# -- finite_checks -----------------------------------------------------------------------------------------------------


def rows_of(x: torch.Tensor, every: int, value: float) -> torch.Tensor:
    return changed(x, lambda z: z.view(len(z), -1)[::every, 2].fill_(value))


@pytest.mark.parametrize(("value", "fault"), [(float("nan"), "nan_inputs"), (float("inf"), "inf_inputs")])
def test_inputs_that_are_not_finite(tmp_path, value, fault):
    (x, y), val = table()
    Run(tmp_path / "t", (rows_of(x, 40, value), y), val, classes=3)
    assert faults(FiniteChecks, tmp_path / "t")[0] == fault
    assert faults(InputChecks, tmp_path / "t")[0] == fault


def test_one_hole_in_a_batch_that_is_not_kept(tmp_path):
    (x, y), val = table()
    x = changed(x, lambda z: z[7 * 32 + 3, 1].fill_(float("nan")))  # step 7: looked at closely, not kept
    Run(tmp_path / "t", (x, y), val, classes=3, batches=sequential)
    found = suspects(FiniteChecks, tmp_path / "t")
    assert found[0].fault == "nan_inputs"
    assert "step 7" in found[0].evidence


def test_constant_pixels_divided_by_their_deviation(tmp_path):
    (x, y), (u, v) = digits()
    mean, std = x.mean(dim=0), x.std(dim=0)
    Run(tmp_path / "t", ((x - mean) / std, y), ((u - mean) / std, v), classes=10, epochs=1)
    assert faults(FiniteChecks, tmp_path / "t")[0] == "divide_by_zero_std"
    assert faults(InputChecks, tmp_path / "t")[0] == "divide_by_zero_std"


class Coping(nn.Module):
    """Sets missing values to 0 and masks small inputs with -inf, as healthy programs do."""

    def __init__(self):
        super().__init__()
        self.mask = nn.Threshold(0.0, float("-inf"))
        self.head = nn.Linear(12, 3)

    def forward(self, x):
        x = torch.nan_to_num(x)
        return self.head(torch.cat([x, self.mask(x + 4).softmax(dim=1)], dim=1))


def test_a_model_that_copes_is_left_in_peace(tmp_path):
    (x, y), (u, v) = table()
    holes = (rows_of(x, 40, float("nan")), y), (rows_of(u, 30, float("nan")), v)
    Run(tmp_path / "t", *holes, classes=3, model=Coping())
    assert faults(FiniteChecks, tmp_path / "t") == []
    assert faults(InputChecks, tmp_path / "t") == []


def by_hand(outputs, targets):
    p = outputs.exp() / outputs.exp().sum(dim=1, keepdim=True)
    return -p[torch.arange(len(targets)), targets].log().mean()


def log_of_softmax(outputs, targets):
    return -outputs.softmax(dim=1)[torch.arange(len(targets)), targets].log().mean()


def root_of_distance(outputs, targets):
    return F.cross_entropy(outputs, targets) + (0 * outputs).square().sum().sqrt()


def linear(factor: float, bias: float) -> nn.Module:
    layer = nn.Linear(6, 3)
    with torch.no_grad():
        layer.weight.mul_(factor)
        layer.bias.fill_(bias)
    return nn.Sequential(layer)


def test_arithmetic_of_the_loss(tmp_path):
    train, val = table()
    Run(tmp_path / "e", train, val, classes=3, model=linear(1.0, 90.0), loss=by_hand, epochs=1)
    Run(tmp_path / "l", train, val, classes=3, model=linear(200.0, 0.0), loss=log_of_softmax, epochs=1)
    Run(tmp_path / "s", train, val, classes=3, loss=root_of_distance, epochs=1)
    assert faults(FiniteChecks, tmp_path / "e")[0] == "exp_overflow"
    assert faults(FiniteChecks, tmp_path / "l")[0] == "log_of_zero"
    found = suspects(FiniteChecks, tmp_path / "s")[0]
    assert (found.fault, found.layer) == ("sqrt_grad_at_zero", "3")  # the last layer is nearest to the loss


class HalfPrecision(nn.Module):
    def __init__(self):
        super().__init__()
        self.query, self.key, self.head = nn.Linear(6, 8), nn.Linear(6, 8), nn.Linear(8, 3)

    def forward(self, x):
        scores = (1e4 * self.query(x)).half() * (1e4 * self.key(x)).half()
        return self.head(scores.float().softmax(dim=1))


def test_forward_pass_names_the_layer(tmp_path):
    Run(tmp_path / "t", *table(), classes=3, model=HalfPrecision(), epochs=1)
    found = suspects(FiniteChecks, tmp_path / "t")
    assert found[0].layer == "head"
    assert "fp16_overflow" in [suspect.fault for suspect in found]


def test_divergence(tmp_path):
    Run(tmp_path / "t", *regression(), task="regression", lr=50.0)
    assert faults(FiniteChecks, tmp_path / "t")[0] == "lr_too_high"
    Run(tmp_path / "n", *table(), classes=3, lr=50.0, loss=lambda o, t: -F.cross_entropy(o, t), epochs=6)
    assert faults(FiniteChecks, tmp_path / "n")[0] == "flipped_sign"


def test_an_update_alone_that_is_not_finite_is_a_symptom(tmp_path):
    Run(tmp_path / "t", *table(), classes=3, lr=float("nan"))
    found = suspects(FiniteChecks, tmp_path / "t")
    assert [s.fault for s in found] == ["numerics"]
    assert found[0].evidence.startswith("the update is not finite, gradients and loss are, at step 0")


def test_evaluation_alone_is_not_finite(tmp_path):
    train, (u, v) = table()
    Run(tmp_path / "t", train, (rows_of(u, 30, float("nan")), v), classes=3)
    assert faults(FiniteChecks, tmp_path / "t") == ["nan_inputs"]


@pytest.mark.parametrize(
    ("losses", "outputs", "expected"),
    [
        ([NAN, NAN, NAN], 0.0, []),  # not computed
        ([NAN, NAN, NAN], NAN, ["numerics"]),
        ([0.5, NAN, 0.5], 0.0, ["numerics"]),
        ([0.5, float("inf"), 0.5], 0.0, ["log_of_zero"]),
        ([float("inf")] * 3, 0.0, ["log_of_zero"]),
        ([0.5, 0.5, 0.5], 0.0, []),
    ],
)
def test_losses_of_evaluation(tmp_path, losses, outputs, expected):
    run = Recorder(tmp_path / "t", task="classification", classes=2)
    batch = {"inputs": torch.ones(4, 3), "targets": torch.tensor([0, 1, 0, 1])}
    for loss in losses:
        run.log_batch("train", **batch, outputs=torch.zeros(4, 2), loss=0.7)
        run.log_batch("val", **batch, outputs=torch.full((4, 2), outputs), loss=loss)
        run.log_batch("val2", **batch, outputs=torch.zeros(4, 2), loss=0.7)
        run.log_metrics("val", accuracy=0.5)
    run.finish()
    assert faults(FiniteChecks, tmp_path / "t") == expected


# -- input_checks ------------------------------------------------------------------------------------------------------


def test_blank_samples(tmp_path):
    (x, y), val = table()
    Run(tmp_path / "z", (changed(x, lambda z: z[::4].fill_(0.0)), y), val, classes=3)
    Run(tmp_path / "a", (torch.zeros_like(x), y), val, classes=3)
    Run(tmp_path / "c", (torch.where(y[:, None] == 1, 0.0, x), y), val, classes=3)
    assert faults(InputChecks, tmp_path / "z") == ["zero_inputs"]
    assert faults(InputChecks, tmp_path / "a") == ["zero_inputs"]
    assert faults(InputChecks, tmp_path / "c") == ["corrupt_one_class"]


@pytest.mark.parametrize("blank", [False, True])
def test_one_sample_for_all(tmp_path, blank):
    """A network may be fitted to one image, from one draw of noise (Deep Image Prior)."""
    noise = torch.zeros(1, 6) if blank else torch.randn(1, 6, generator=torch.Generator().manual_seed(0))
    image = torch.linspace(0, 1, 12)[None]
    Run(tmp_path / "t", (noise, image), (noise, image), task="regression", batches=lambda n: [torch.arange(1)] * 30)
    assert faults(InputChecks, tmp_path / "t") == (["zero_inputs"] if blank else [])


def test_enormous_values(tmp_path):
    (x, y), val = table()
    Run(tmp_path / "t", (changed(x, lambda z: z[::30, 3].mul_(1e4)), y), val, classes=3, lr=1e-9)
    assert faults(InputChecks, tmp_path / "t") == ["inf_inputs"]
    Run(tmp_path / "h", (x.mul(2).exp(), y), val, classes=3, lr=1e-4)  # long-tailed, and so by nature
    assert faults(InputChecks, tmp_path / "h") == []


def test_predictions_with_holes(tmp_path):
    outputs = {"outputs": torch.tensor([[0.0, float("nan")]]), "targets": torch.tensor([0])}
    Run(tmp_path / "t", *table(), classes=3, predictions=outputs)
    assert faults(InputChecks, tmp_path / "t") == ["nan_inputs"]
