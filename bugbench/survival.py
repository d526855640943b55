"""How long until an alarm, when some runs end without one: Kaplan and Meier's estimate. Arrays in, numbers out."""

from dataclasses import dataclass

import numpy as np
from bugbench.statistics import Floats
from numpy.typing import ArrayLike


@dataclass(frozen=True)
class Survival:
    """The share of runs still without an alarm, as a falling staircase.

    Attributes:
        times: when it falls, ascending; before the first it is 1.
        shares: the share from each of these times on.
        end: the longest time that any run was watched; nothing is known beyond.
    """

    times: Floats
    shares: Floats
    end: float

    @property
    def median(self) -> float:
        """Return the first time at which at most half of the runs are without an alarm; NaN if that never comes."""
        reached = np.flatnonzero(self.shares <= 0.5 + 1e-12)  # three halvings of 1 may leave a rounding error
        return float(self.times[reached[0]]) if len(reached) else float("nan")

    def mean_until(self, horizon: float) -> float:
        """Return the restricted mean: the mean time to alarm where each run counts up to ``horizon`` at most.

        It is the area below the staircase up to there (Royston and Parmar 2013), and exists where the mean does not.
        """
        inside = self.times < horizon
        edges = np.concatenate([[0.0], self.times[inside], [horizon]])
        heights = np.concatenate([[1.0], self.shares[inside]])
        return float((np.diff(edges) * heights).sum())


def kaplan_meier(times: ArrayLike, alarmed: ArrayLike) -> Survival:
    """Return the product-limit estimate (Kaplan and Meier 1958).

    At each time with alarms the share without one is multiplied by the part of the runs still watched that did not
    alarm. A run that ends at the time of another's alarm was still watched then.

    Args:
        times: steps to the alarm, or to the end of a run without one (which is then *censored*), shape (n,).
        alarmed: which of the two it was.

    Raises:
        ValueError: a time that is negative or not finite.
    """
    values, events = np.asarray(times, dtype=np.float64), np.asarray(alarmed, dtype=bool)
    if not np.isfinite(values).all() or (values < 0).any():
        raise ValueError(f"times must be finite and not negative: {values.tolist()}")
    moments, alarms = np.unique(values[events], return_counts=True)
    watched = np.array([(values >= moment).sum() for moment in moments])
    shares = np.cumprod(1 - alarms / watched) if len(moments) else np.zeros(0)
    return Survival(moments, shares, float(values.max()) if len(values) else 0.0)
