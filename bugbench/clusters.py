"""Which cases hang together: the mean marks of detectors by workload and by fault, a crossed design."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from bugbench.statistics import Floats, mean_of_means
from numpy.typing import NDArray


@dataclass(frozen=True)
class Cells:
    """Mean marks by workload and unit, which is the fault of a bug, or the control.

    A detector that knows a fault knows it on every workload, and one that takes a healthy workload for a faulty one
    does so whatever the control: neither the cells of a unit nor those of a workload are independent.

    Attributes:
        values: shape (cells, marks x detectors); NaN where a detector was not judged.
        workloads, units: the number of each cell's workload and unit, shape (cells,).
    """

    values: Floats
    workloads: NDArray[np.int64]
    units: NDArray[np.int64]

    @property
    def unit_count(self) -> int:
        return int(self.units.max(initial=-1)) + 1

    def mean(self, unit_weights: Floats | None = None, workload_weights: Floats | None = None) -> Floats:
        """Return the means over the workloads of the means over the units of each, shape (resamples, columns).

        Args:
            unit_weights: how often each unit was drawn, shape (resamples, units); None: each once.
            workload_weights: likewise, by the workload's number.
        """
        weights = np.ones((1, len(self.values))) if unit_weights is None else unit_weights[:, self.units]
        return mean_of_means(self.values, self.workloads, weights, workload_weights)

    def parts(self) -> Floats:
        """Return what each unit adds to the mean of each column, shape (units, columns); no value may be NaN."""
        sizes = np.bincount(self.workloads)
        weights = 1 / (np.count_nonzero(sizes) * sizes[self.workloads])
        added = np.zeros((self.unit_count, self.values.shape[1]))
        np.add.at(added, self.units, self.values * weights[:, None])
        return added

    def by_unit(self) -> Floats:
        """Return the mean over the workloads of each unit, shape (units, columns); no value may be NaN."""
        sums = np.zeros((self.unit_count, self.values.shape[1]))
        np.add.at(sums, self.units, self.values)
        return sums / np.bincount(self.units, minlength=self.unit_count)[:, None]

    def of(self, chosen: NDArray[np.bool_], columns: NDArray[np.bool_]) -> "Cells":
        """Return some of the cells and some of the columns; units without a cell are numbered no more."""
        units = np.unique(self.units[chosen], return_inverse=True)[1]
        return Cells(self.values[np.ix_(chosen, columns)], self.workloads[chosen], units)


def cell_means(
    cases: pd.DataFrame, unit: str, marks: Sequence[str], detectors: Sequence[str], workloads: Sequence[str]
) -> Cells:
    """Return the mean marks by workload and unit: seeds within bug, bugs within unit.

    Args:
        cases: see :func:`bugbench.scoring.with_harm`.
        unit: its column that holds the unit.
        marks: columns to average.
        detectors: in the order of the columns.
        workloads: in the order of their numbers.
    """
    keys = ["workload", unit, "detector"]
    per_bug = cases.groupby(list(dict.fromkeys([*keys, "bug"])))[list(marks)].mean()
    per_unit = pd.DataFrame(per_bug.groupby(keys).mean().unstack("detector"))
    table = per_unit.reindex(columns=pd.MultiIndex.from_product([marks, detectors]))
    numbers = pd.Index(workloads).get_indexer(table.index.get_level_values("workload"))
    units = pd.factorize(table.index.get_level_values(unit), sort=True)[0]
    return Cells(table.to_numpy(dtype=float), numbers.astype(np.int64), units.astype(np.int64))
