"""What a bug does to a workload, with expectations worked out by hand."""

import numpy as np
import pandas as pd
import pytest
from bugbench.impact import IMPACT_COLUMNS, Oracle, is_harmful, measure_impact

ACCURACY = Oracle(metric="accuracy", direction="maximize", bounds=[0.0, 1.0], floor=0.02)
ERROR = Oracle(metric="error", direction="minimize", bounds=[0.0, 50.0], floor=1.0)
TWIN = [0.98, 0.97, 0.98, 0.99, 0.98]  # mean 0.98


def runs(oracle_bug, oracle_twin=TWIN, reported_bug=None, reported_twin=None, **columns):
    """One row per seed; a report is honest unless given."""
    count = len(oracle_bug)
    return pd.DataFrame(
        {
            "bug": "some_bug",
            "workload": "digits",
            "seed": range(count),
            "oracle_bug": oracle_bug,
            "oracle_twin": oracle_twin[:count],
            "reported_bug": oracle_bug if reported_bug is None else reported_bug,
            "reported_twin": oracle_twin[:count] if reported_twin is None else reported_twin,
            "crashed_bug": False,
            "onset": 0.0,
            "key": "abc",
            **columns,
        }
    )


def measured(table, oracle=ACCURACY):
    impact = measure_impact(table, {"digits": oracle})
    assert list(impact.columns) == IMPACT_COLUMNS
    assert len(impact) == 1
    return impact.iloc[0]


def test_degraded():
    row = measured(runs([0.5, 0.6, 0.5, 0.6, 0.5]))
    assert row.state == "degraded" and not row.provisional and row.seeds == 5
    assert row.oracle_bug == pytest.approx(0.54) and row.oracle_twin == pytest.approx(0.98)
    assert row.effect == pytest.approx(0.44) and row.effect_share == pytest.approx(0.44)
    assert row.p == 1 / 32
    assert row.report_shift == pytest.approx(0.0) and row.report_p == 1.0
    assert row.key == "abc"


def test_identical_to_the_twin_is_latent():
    row = measured(runs(TWIN, onset=np.nan))
    assert row.state == "latent" and row.effect == 0 and row.p == 1.0
    assert np.isnan(row.onset)


def test_small_or_uncertain_falls_are_latent():
    # Every seed falls by 0.01: certain (1/32), but less than the floor
    small = measured(runs([value - 0.01 for value in TWIN]))
    assert small.state == "latent" and small.p == 1 / 32
    # Falls 0.2, 0.2, 0.2, 0.2, -0.1: large (0.14), but 2 of 32 patterns are as extreme
    uncertain = measured(runs([0.78, 0.77, 0.78, 0.79, 1.08], oracle_twin=TWIN), Oracle("a", "maximize", [0, 2], 0.02))
    assert uncertain.state == "latent" and uncertain.effect == pytest.approx(0.14) and uncertain.p == 2 / 32


def test_exactly_the_floor_is_enough_in_spite_of_rounding():
    row = measured(runs([0.92] * 5, oracle_twin=[0.94] * 5))
    assert row.effect < 0.02  # in floats
    assert row.effect == pytest.approx(0.02) and row.state == "degraded"


def test_an_improvement_is_not_degraded():
    row = measured(runs([0.99, 0.99, 1.0, 1.0, 1.0], oracle_twin=[0.5] * 5))
    assert row.effect < 0 and row.p == 1.0 and row.state == "latent"


def test_minimized_metric_turns_the_signs():
    row = measured(runs([9.0, 9.0, 9.0, 9.0, 9.0], oracle_twin=[4.0] * 5), ERROR)
    assert row.state == "degraded" and row.effect == pytest.approx(5.0)
    assert row.effect_share == pytest.approx(0.1)  # of 50
    better = measured(runs([1.0] * 5, oracle_twin=[4.0] * 5), ERROR)
    assert better.state == "latent" and better.effect == pytest.approx(-3.0)
    # Reports an error of 2 where it is 4, like its twin says 4 where it is 4
    rosy = measured(runs([4.0] * 5, oracle_twin=[4.0] * 5, reported_bug=[2.0] * 5), ERROR)
    assert rosy.state == "inflated" and rosy.report_shift == pytest.approx(2.0)


def test_misreports():
    inflated = measured(runs(TWIN, reported_bug=[1.0] * 5, reported_twin=[0.9] * 5))
    # Optimism 1.0 - 0.98 against 0.9 - 0.98
    assert inflated.state == "inflated"
    assert inflated.report_shift == pytest.approx(0.1) and inflated.report_p == 1 / 32
    understated = measured(runs(TWIN, reported_bug=[0.1] * 5))
    assert understated.state == "understated"
    assert understated.report_shift == pytest.approx(-0.88) and understated.report_p == 1 / 32
    # Leakage: the model is bad and the report is perfect
    both = measured(runs([0.5] * 5, reported_bug=[1.0] * 5))
    assert both.state == "degraded+inflated"
    # Improves the model, and the report does not know
    unaware = measured(runs(TWIN, oracle_twin=[0.9] * 5, reported_bug=[0.9] * 5))
    assert unaware.state == "understated"


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf, None])
def test_what_is_not_finite_is_the_worst(value):
    row = measured(runs([value] * 5))
    assert row.oracle_bug == 0.0 and row.effect == pytest.approx(0.98)
    assert row.state == "degraded"  # the report is the worst too: honest
    row = measured(runs([value] * 5, oracle_twin=[4.0] * 5), ERROR)
    assert row.oracle_bug == 50.0 and row.effect == pytest.approx(46.0)


def test_values_are_clipped_to_the_bounds():
    row = measured(runs([1e9] * 5, oracle_twin=[-3.0] * 5), ERROR)
    assert row.oracle_bug == 50.0 and row.oracle_twin == 0.0 and row.effect_share == 1.0


def test_missing_report_is_understated():
    row = measured(runs(TWIN, reported_bug=[None] * 5))
    assert row.reported_bug == 0.0 and row.state == "understated"


def test_crashes_count_by_majority():
    most = measured(runs([np.nan, np.nan, np.nan, 0.98, 0.98], crashed_bug=[True, True, True, False, False]))
    assert most.state == "crashed" and most.crashed == pytest.approx(0.6)
    # Two crash: they count as the worst model, even if the program had reported something before
    crashed = [True, True, False, False, False]
    few = measured(runs(TWIN, reported_bug=[0.99, 0.99, 0.98, 0.99, 0.98], crashed_bug=crashed))
    assert few.oracle_bug == pytest.approx((0.98 + 0.99 + 0.98) / 5)
    assert few.report_shift == pytest.approx(0.0)
    # Falls 0.98, 0.97, 0, 0, 0: zeros are flipped in vain, so 1 of 4 patterns is as extreme
    assert few.p == 1 / 4 and few.state == "latent"
    half = measured(runs([np.nan, 0.97], crashed_bug=[True, False]))
    assert half.state == "degraded" and half.provisional


def test_few_seeds_are_provisional_and_the_floor_decides():
    row = measured(runs([0.5, 0.6, 0.5, 0.6]))
    assert row.provisional and row.p == 1 / 16 and row.state == "degraded"
    single = measured(runs([0.97], reported_bug=[1.0]))
    # Fall 0.01 below the floor; optimism 0.03 against 0
    assert single.provisional and single.state == "inflated"


def test_onset_is_the_median_of_those_that_differ():
    assert measured(runs([0.5] * 5, onset=[4.0, np.nan, 2.0, 9.0, np.nan])).onset == 4.0


def test_keys_are_joined():
    different = measured(runs(TWIN, key=list("abcde"))).key
    assert different == measured(runs(TWIN, key=list("abcde")).sample(frac=1, random_state=0)).key
    assert different != measured(runs(TWIN, key=list("abcdf"))).key
    assert len(different) == 16


def test_rows_are_sorted_whatever_the_order():
    one, two = runs([0.5] * 5), runs(TWIN).assign(bug="another_bug")
    impact = measure_impact(pd.concat([one, two]).sample(frac=1, random_state=1), {"digits": ACCURACY})
    assert list(impact["bug"]) == ["another_bug", "some_bug"]
    assert list(impact["state"]) == ["latent", "degraded"]


def test_no_runs_give_an_empty_table():
    impact = measure_impact(runs(TWIN).iloc[:0], {"digits": ACCURACY})
    assert list(impact.columns) == IMPACT_COLUMNS and len(impact) == 0


def test_defective_input_is_refused():
    with pytest.raises(ValueError, match="lack the columns onset, key"):
        measure_impact(runs(TWIN).drop(columns=["onset", "key"]), {"digits": ACCURACY})
    with pytest.raises(ValueError, match="no oracle settings for workload 'digits'; known: wine"):
        measure_impact(runs(TWIN), {"wine": ACCURACY})
    with pytest.raises(ValueError, match="given twice"):
        measure_impact(pd.concat([runs(TWIN), runs(TWIN)]), {"digits": ACCURACY})


@pytest.mark.parametrize(
    "settings",
    [
        {"direction": "up"},
        {"bounds": [1.0, 0.0]},
        {"bounds": [0.0, np.inf]},
        {"bounds": [0.0]},
        {"floor": 0.0},
        {"floor": 2.0},
    ],
)
def test_defective_settings_are_refused(settings):
    with pytest.raises(ValueError, match="oracle"):
        Oracle(**{"metric": "accuracy", "direction": "maximize", "bounds": [0.0, 1.0], "floor": 0.02, **settings})


def test_harm():
    assert not is_harmful("latent")
    for state in ("crashed", "degraded", "inflated", "degraded+understated"):
        assert is_harmful(state)
    with pytest.raises(ValueError, match="unknown state 'fine'"):
        is_harmful("fine")
