"""Features that give the target away, and strong ones that are no leak."""

from collections.abc import Callable

import pytest
import torch
from bugbench.detector import NotApplicable
from bugbench.detectors.target_leakage import TargetLeakage
from data_runs import Run, Split, digits, faults, parts, regression, suspects, table


def with_column(data: Split, column: Callable[[torch.Tensor], torch.Tensor]) -> Split:
    (x, y), (u, v) = data
    return (torch.cat([x, column(y)[:, None]], dim=1), y), (torch.cat([u, column(v)[:, None]], dim=1), v)


def treatment(y: torch.Tensor) -> torch.Tensor:
    """Weeks of a therapy that all but 5 % of the ill get: 0 or 6 to 30."""
    weeks = torch.randint(6, 31, y.shape) * (torch.rand(len(y)) >= 0.05)
    return (weeks * (y == 1)).float() / 10 - 1


@pytest.mark.parametrize("column", [lambda y: 2.0 * y - 1, treatment, lambda y: y + 0.01 * torch.randn(len(y))])
def test_leaked_class(tmp_path, column):
    torch.manual_seed(0)
    Run(tmp_path / "t", *with_column(table(), column), classes=3)
    found = suspects(TargetLeakage, tmp_path / "t")
    assert [suspect.fault for suspect in found] == ["label_leakage"]
    assert "column 6 " in found[0].evidence


def test_leaked_target(tmp_path):
    torch.manual_seed(0)
    visits = lambda y: (4 * y + torch.randn(len(y))).round()  # noqa: E731
    Run(tmp_path / "t", *with_column(regression(), visits), task="regression")
    assert faults(TargetLeakage, tmp_path / "t") == ["label_leakage"]
    x = torch.randn(600, 5)
    Run(tmp_path / "s", *parts(x, 3 * x[:, 0] + 0.5 * torch.randn(600)), task="regression")
    assert faults(TargetLeakage, tmp_path / "s") == []  # one cause of an effect


def test_threshold_on_one_feature_is_no_leak(tmp_path):
    x = torch.randn(600, 4, generator=torch.Generator().manual_seed(0))
    Run(tmp_path / "t", *parts(x, (x[:, 0] > 0).long()), classes=2)
    assert faults(TargetLeakage, tmp_path / "t") == []


def test_images_are_no_table(tmp_path):
    Run(tmp_path / "t", *digits(), classes=10, epochs=1)
    with pytest.raises(NotApplicable):
        suspects(TargetLeakage, tmp_path / "t")
