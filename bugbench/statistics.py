"""The statistics behind every number in the tables: arrays in, numbers out, and the same numbers every time."""

from collections.abc import Callable, Sequence
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

Floats = NDArray[np.float64]
Alternative = Literal["greater", "less", "two-sided"]

EXACT_UP_TO = 20  # 2^20 sums take milliseconds and 8 MiB; each further difference doubles both
FLIPS = 99_999  # random flips above that: the smallest p is 1e-5
TIE = 1e-12  # sums this close, relative to the sum of the absolute differences, are the same number


def sign_flip_test(differences: ArrayLike, alternative: Alternative = "greater", seed: int = 0) -> float:
    """Return the p value of the mean of paired differences under random flips of their signs.

    The permutation test for paired samples (Fisher 1935): if neither side were better, each difference could as well
    have had the other sign. p is the share of all 2^n sign patterns whose mean is at least as extreme as the one
    seen. Up to 20 non-zero differences all patterns are counted; above, 99,999 seeded random ones stand for them and
    p = (b + 1) / (m + 1) (Phipson and Smyth 2010). Equal to ``scipy.stats.permutation_test`` with
    ``permutation_type="samples"``, but for ties, which a tolerance relative to the data counts as ties.

    Args:
        differences: one per pair, shape (n,), in any unit.
        alternative: "greater": the mean is above 0; "less": below 0; "two-sided": away from 0.
        seed: of the random flips.

    Raises:
        ValueError: nothing to test, a value that is not finite, or an unknown alternative.
    """
    values = np.asarray(differences, dtype=np.float64)
    if values.ndim != 1 or values.size == 0:
        raise ValueError(f"differences must be a non-empty list of numbers, not of shape {values.shape}")
    if not np.isfinite(values).all():
        raise ValueError(f"differences must be finite: {values.tolist()}")
    if alternative == "less":
        values = -values
    elif alternative not in ("greater", "two-sided"):
        raise ValueError(f"unknown alternative {alternative!r}: greater, less or two-sided")
    # The flip of a zero changes no sum: it doubles the patterns and the extreme ones alike
    values = values[values != 0]
    observed = values.sum()
    tolerance = TIE * np.abs(values).sum()
    exact = len(values) <= EXACT_UP_TO
    sums = _all_flips(values) if exact else _random_flips(values, seed)
    if alternative == "two-sided":
        sums, observed = np.abs(sums), abs(observed)
    extreme = int(np.count_nonzero(sums >= observed - tolerance))
    return extreme / len(sums) if exact else (extreme + 1) / (len(sums) + 1)


def _all_flips(values: Floats) -> Floats:
    """Return the sums under all sign patterns, shape (2^n,)."""
    sums = np.zeros(1)
    for value in values:
        sums = np.concatenate([sums + value, sums - value])
    return sums


def _random_flips(values: Floats, seed: int) -> Floats:
    """Return the sums under random sign patterns, shape (FLIPS,)."""
    random = np.random.default_rng(seed)
    sums = np.zeros(FLIPS)
    for value in values:
        sums += value * random.choice([-1.0, 1.0], size=FLIPS)
    return sums


def mean_of_means(
    values: Floats, groups: NDArray[np.int64], weights: Floats, group_weights: Floats | None = None
) -> Floats:
    """Return the weighted mean over groups of the weighted means of the cells within each.

    A group whose cells all have weight 0, or are NaN, is left out; NaN where that leaves no group.

    Args:
        values: one row per cell, shape (cells, columns); NaN where a column knows nothing of a cell.
        groups: the group of each cell, shape (cells,).
        weights: shape (resamples, cells); all ones in one row for the plain mean of means.
        group_weights: shape (resamples, groups), by the group's number; None: all ones.

    Returns:
        Shape (resamples, columns).
    """
    known = ~np.isnan(values)
    filled = np.where(known, values, 0.0)
    total = np.zeros((weights.shape[0], values.shape[1]))
    seen = np.zeros_like(total)
    for group in np.unique(groups):
        members = groups == group
        weight = weights[:, members] @ known[members].astype(np.float64)
        weighted = weights[:, members] @ filled[members]
        share = np.ones((len(total), 1)) if group_weights is None else group_weights[:, [group]]
        total += share * np.divide(weighted, weight, out=np.zeros_like(total), where=weight > 0)
        seen += share * (weight > 0)
    return np.divide(total, seen, out=np.full_like(total, np.nan), where=seen > 0)


def cluster_bootstrap(
    statistic: Callable[..., Floats],
    clusters: Sequence[int],
    resamples: int = 2000,
    confidence: float = 0.95,
    seed: int = 0,
) -> tuple[Floats, Floats]:
    """Return the percentile interval of a statistic when whole clusters are drawn again with replacement.

    Cases in a cluster share a cause, so drawing single cases would make the interval too narrow (Davison and Hinkley
    1997, 3.8). Several independent sets of clusters may be drawn at once, such as bugs and controls for their
    difference, or the rows and the columns of a crossed design, whose cell then weighs the product of the two (Owen
    2007, the pigeonhole bootstrap; it errs on the wide side). Everything is evaluated on the same draws, so columns of
    the statistic may be compared. It knows nothing of clusters unlike all that are there: where every cluster says 0,
    the interval is that point.

    Args:
        statistic: called with one array of weights per set, shape (resamples, clusters in the set), which say how
            often each cluster was drawn; returns shape (resamples, …).
        clusters: the number of clusters in each set; with a single cluster the interval is a point.
        resamples: number of draws.
        confidence: share of the draws that lie within the interval.
        seed: of the draws.

    Returns:
        Lower and upper end, each of the statistic's shape without its first axis. Draws for which the statistic is
        NaN do not count; NaN where all are.
    """
    random = np.random.default_rng(seed)
    weights = []
    for count in clusters:
        # Number the cells (draw, cluster) through, so that a single bincount counts them all
        drawn = random.integers(count, size=(resamples, count)) if count else np.zeros((resamples, 0), dtype=np.int64)
        cells = drawn + count * np.arange(resamples)[:, None]
        weights.append(np.bincount(cells.ravel(), minlength=resamples * count).reshape(resamples, count))
    estimates = statistic(*(w.astype(np.float64) for w in weights))
    unknown = np.isnan(estimates).all(axis=0)
    tail = (1 - confidence) / 2
    low, high = np.nanquantile(np.where(unknown, 0.0, estimates), [tail, 1 - tail], axis=0)
    return np.where(unknown, np.nan, low), np.where(unknown, np.nan, high)


def intraclass_correlation(values: ArrayLike, groups: ArrayLike, strata: ArrayLike) -> float:
    """Return how much values of one group are alike: 1 if they are copies, about 0 if no more than any others.

    ICC(1) from a one-way analysis of variance (Shrout and Fleiss 1979), for groups of unequal size (Donner and Koval
    1980). Each stratum has a mean of its own, and all share the variances between and within groups.

    Args:
        values: shape (n,), in any unit.
        groups: what group each is of, shape (n,); a group lies in one stratum.
        strata: what stratum each is of, shape (n,).

    Returns:
        At most 1, and below 0 where groups are less alike than by chance; NaN where no group has two values, no
        stratum two groups, or no two values differ within a stratum.
    """
    values = np.asarray(values, dtype=np.float64)
    group, stratum = (np.unique(np.asarray(of), return_inverse=True)[1] for of in (groups, strata))
    sizes, totals = np.bincount(group), np.bincount(stratum)
    means = np.bincount(group, values) / sizes
    within = float(((values - means[group]) ** 2).sum())
    between = float(((means[group] - (np.bincount(stratum, values) / totals)[stratum]) ** 2).sum())
    inside, among = len(values) - len(sizes), len(sizes) - len(totals)
    if not inside or not among or within + between < TIE:
        return float("nan")
    size = (len(values) - float((sizes[group] / totals[stratum]).sum())) / among
    within, between = within / inside, between / among
    return (between - within) / (between + (size - 1) * within)
