"""Is the difference real? Paired tests between many detectors, Holm's correction, ranks. Arrays in, numbers out."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from bugbench.statistics import EXACT_UP_TO, TIE, Floats, sign_flip_test
from scipy import stats

FLIPS = 999_999  # of the signs: the smallest p is 1e-6, which Holm's correction leaves below 0.05 up to 300 detectors
CHUNK = 10_000  # random flips at a time: a thousand clusters then take 80 MB


def paired_p_values(parts: Floats, pairs: Sequence[tuple[int, int]], seed: int = 0) -> Floats:
    """Return a two-sided p value for each pair of columns: could they have been exchanged, cluster by cluster?

    The test is :func:`bugbench.statistics.sign_flip_test` of the differences between the two columns: exact where no
    more than 20 of them differ from zero, else with 999,999 random flips, here the same ones for all pairs. The flipped
    sum of a difference is the difference of the flipped sums, so one product of matrices serves every pair.

    Args:
        parts: what each cluster adds to the score of each detector, shape (clusters, detectors), finite.
        pairs: columns to compare.
        seed: of the random flips.
    """
    if not len(parts):
        return np.full(len(pairs), np.nan)
    drawn = [(a, b) for a, b in pairs if np.count_nonzero(parts[:, a] != parts[:, b]) > EXACT_UP_TO]
    found = _sampled(parts, drawn, seed) if drawn else {}
    for a, b in set(pairs).difference(drawn):
        found[a, b] = sign_flip_test(parts[:, a] - parts[:, b], "two-sided")
    return np.array([found[pair] for pair in pairs])


def _sampled(parts: Floats, pairs: Sequence[tuple[int, int]], seed: int) -> dict[tuple[int, int], float]:
    """Return the p value of each pair from random signs of the rows."""
    random = np.random.default_rng(seed)
    least = {
        (a, b): abs(parts[:, a].sum() - parts[:, b].sum()) - TIE * np.abs(parts[:, [a, b]]).sum() for a, b in pairs
    }
    extreme = dict.fromkeys(pairs, 0)
    for start in range(0, FLIPS, CHUNK):
        signs = random.integers(0, 2, size=(len(parts), min(CHUNK, FLIPS - start)), dtype=np.int8)
        flipped = parts.T @ (2.0 * signs - 1.0)
        for a, b in pairs:
            extreme[a, b] += int(np.count_nonzero(np.abs(flipped[a] - flipped[b]) >= least[a, b]))
    return {pair: (count + 1) / (FLIPS + 1) for pair, count in extreme.items()}


def holm(p_values: Floats) -> Floats:
    """Return p values adjusted for their number, so that the chance of any false finding stays below the level.

    Holm (1979): with the m values in ascending order, the i-th is multiplied by m - i + 1 and made no smaller than
    the one before it, nor larger than 1. NaN stays NaN and is not counted.
    """
    p_values = np.asarray(p_values, dtype=np.float64)
    adjusted = np.full_like(p_values, np.nan)
    known = np.flatnonzero(~np.isnan(p_values))
    order = known[np.argsort(p_values[known], kind="stable")]
    scaled = p_values[order] * (len(order) - np.arange(len(order)))
    adjusted[order] = np.minimum(np.maximum.accumulate(scaled), 1.0) if len(order) else scaled
    return adjusted


@dataclass(frozen=True)
class Ranks:
    """What Friedman's test says.

    Attributes:
        mean: mean rank of each column over the blocks; 1 is best, ties share the mean of their ranks.
        blocks: number of blocks.
        statistic: chi squared, corrected for ties; 0 where all columns are equal in all blocks.
        p: of no column being better than another.
    """

    mean: Floats
    blocks: int
    statistic: float
    p: float


def friedman(values: Floats) -> Ranks:
    """Return Friedman's test (1937) of the columns of ``values``, shape (blocks, columns); more is better.

    Equal to ``scipy.stats.friedmanchisquare``, which asks for three columns and knows no answer where all are equal.

    Raises:
        ValueError: no block, fewer than two columns, or a value that is not finite.
    """
    values = np.asarray(values, dtype=np.float64)
    if values.ndim != 2 or values.shape[0] < 1 or values.shape[1] < 2 or not np.isfinite(values).all():
        raise ValueError(f"Friedman's test takes finite blocks x columns, at least 1 x 2, not {values.shape}")
    blocks, columns = values.shape
    ranks = stats.rankdata(-values, axis=1)
    ties = sum(float((counts**3 - counts).sum()) for counts in (np.unique(row, return_counts=True)[1] for row in ranks))
    untied = 1 - ties / (blocks * columns * (columns**2 - 1))
    mean = ranks.mean(axis=0)
    if untied <= TIE:
        return Ranks(mean, blocks, 0.0, 1.0)
    spread = 12 * blocks / (columns * (columns + 1)) * float(((mean - (columns + 1) / 2) ** 2).sum())
    statistic = spread / untied
    return Ranks(mean, blocks, statistic, float(stats.chi2.sf(statistic, columns - 1)))


def critical_difference(columns: int, blocks: int, level: float = 0.05) -> float:
    """Return by how much two mean ranks must differ to be told apart (Nemenyi 1963; Demsar 2006, section 3.2.2).

    q * sqrt(k (k + 1) / (6 N)), where q is the critical value of the studentized range with infinitely many degrees
    of freedom, divided by the square root of 2. k (k + 1) / 6 is the variance of the difference of two ranks that do
    not tie. Ties, of which there are many where most detectors are silent, make it err on the safe side: to shrink it
    by what they leave of the variance, as Friedman's statistic does, would only be right if all columns tied alike.
    """
    q = float(stats.studentized_range.ppf(1 - level, columns, np.inf)) / np.sqrt(2)
    return float(q * np.sqrt(columns * (columns + 1) / (6 * blocks)))


def not_told_apart(ranks: Sequence[float], difference: float) -> list[tuple[int, int]]:
    """Return the groups that a critical-difference diagram joins by a bar, as first and last place.

    Args:
        ranks: mean ranks in ascending order.
        difference: see :func:`critical_difference`; ranks no further apart than this are joined.
    """
    groups: list[tuple[int, int]] = []
    for first, rank in enumerate(ranks):
        last = max(place for place, other in enumerate(ranks) if other - rank <= difference)
        if last > first and (not groups or last > groups[-1][1]):
            groups.append((first, last))
    return groups
