"""The baselines: always healthy, always faulty, the prior and the oracle."""

import json

import pytest
from bugbench.detectors.always_faulty import AlwaysFaulty
from bugbench.detectors.always_healthy import AlwaysHealthy
from bugbench.detectors.oracle import Oracle
from bugbench.detectors.prior import Prior
from bugbench.trace import Trace
from data_runs import Run, faults, table


def test_baselines(tmp_path):
    Run(tmp_path / "t", *table(), classes=3, epochs=1)
    assert faults(AlwaysHealthy, tmp_path / "t") == []
    assert faults(AlwaysFaulty, tmp_path / "t") == ["lr_too_high"]
    assert faults(AlwaysFaulty(fault="nan_inputs"), tmp_path / "t") == ["nan_inputs"]


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
