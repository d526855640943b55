"""Kaplan and Meier's estimate against a textbook table and scipy."""

import math

import numpy as np
import pytest
from bugbench.survival import kaplan_meier
from scipy import stats


def test_by_hand():
    # 5 runs: alarms after 1, 3 and 3 steps; one ends at 3, one at 6, without. After 1: 4/5. At 3 four are watched,
    # the run that ends there among them: 4/5 x 2/4
    found = kaplan_meier([1, 3, 3, 3, 6], [True, True, True, False, False])
    np.testing.assert_allclose(found.times, [1, 3])
    np.testing.assert_allclose(found.shares, [0.8, 0.4])
    assert found.end == 6
    assert found.median == 3
    # 1 step at 1, two at 0.8, three at 0.4
    assert found.mean_until(6) == pytest.approx(1 + 1.6 + 1.2)
    assert found.mean_until(2) == pytest.approx(1.8)
    assert found.mean_until(3) == pytest.approx(2.6)
    assert found.mean_until(0) == 0


@pytest.mark.parametrize("seed", range(5))
def test_agrees_with_scipy(seed):
    random = np.random.default_rng(seed)
    times = random.integers(0, 12, size=30).astype(float)
    alarmed = random.random(30) < 0.6
    found = kaplan_meier(times, alarmed)
    expected = stats.ecdf(stats.CensoredData.right_censored(times, ~alarmed)).sf
    np.testing.assert_allclose(found.shares, expected.evaluate(found.times), atol=1e-12)
    for time in range(13):  # between the alarms, too
        known = found.shares[found.times <= time]
        assert (known[-1] if len(known) else 1.0) == pytest.approx(float(expected.evaluate(time)))


def test_restricted_mean_without_censoring_is_the_mean():
    found = kaplan_meier([0, 2, 7], [True] * 3)
    assert found.mean_until(7) == pytest.approx(3.0)
    assert found.mean_until(5) == pytest.approx((0 + 2 + 5) / 3)


def test_nobody_alarms():
    found = kaplan_meier([4, 9], [False, False])
    assert (len(found.times), found.mean_until(9), found.end) == (0, 9.0, 9.0)
    assert math.isnan(found.median)


def test_alarm_at_once():
    found = kaplan_meier([0, 0], [True, True])
    assert (found.median, found.mean_until(5)) == (0.0, 0.0)


def test_no_runs():
    found = kaplan_meier([], [])
    assert (found.end, found.mean_until(0)) == (0.0, 0.0)


@pytest.mark.parametrize("time", [-1.0, math.nan, math.inf])
def test_times_must_make_sense(time):
    with pytest.raises(ValueError, match="times must be finite"):
        kaplan_meier([1.0, time], [True, True])
