"""Marks of an axis: round, within its ends, about as many as asked for."""

import math
import re

import pytest
from bugbench.report.axis import powers, round_numbers, texts
from bugbench.report.drawing import curves


@pytest.mark.parametrize(
    ("low", "high", "marks"),
    [
        (0, 1, [0, 0.5, 1]),  # a third is asked for: nearer to 0.5 than to 0.2, by ratio
        (0, 89, [0, 20, 40, 60, 80]),  # 29.7 is nearer to 20
        (-0.31, 0.42, [-0.2, 0, 0.2, 0.4]),
        (0.061, 0.067, [0.062, 0.064, 0.066]),
        (1e6, 7e6, [2e6, 4e6, 6e6]),
        (3, 3, [3]),
    ],
)
def test_round_numbers(low, high, marks):
    assert round_numbers(low, high) == marks


def test_whole_numbers():
    assert round_numbers(0, 1, whole=True) == [0, 1]
    assert round_numbers(0, 2, number=9, whole=True) == [0, 1, 2]


@pytest.mark.parametrize(
    ("low", "high", "marks"),
    [
        (0.002, 0.11, [0.003, 0.01, 0.03, 0.1]),  # with 2 and 5 there would be six
        (0.9, 60, [1, 3, 10, 30]),
        (1e-7, 3e-3, [1e-7, 1e-5, 1e-3]),  # five powers
        (0.04, 2.1, [0.1, 0.3, 1]),
    ],
)
def test_powers(low, high, marks):
    assert powers(low, high) == marks


def test_numbers_are_short_but_told_apart():
    assert texts([0.0, 0.5, 1.0]) == ["0", "0.5", "1"]
    assert texts([0.9992, 0.9994, 0.9996]) == ["0.9992", "0.9994", "0.9996"]
    assert texts([1e-7, 1e-5, 20000.0]) == ["1e-7", "1e-5", "2e4"]


@pytest.mark.parametrize("loss", [[1e-300, 1e308], [-1e308, 1e308], [1.0, math.inf], [2.0, 2.0]])
def test_curves_that_explode_can_be_drawn(loss):
    picture = curves("loss", "step", [(0, 1.0), (5, 0.5)], list(enumerate(loss)), {"bug": loss[-1], "twin": None})
    assert not re.search("nan|inf", picture)
    assert picture.count('class="grid"') >= 2
