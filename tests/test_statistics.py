"""The numbers behind the tables, against hand calculations and scipy."""

import numpy as np
import pytest
from bugbench.statistics import cluster_bootstrap, intraclass_correlation, mean_of_means, sign_flip_test
from scipy import stats


@pytest.mark.parametrize("alternative", ["greater", "less", "two-sided"])
@pytest.mark.parametrize("size", [2, 5, 9, 12])
def test_sign_flips_agree_with_scipy(alternative, size):
    random = np.random.default_rng(size)
    for shift in (-1.0, 0.0, 0.5):
        differences = random.normal(shift, 1.0, size)
        expected = stats.permutation_test(
            (differences,), np.mean, permutation_type="samples", n_resamples=np.inf, alternative=alternative
        )
        assert sign_flip_test(differences, alternative) == pytest.approx(expected.pvalue, abs=1e-12)


def test_zeros_agree_with_scipy():
    differences = np.array([0.0, 2.0, 0.0, -1.0, 3.0])
    expected = stats.permutation_test((differences,), np.mean, permutation_type="samples", n_resamples=np.inf)
    assert sign_flip_test(differences, "two-sided") == pytest.approx(expected.pvalue)


def test_sign_flips_by_hand():
    # All five point the same way: one pattern of 2^5 is as extreme
    assert sign_flip_test([1, 2, 3, 4, 5]) == 1 / 32
    assert sign_flip_test([-1, -2, -3, -4, -5], "less") == 1 / 32
    assert sign_flip_test([-1, -2, -3, -4, -5], "greater") == 1.0
    assert sign_flip_test([1, 2, 3, 4, 5], "two-sided") == 2 / 32
    # Sum 2 + 3 - 1 = 4. Of the sums 6, 4, 2, 0, 0, -2, -4, -6 two are as large
    assert sign_flip_test([-1, 2, 3]) == 2 / 8
    # Four seeds can never reach 0.05
    assert sign_flip_test([1, 1, 1, 1]) == 1 / 16


def test_only_zeros_are_no_evidence():
    for alternative in ("greater", "less", "two-sided"):
        assert sign_flip_test([0.0, 0.0, 0.0], alternative) == 1.0


def test_equal_sums_tie_in_spite_of_rounding():
    # 0.1 + 0.2 - 0.3 is 5.6e-17 in floats. Of the sums ±0.6, ±0.4, ±0.2, 0, 0 five are >= 0: 0.6, 0.4, 0.2, 0, 0
    assert sign_flip_test([0.1, 0.2, -0.3]) == 5 / 8
    assert sign_flip_test([-0.3, 0.1, 0.2]) == 5 / 8
    # The same at another scale
    assert sign_flip_test([1e-9, 2e-9, -3e-9]) == 5 / 8
    assert sign_flip_test([0.1, 0.2, -0.3], "two-sided") == 1.0


def test_many_differences_are_flipped_at_random():
    assert sign_flip_test(np.ones(20)) == 2.0**-20
    assert sign_flip_test(np.ones(21)) == pytest.approx(1e-5)  # none of 99,999: (0 + 1) / (99,999 + 1)
    # 26 of 40 equal differences are positive: as many or more heads of 40 coins; three standard errors are 0.002
    differences = [1.0] * 26 + [-1.0] * 14
    p = sign_flip_test(differences)
    assert p == sign_flip_test(differences)
    assert p == pytest.approx(stats.binom.sf(25, 40, 0.5), abs=0.002)
    assert sign_flip_test(differences, "two-sided") == pytest.approx(2 * stats.binom.sf(25, 40, 0.5), abs=0.003)
    # Zeros do not make a small test a large one
    assert sign_flip_test([*np.ones(5), *np.zeros(100)]) == 1 / 32


@pytest.mark.parametrize("differences", [[], [1.0, float("nan")], [float("inf")], [[1.0, 2.0]]])
def test_nothing_to_test_is_an_error(differences):
    with pytest.raises(ValueError, match="differences must be"):
        sign_flip_test(differences)


def test_unknown_alternative_is_an_error():
    with pytest.raises(ValueError, match="unknown alternative 'more'"):
        sign_flip_test([1.0], "more")


def test_mean_of_means_by_hand():
    values = np.array([[1.0, np.nan], [0.0, 4.0], [0.5, np.nan]])
    groups = np.array([0, 0, 1])
    weights = np.array([[1.0, 1.0, 1.0], [2.0, 1.0, 0.0], [2.0, 0.0, 1.0]])
    means = mean_of_means(values, groups, weights)
    # Column 0: ((1 + 0) / 2 + 0.5) / 2 = 0.5; group 1 not drawn: (2 * 1 + 0) / 3; (1 + 0.5) / 2
    # Column 1 knows the second cluster only: 4; 4; and nothing where it was not drawn
    expected = [[0.5, 4.0], [2 / 3, 4.0], [0.75, np.nan]]
    np.testing.assert_allclose(means, expected)


def plain_mean(values):
    return lambda weights: (weights @ values) / weights.sum(axis=1)


def test_bootstrap_agrees_with_scipy():
    values = np.random.default_rng(0).normal(size=60)
    low, high = cluster_bootstrap(plain_mean(values), [60], resamples=20_000)
    expected = stats.bootstrap((values,), np.mean, method="percentile", n_resamples=20_000, rng=1)
    assert low == pytest.approx(expected.confidence_interval.low, abs=0.02)
    assert high == pytest.approx(expected.confidence_interval.high, abs=0.02)


def test_bootstrap_is_deterministic_and_draws_each_cluster_count_times():
    drawn = []

    def record(*weights):
        drawn.append(weights)
        return weights[0][:, :1]

    first = cluster_bootstrap(record, [4, 7], resamples=50, seed=1)
    second = cluster_bootstrap(record, [4, 7], resamples=50, seed=1)
    cluster_bootstrap(record, [4, 7], resamples=50, seed=2)
    assert first == second
    for bugs, controls in drawn:
        assert bugs.shape == (50, 4) and controls.shape == (50, 7)
        assert (bugs.sum(axis=1) == 4).all() and (controls.sum(axis=1) == 7).all()
    assert not np.array_equal(drawn[0][0], drawn[2][0])


def test_bootstrap_of_a_constant_is_a_point():
    low, high = cluster_bootstrap(plain_mean(np.full(5, 0.25)), [5])
    assert low == pytest.approx(0.25) and high == pytest.approx(0.25)


def test_bootstrap_leaves_out_unknown_draws():
    def statistic(weights):
        first = np.where(weights[:, 0] > 0, 1.0, np.nan)  # unknown in the draws that miss the first cluster
        return np.stack([first, np.full(len(weights), np.nan)], axis=1)

    low, high = cluster_bootstrap(statistic, [3])
    np.testing.assert_array_equal(low, [1.0, np.nan])
    np.testing.assert_array_equal(high, [1.0, np.nan])


def test_bootstrap_without_clusters_knows_nothing():
    low, high = cluster_bootstrap(lambda weights: mean_of_means(np.zeros((0, 2)), np.zeros(0, int), weights), [0])
    assert np.isnan(low).all() and np.isnan(high).all()


RATINGS = [[9, 2, 5, 8], [6, 1, 3, 2], [8, 4, 6, 8], [7, 1, 2, 6], [10, 5, 6, 9], [6, 2, 4, 7]]


def test_intraclass_correlation_of_the_published_example():
    # Shrout and Fleiss (1979), tables 2 and 4: six targets, four ratings each, ICC(1,1) = 0.17
    values, targets = np.ravel(RATINGS), np.repeat(range(6), 4)
    assert intraclass_correlation(values, targets, np.zeros(24)) == pytest.approx(0.1657, abs=1e-4)
    # a second stratum with another mean changes nothing: each has its own
    twice, strata = np.concatenate([values, values + 100]), np.repeat([0, 1], 24)
    both = intraclass_correlation(twice, np.concatenate([targets, targets + 6]), strata)
    assert both == pytest.approx(0.1657, abs=1e-4)


def test_intraclass_correlation_agrees_with_the_analysis_of_variance_of_scipy():
    values = [[1.0, 2.0, 4.0], [3.0, 5.0, 5.0], [0.0, 1.0, 1.0], [6.0, 6.0, 9.0]]
    ratio = stats.f_oneway(*values).statistic  # between / within
    expected = (ratio - 1) / (ratio + 3 - 1)
    assert intraclass_correlation(np.ravel(values), np.repeat(range(4), 3), np.zeros(12)) == pytest.approx(expected)


def test_intraclass_correlation_by_hand():
    assert intraclass_correlation([1, 1, 0, 0, 1, 1], list("aabbcc"), list("ssssss")) == 1
    # groups (0, 1) and (0, 1): nothing between, 1/2 within: (0 - 1/2) / (0 + 1/2)
    assert intraclass_correlation([0, 1, 0, 1], list("aabb"), list("ssss")) == -1
    # sizes 2 and 1, values (0, 2) and 4: mean 2, between 2 + 4 = 6, within 2, size 3 - (4 + 1) / 3 = 4/3
    assert intraclass_correlation([0, 2, 4], list("aab"), list("sss")) == pytest.approx((6 - 2) / (6 + 2 / 3))


@pytest.mark.parametrize(
    "values, groups, strata", [([1, 0], "ab", "ss"), ([1, 0], "aa", "ss"), ([1, 1, 0, 0], "aabb", "sstt")]
)
def test_no_intraclass_correlation(values, groups, strata):
    assert np.isnan(intraclass_correlation(values, list(groups), list(strata)))
