"""Results folders that nobody plans: the report says what is odd about them, and comes out all the same."""

import re
from dataclasses import replace
from pathlib import Path

import pandas as pd
import pytest
from bugbench import published
from bugbench.records import Records
from bugbench.report import leaderboard
from bugbench.report.sweep import Job, Leaderboard
from bugbench.report.wording import unnamed_words
from bugbench.scoring import verdict, verdict_table
from omegaconf import OmegaConf
from rich.console import Console
from stored_cases import FAMILIES, built, data_of, record, store

CONTROL = record("reseeded", "none", lines=[])


def summary(results: Path) -> str:
    return (results / "leaderboard.md").read_text().splitlines()[2]


def write(results: Path, case, access: str, families=FAMILIES, fault=None) -> None:
    suspects = [{"fault": fault}] if fault else []
    row = verdict(case.truth, "x", access, families, suspects) | {"isolation": "namespaces", "version": ""}
    Records(results).write(case, verdict_table([row]))


def test_tables_come_out_where_nobody_was_judged(tmp_path):
    for case in (record(), CONTROL):
        store(tmp_path, case, {"weightwatcher": None}, status="not_installed", reason="pip install weightwatcher")
    text, _ = built(tmp_path)
    said = "1 bug and 1 control on digits, bugbench "
    assert summary(tmp_path).startswith(said) and ": **nobody was judged.** 1 detector could" in summary(tmp_path)
    assert "<strong>nobody was judged.</strong>" in text
    markdown = (tmp_path / "leaderboard.md").read_text()
    assert "- `weightwatcher`: pip install weightwatcher" in markdown
    assert "Faults that nobody names" not in markdown and "Mean steps" not in markdown and "nan" not in markdown
    board = pd.read_csv(tmp_path / "leaderboard.csv")
    assert board[["detector", "cases", "controls", "not_installed"]].values.tolist() == [["weightwatcher", 0, 0, 2]]
    for name in ("by_fault", "by_family", "by_control", "confusion", "comparisons", "answers_and_times"):
        assert pd.read_csv(tmp_path / f"{name}.csv").empty, name
    leaderboard.show(leaderboard.build(tmp_path, Records(tmp_path).read())[0], Console(width=160, record=True))


def test_sweep_that_asks_no_detector_says_so(tmp_path, capsys):
    case = record()
    Records(tmp_path).write(case, verdict_table([]))
    folder = str(tmp_path / "multirun")
    Job([case.folder], [], started=0.0, ended=9.0, workers=1).write(Path(folder) / "0")
    sweep = OmegaConf.create({"results": str(tmp_path), "search_path": [], "hydra": {"sweep": {"dir": folder}}})
    ended = Leaderboard()
    ended.on_multirun_start(sweep)
    ended.on_multirun_end(sweep)
    said = capsys.readouterr().out
    assert "1 case; no detector was asked, `python -m bugbench.judge` asks them." in said
    assert "did not run" not in said and "1 core" in said
    assert not (tmp_path / "leaderboard.md").exists()


def test_detector_whose_access_was_widened_is_shown_with_the_widest(tmp_path):
    write(tmp_path, record(seed=0), "data", fault="softmax_dim")
    write(tmp_path, record(seed=1), "data+source")
    write(tmp_path, CONTROL, "data")
    text, _ = built(tmp_path)
    assert pd.read_csv(tmp_path / "leaderboard.csv")["access"].tolist() == ["data+source"]
    assert '<tr data-detector="x" data-tier="source"' in text
    assert "**Verdicts with more than one access, of which the widest is shown, of x.**" in summary(tmp_path)


def test_a_fault_is_in_the_family_that_the_vocabulary_has_today(tmp_path):
    old = replace(record(seed=1), family="optimizer")
    write(tmp_path, record(seed=0), "data", fault="softmax_dim")
    write(tmp_path, old, "data", {**FAMILIES, "softmax_dim": "optimizer"}, fault="zero_init")
    write(tmp_path, CONTROL, "data", fault="softmax_dim")
    assert FAMILIES["softmax_dim"] == FAMILIES["zero_init"] == "model"
    text, _ = built(tmp_path)
    (row,) = pd.read_csv(tmp_path / "by_fault.csv").to_dict("records")
    # seed 0 names the fault; seed 1 another one of the family in which it is now
    assert (row["family"], row["cases"], row["right"], row["family_right"]) == ("model", 2, 0.5, 1.0)
    assert data_of(text)["heat"]["family"]["names"] == ["model"]
    assert re.findall(r'data-family="(\w+)"', text) == ["model", "none"]
    assert "**Judged when in another family, but counted in today's: `softmax_dim`.**" in summary(tmp_path)
    kept = {r.seed: r.family for r in published.read(tmp_path).records if not r.control}
    assert kept == {0: "model", 1: "optimizer"}, "what was stored"


def test_a_fault_that_the_vocabulary_has_no_more_is_in_one_family(tmp_path):
    families = {**FAMILIES, "given_up": "optimizer"}
    write(tmp_path, record("a", "given_up", family="optimizer"), "data", families)
    write(tmp_path, record("b", "given_up", family="loss"), "data", {**families, "given_up": "loss"})
    built(tmp_path)
    assert pd.read_csv(tmp_path / "by_fault.csv")["family"].tolist() == ["optimizer"]


@pytest.mark.parametrize(
    ("answers", "words"),
    [
        ({"always_healthy": None}, "The one fault that does harm, `softmax_dim`, is found by nobody: on none of"),
        ({"prior": "softmax_dim"}, "The one fault that does harm, `softmax_dim`, is found by nobody: on none of"),
        ({"call_order": "softmax_dim"}, "The one fault that does harm is found, in one case at least, by some"),
    ],
)
def test_a_fault_that_only_baselines_were_asked_about_is_named_by_nobody(tmp_path, catalogue, answers, words):
    store(tmp_path, record(), answers)
    store(tmp_path, CONTROL, dict.fromkeys(answers))
    text, _ = built(tmp_path, catalogue)
    assert words in (tmp_path / "leaderboard.md").read_text()
    assert words.replace("`softmax_dim`", "<code>softmax_dim</code>") in text


def test_faults_that_contestants_were_not_asked_about_are_named_by_nobody(tmp_path, catalogue):
    store(tmp_path, record(), {"call_order": "softmax_dim", "prior": None})
    store(tmp_path, record("lr_too_low", "lr_too_low"), {"prior": "lr_too_low"})
    built(tmp_path, catalogue)
    words = "1 of the 2 faults that do harm is found by nobody (on none of its cases is the first suspect of any "
    words += "detector right, baselines aside): `lr_too_low`."
    assert words in (tmp_path / "leaderboard.md").read_text()


def test_nothing_is_said_of_faults_where_none_does_harm(tmp_path):
    store(tmp_path, CONTROL, {"x": None})
    text, _ = built(tmp_path)
    assert "faults that" not in (tmp_path / "leaderboard.md").read_text()
    assert "faults that" not in text and "fault that does" not in text
    assert unnamed_words([], 2) == "Each of the 2 faults that do harm is found, in one case at least, by some detector."


def test_cases_are_counted_though_no_detector_was_judged_on_all(tmp_path):
    store(tmp_path, record(), {"x": "softmax_dim"})
    store(tmp_path, record("lr_too_high", "lr_too_high"), {"y": "lr_too_high"})
    store(tmp_path, record("lr_too_low", "lr_too_low", oracle_bug=0.9, reported_bug=0.9), {"y": None})
    store(tmp_path, CONTROL, {"x": None})
    store(tmp_path, record("other", "none", lines=[]), {"y": None})
    built(tmp_path)
    what = "1 harmful bug on 1 workload, 1 seed each and 1 control on 1 workload, 1 seed each."
    assert ": 2 harmful bug cases, 2 control cases; 1 latent bug case left out, where no" in summary(tmp_path)
    assert f"x was judged on a part: {what} y was judged on others: {what}" in summary(tmp_path)


@pytest.mark.parametrize(
    ("steps", "faults", "words"),
    [
        (100, ["softmax_dim", None], "counts for the 99 steps, as does any later alarm; half of the runs go on"),
        (None, ["softmax_dim", None], "counts for the 4 steps to the latest alarm of all, since the length of no run"),
        (None, [None, None], "There are no *mean steps* from onset to alarm: the length of no run is known"),
    ],
)
def test_steps_to_an_alarm_where_no_length_is_known(tmp_path, steps, faults, words):
    store(tmp_path, record(steps=steps), dict(zip(["loud", "quiet"], faults, strict=True)))
    store(tmp_path, CONTROL, {"loud": None, "quiet": None})
    text, _ = built(tmp_path)
    markdown = " ".join((tmp_path / "leaderboard.md").read_text().split())
    assert words in markdown and words.replace("*mean steps*", "<em>mean steps</em>") in text
    assert "nan" not in markdown and "are left out: their onset" not in text
    table = pd.read_csv(tmp_path / "answers_and_times.csv").set_index("detector")
    assert table["cases"].to_dict() == {"loud": 1, "quiet": 1}
    assert ("g class" in text) == (faults[0] is not None), "without a horizon there is no drawing"
