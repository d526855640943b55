"""Means over faults and workloads, and how sure they are: expectations worked out by hand."""

import itertools

import numpy as np
import pandas as pd
import pytest
from bugbench.clusters import Cells, cell_means
from bugbench.scoring import Truth, leaderboard, verdict, verdict_table

# Workload 0 has the units 0 and 1, workload 1 the units 1 and 2
CELLS = Cells(np.array([[1.0], [0.0], [0.5], [0.25]]), np.array([0, 0, 1, 1]), np.array([0, 1, 1, 2]))


def test_mean_over_workloads_of_means_over_units():
    assert CELLS.mean().tolist() == [[(0.5 + 0.375) / 2]]
    # unit 0 twice, unit 2 not at all; workload 1 three times: (1 x 2/3 + 3 x 0.5) / 4
    means = CELLS.mean(np.array([[2.0, 1.0, 0.0]]), np.array([[1.0, 3.0]]))
    np.testing.assert_allclose(means, [[(2 / 3 + 1.5) / 4]])
    # unit 2 alone: workload 0 has nothing of it
    np.testing.assert_allclose(CELLS.mean(np.array([[0.0, 0.0, 3.0]])), [[0.25]])


def test_parts_of_the_units_add_up_to_the_mean():
    parts = CELLS.parts()
    np.testing.assert_allclose(parts, [[1 / 4], [0.5 / 4], [0.25 / 4]])
    assert parts.sum() == pytest.approx(CELLS.mean().item())


def test_mean_of_each_unit():
    np.testing.assert_allclose(CELLS.by_unit(), [[1.0], [0.25], [0.25]])


def test_units_that_are_left_out_have_no_number():
    some = CELLS.of(np.array([False, False, True, True]), np.array([True]))
    assert (some.units.tolist(), some.workloads.tolist(), some.unit_count) == ([0, 1], [1, 1], 2)


def test_cells_of_a_table():
    columns = ["workload", "fault", "bug", "seed", "detector", "exact"]
    rows = [
        ("wine", "a", "a1", 0, "d", 1.0),
        ("wine", "a", "a1", 1, "d", 0.0),
        ("wine", "a", "a2", 0, "d", 1.0),
        ("digits", "b", "b", 0, "e", 1.0),
    ]
    cells = cell_means(pd.DataFrame(rows, columns=columns), "fault", ["exact"], ["d", "e"], ["digits", "iris", "wine"])
    # seeds within bug, bugs within fault: (1/2 + 1) / 2
    np.testing.assert_array_equal(cells.values, [[np.nan, 1.0], [0.75, np.nan]])
    assert (cells.workloads.tolist(), cells.units.tolist()) == ([0, 2], [1, 0])


def board(known, flagged):
    """Return a detector's row that names some of ten faults, and flags the controls of some of eight workloads."""
    families = {f"fault_{number}": "model" for number in range(10)}
    rows = []
    for place, number in itertools.product(range(8), range(10)):
        fault, workload = f"fault_{number}", f"workload_{place}"
        suspects = [{"fault": fault}] if number in known else []
        truth = Truth(fault, fault, "model", False, workload, 0)
        rows.append(verdict(truth, "d", "curves", families, suspects))
        suspects = [{"fault": "fault_0"}] if place in flagged else []
        truth = Truth(f"control_{number}", "none", "none", True, workload, 0)
        rows.append(verdict(truth, "d", "curves", families, suspects))
    table = verdict_table(rows)
    pairs = table[["bug", "workload", "control"]].drop_duplicates()
    impact = pairs[["bug", "workload"]].assign(state=np.where(pairs["control"], "latent", "degraded"))
    (row,) = leaderboard(table, impact).to_dict("records")
    return row


def test_a_fault_that_is_known_everywhere_is_one_observation():
    row = board(known=[3], flagged=[])
    # 0.9^10 = 35 % of the draws have none of it. The 80 cells as independent would give 0.03 to 0.18
    assert (row["diagnosis_j"], row["diagnosis_j_low"]) == (pytest.approx(0.1), 0.0)
    assert row["diagnosis_j_high"] == pytest.approx(0.3, abs=0.01)  # three of ten draws, the 98.7th percentile


def test_a_workload_on_which_everything_is_flagged_is_one_observation():
    row = board(known=[], flagged=[0, 1])
    # binomial, 8 draws of which each has a chance of 1/4: none in 10 %, five or more in 2.7 %
    assert row["diagnosis_j"] == pytest.approx(-0.25)
    assert (row["diagnosis_j_low"], row["diagnosis_j_high"]) == (pytest.approx(-5 / 8), 0.0)
