"""Comparisons between detectors, against hand calculations, Demsar's table and scipy."""

import numpy as np
import pytest
from bugbench.comparison import critical_difference, friedman, holm, not_told_apart, paired_p_values
from bugbench.statistics import sign_flip_test
from scipy import stats


def test_few_differences_are_tested_exactly():
    parts = np.array([[3.0, 2.0, 1.0], [2.0, 0.0, 1.0], [5.0, 2.0, 1.0], [4.0, 0.0, 1.0], [9.0, 4.0, 1.0]])
    pairs = [(0, 1), (1, 0), (0, 0), (1, 2)]
    first, back, same, other = paired_p_values(parts, pairs)
    # The first column is ahead by 1, 2, 3, 4 and 5: two of 32 patterns are as extreme
    assert first == back == 2 / 32
    assert same == 1.0
    assert other == sign_flip_test(parts[:, 1] - parts[:, 2], "two-sided")


def test_many_differences_agree_with_the_test_of_one_pair():
    random = np.random.default_rng(1)
    parts = random.normal(size=(40, 3)) + np.array([0.0, 0.35, 0.45])
    pairs = [(0, 1), (0, 2), (1, 2)]
    for (a, b), p in zip(pairs, paired_p_values(parts, pairs), strict=True):
        # of 999,999 and of 99,999 flips: three standard errors of the two together are 0.005 at most
        assert 0.1 < p < 0.99
        assert p == pytest.approx(sign_flip_test(parts[:, a] - parts[:, b], "two-sided"), abs=0.005)
    np.testing.assert_array_equal(paired_p_values(parts, pairs), paired_p_values(parts, pairs))


def test_equal_columns_tie_in_spite_of_rounding():
    # 30 clusters in which the columns have the same values in another order: the sums differ by rounding alone
    values = np.arange(1, 31) / 10
    parts = np.column_stack([values, values[::-1]])
    assert paired_p_values(parts, [(0, 1)])[0] == 1.0


def test_no_cluster_is_no_evidence():
    assert np.isnan(paired_p_values(np.zeros((0, 2)), [(0, 1)])[0])


def test_holm_by_hand():
    # In order 0.01, 0.02, 0.03, 0.5, times 4, 3, 2, 1: 0.04, 0.06, 0.06, 0.5; the third is no smaller than the second
    np.testing.assert_allclose(holm(np.array([0.03, 0.01, 0.5, 0.02])), [0.06, 0.04, 0.5, 0.06])
    # 3 x 0.4 is more than 1, and so are those after it
    np.testing.assert_allclose(holm(np.array([0.4, 0.6, 0.5])), [1.0, 1.0, 1.0])
    # Holm's running maximum: 2 x 0.04 = 0.08 lifts 0.05
    np.testing.assert_allclose(holm(np.array([0.04, 0.05])), [0.08, 0.08])
    # What was not tested is not counted
    np.testing.assert_allclose(holm(np.array([np.nan, 0.02, 0.01])), [np.nan, 0.02, 0.02])
    assert len(holm(np.array([]))) == 0


@pytest.mark.parametrize("decimals", [8, 1, 0])  # with rounding there are ties
def test_friedman_agrees_with_scipy(decimals):
    random = np.random.default_rng(decimals)
    values = np.round(random.normal(size=(12, 5)) + np.arange(5) / 4, decimals)
    expected = stats.friedmanchisquare(*values.T)
    found = friedman(values)
    assert found.statistic == pytest.approx(expected.statistic)
    assert found.p == pytest.approx(expected.pvalue)
    assert found.blocks == 12


def test_ranks_by_hand():
    # Block 1: 1, 2, 3. Block 2: the first two share ranks 1 and 2. Mean ranks 1.25, 1.75, 3
    found = friedman(np.array([[0.9, 0.8, 0.1], [0.5, 0.5, 0.0]]))
    np.testing.assert_allclose(found.mean, [1.25, 1.75, 3.0])
    # 12 x 2 / (3 x 4) x (0.75^2 + 0.25^2 + 1^2) = 3.25; ties 2^3 - 2 = 6 of 2 x 3 x 8 = 48: 3.25 / (1 - 6 / 48)
    assert found.statistic == pytest.approx(3.25 / 0.875)


def test_equal_columns_are_of_equal_rank():
    found = friedman(np.ones((4, 3)))
    np.testing.assert_array_equal(found.mean, [2.0, 2.0, 2.0])
    assert (found.statistic, found.p) == (0.0, 1.0)


@pytest.mark.parametrize("values", [np.zeros((0, 3)), np.zeros((3, 1)), np.array([[1.0, np.nan]])])
def test_nothing_to_rank_is_an_error(values):
    with pytest.raises(ValueError, match="Friedman's test takes"):
        friedman(values)


@pytest.mark.parametrize(("columns", "q"), [(2, 1.960), (3, 2.343), (5, 2.728), (10, 3.164)])
def test_critical_values_are_those_of_demsar(columns, q):
    # Demsar 2006, table 5 (a), alpha = 0.05, cut off after three digits; with N = k (k + 1) / 6 the root is 1
    assert critical_difference(columns, 1) / np.sqrt(columns * (columns + 1) / 6) == pytest.approx(q, abs=1e-3)


def test_critical_difference_of_the_example_in_demsar():
    # Four classifiers on 14 data sets: 2.569 x sqrt(4 x 5 / (6 x 14)) = 1.25
    assert critical_difference(4, 14) == pytest.approx(1.25, abs=0.005)


def test_two_equally_good_among_many_silent_ones_are_seldom_told_apart():
    random = np.random.default_rng(0)
    apart = 0
    for _ in range(200):
        values = np.zeros((132, 22))
        values[:, :2] = random.random((132, 2)) < 0.1
        ranks = friedman(values)
        apart += abs(ranks.mean[0] - ranks.mean[1]) > critical_difference(22, ranks.blocks)
    assert apart <= 0.05 * 200


def test_groups_that_are_not_told_apart():
    assert not_told_apart([1.0, 1.5, 2.5, 4.0], 1.0) == [(0, 1), (1, 2)]
    assert not_told_apart([1.0, 1.5, 2.0, 4.0], 1.0) == [(0, 2)]  # none within another
    assert not_told_apart([1.0, 3.0, 5.0], 1.0) == []
    assert not_told_apart([], 1.0) == []
