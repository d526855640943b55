"""The catalogue checked against its own claims: what is measured, what is complained of, and the page made of it."""

from dataclasses import replace
from pathlib import Path

import pandas as pd
import pytest
from bugbench.catalogue import Catalogue
from bugbench.impact import IMPACT_COLUMNS
from bugbench.records import read_impact
from bugbench.report.catalogue_page import page
from bugbench.selfcheck import cases_of, complaints, main

FAST = "diabetes_mlp"


def impact(*rows: tuple[str, str, str]) -> pd.DataFrame:
    """Return an impact table of (bug, workload, state)."""
    numbers = dict.fromkeys(IMPACT_COLUMNS, 0.0)
    named = [dict(zip(("bug", "workload", "state"), row, strict=True)) for row in rows]
    return pd.DataFrame([numbers | row for row in named], columns=IMPACT_COLUMNS)


def test_harmful_controls_and_unexplained_latent_bugs_are_complained_of(catalogue: Catalogue) -> None:
    bug, control = catalogue.card("lr_too_low"), catalogue.card("other_seed")
    bites = impact(("lr_too_low", "a", "degraded"), ("lr_too_low", "b", "latent"), ("other_seed", "a", "latent"))
    assert complaints([bug, control], bites) == []
    broken = impact(("lr_too_low", "a", "latent"), ("other_seed", "a", "latent"), ("other_seed", "b", "inflated"))
    assert complaints([bug, control], broken) == [
        "bug lr_too_low does no harm on any workload; keep it only with a reason (`latent: …`)",
        "control other_seed is harmful on b: inflated",
    ]
    explained = replace(bug, latent="Nearly nothing leaks.")
    assert complaints([explained], broken) == []
    assert complaints([explained], bites) == ["bug lr_too_low gives a reason for being latent, but does harm on a"]
    assert complaints([bug], impact()) == ["bug lr_too_low was measured on no workload"]
    idle = bites.assign(onset=[0.0, float("nan"), float("nan")])
    assert complaints([bug, control], idle) == ["bug lr_too_low changes nothing on b: its card should not apply there"]


def test_cases_are_those_that_apply(catalogue: Catalogue) -> None:
    cases = cases_of(catalogue, ["softmax_dim", "lr_too_high"], [FAST, "digits_cnn"], 2)
    assert [(case.card.id, case.workload.name, case.seed) for case in cases] == [
        ("softmax_dim", "digits_cnn", 0),
        ("softmax_dim", "digits_cnn", 1),
        *(("lr_too_high", workload, seed) for workload in (FAST, "digits_cnn") for seed in (0, 1)),
    ]


def test_page_tells_each_card(catalogue: Catalogue) -> None:
    measured = impact(("softmax_dim", "digits_cnn", "degraded"), ("other_seed", FAST, "latent"))
    measured.loc[0, ["oracle_twin", "oracle_bug", "report_shift", "onset"]] = [0.98, 0.61, -0.0125, 3]
    text = page(catalogue, measured)
    assert "1 of the bugs" in text
    assert "| digits_cnn | degraded | 0.980 → 0.610 | -0.013 | 3 |" in text
    for name in catalogue.cards:
        card = catalogue.card(name)
        assert f"\n### {name}\n" in text
        assert all(source in text for source in card.sources)
    assert text.index("### lr_too_high") < text.index("## Controls") < text.index("### other_seed")


def test_command_measures_and_writes(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["--bug", "lr_too_low", "none", "--workload", FAST, "--seeds", "2", "--results", str(tmp_path)]
    with pytest.raises(SystemExit) as end:
        main([*arguments, "--page", str(tmp_path / "CATALOGUE.md")])
    assert end.value.code == 0, capsys.readouterr().out
    table = read_impact(tmp_path / "impact.csv").set_index("bug")
    assert list(table.index) == ["lr_too_low", "none"]
    assert table.loc["lr_too_low", "state"].startswith("degraded")
    assert table.loc["none", "effect"] == 0
    assert set(table["seeds"]) == {2}
    assert "| diabetes_mlp | degraded" in (tmp_path / "CATALOGUE.md").read_text()
    assert "4 cases" in capsys.readouterr().out
    traces = {path: path.stat().st_mtime_ns for path in tmp_path.glob("runs/traces/*/outcome.json")}
    assert len(traces) == 4, "the control none is its own twin"
    with pytest.raises(SystemExit):
        main([*arguments, "--page", str(tmp_path / "CATALOGUE.md")])
    assert {path: path.stat().st_mtime_ns for path in tmp_path.glob("runs/traces/*/outcome.json")} == traces


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--bug", "lr_to_low"], "lr_too_low"),
        (["--workload", "digit_cnn"], "digits_cnn"),
        (["--seeds", "0"], "--seeds must be at least 1, not 0"),
    ],
)
def test_bad_input_names_what_would_be_right(arguments: list[str], message: str) -> None:
    with pytest.raises(SystemExit, match=message):
        main(arguments)
