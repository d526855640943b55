"""The baselines: always healthy, always faulty, the prior and the oracle."""

import json
from collections import Counter
from pathlib import Path

import pandas as pd
import pytest
import yaml
from bugbench.detectors.always_faulty import AlwaysFaulty
from bugbench.detectors.always_healthy import AlwaysHealthy
from bugbench.detectors.oracle import Oracle
from bugbench.detectors.prior import Prior, cases_by_fault
from bugbench.impact import is_harmful
from bugbench.trace import Trace
from data_runs import Run, faults, table

ROOT = Path(__file__).parents[1]


def test_baselines(tmp_path):
    Run(tmp_path / "t", *table(), classes=3, epochs=1)
    assert faults(AlwaysHealthy, tmp_path / "t") == []
    assert faults(AlwaysFaulty, tmp_path / "t") == ["missing_step"]
    assert faults(AlwaysFaulty(fault="nan_inputs"), tmp_path / "t") == ["nan_inputs"]


@pytest.fixture(scope="module")
def harmful_cases(catalogue):
    """How many cases of the suite do harm, by fault."""
    impact = pd.read_csv(ROOT / "results" / "impact.csv")
    faults = [catalogue.cards[bug]["fault"] for bug in impact["bug"][impact["state"].map(is_harmful)]]
    return Counter(fault for fault in faults if fault != "none")


def test_always_faulty_names_the_most_common_fault(harmful_cases):
    assert harmful_cases[AlwaysFaulty().fault] >= 0.9 * max(harmful_cases.values())


def test_prior_knows_the_shares_of_the_suite(harmful_cases):
    """A few new cards do not matter; another catalogue does."""
    known, total = cases_by_fault(), sum(harmful_cases.values())
    shares = {f: (known.get(f, 0) / sum(known.values()), harmful_cases[f] / total) for f in {*known, *harmful_cases}}
    assert sum(abs(a - b) for a, b in shares.values()) / 2 < 0.1


def test_prior_takes_as_many_for_healthy_as_the_suite_holds(catalogue):
    suite = yaml.safe_load((ROOT / "conf" / "suite" / "full.yaml").read_text())
    cards = [catalogue.card(bug) for bug in pd.read_csv(ROOT / "results" / "impact.csv")["bug"]]
    controls = sum(card.control for card in cards) * suite["controls"]["seeds"]
    bugs = sum(not card.control for card in cards) * suite["seeds"]
    assert Prior().healthy == pytest.approx(controls / (controls + bugs), abs=0.02)


def test_prior_draws_faults_by_their_shares(tmp_path):
    Run(tmp_path / "t", *table(), classes=3, epochs=1)
    trace = Trace(tmp_path / "t")
    drawn = Counter(s.fault for seed in range(3000) for s in Prior(seed=seed).diagnose(trace).suspects)
    known = cases_by_fault()
    common = sorted(known, key=known.get)[-20:]
    expected = sum(known[fault] for fault in common) / sum(known.values())
    assert sum(drawn[fault] for fault in common) / drawn.total() == pytest.approx(expected, abs=0.04)
    assert drawn.total() / 3000 == pytest.approx(1 - Prior().healthy, abs=0.04)


def test_prior_is_fixed_for_a_trace_and_half_of_the_time_healthy(tmp_path):
    Run(tmp_path / "t", *table(), classes=3, epochs=1)
    answers = [faults(Prior(seed=seed), tmp_path / "t") for seed in range(60)]
    assert answers[:3] == [faults(Prior(seed=seed), tmp_path / "t") for seed in range(3)]
    assert 15 < answers.count([]) < 45
    assert len({answer[0] for answer in answers if answer}) > 15
    Run(tmp_path / "u", *table(seed=1), classes=3, epochs=1)
    assert answers[:20] != [faults(Prior(seed=seed), tmp_path / "u") for seed in range(20)]


@pytest.mark.parametrize(
    ("truth", "expected"), [({"fault": "none"}, []), ({"fault": "dead_relu", "lines": [7, 9]}, [7])]
)
def test_oracle(tmp_path, truth, expected):
    (tmp_path / "truth.json").write_text(json.dumps(truth))
    found = Oracle().diagnose(Trace(tmp_path)).suspects
    assert [suspect.line for suspect in found] == expected
    assert all(suspect.fault == truth["fault"] for suspect in found)
