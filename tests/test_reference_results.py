"""The reference tables in results/: the README quotes them as they are, and the page beside them shows the same."""

import json
import re
from dataclasses import replace
from pathlib import Path

import pandas as pd
import pytest
from bugbench import merge, published
from bugbench.records import Records, verdict_rows
from bugbench.report import leaderboard
from bugbench.report.page import LARGEST
from bugbench.report.wording import SHOWN, cells
from bugbench.scoring import verdict

ROOT = Path(__file__).parents[1]
RESULTS = ROOT / "results"


@pytest.fixture(scope="module")
def board() -> pd.DataFrame:
    return pd.read_csv(RESULTS / "leaderboard.csv")


def test_readme_quotes_the_leaderboard(board):
    text = (ROOT / "README.md").read_text()
    section = text[text.index("## The field so far") : text.index("## Limits")]
    header, _, *rows = [line.strip("| ").split(" | ") for line in section.splitlines() if line.startswith("| ")]
    shown = {row["detector"]: dict(zip(SHOWN.values(), cells(row), strict=True)) for _, row in board.iterrows()}
    for row in rows:
        name = row[0].strip("`")
        assert row[1:] == [shown[name][column] for column in header[1:]], name
    assert len(rows) >= 30
    assert f"{board['cases'].max()} harmful bug cases" in section
    assert f"{board['controls'].max()} control cases" in section


def test_readme_says_in_words_what_the_leaderboard_holds(board):
    text = (ROOT / "README.md").read_text()
    words = " ".join(text[text.index("## The field so far") : text.index("## Limits")].split())
    rows = board.set_index("detector")
    plan, flagged = rows.loc["debugging_plan"], rows["false_alarm_rate"]
    learned = flagged[["deepfd", "default_tree", "invariants"]]
    readers = rows.loc[(rows["origin"] != "baseline") & ~rows["access"].str.contains("rerun"), "exact_rate"]
    best = readers.idxmax()
    unnamed = re.search(r"(\d+ of) the (\d+ faults) that do harm", (RESULTS / "leaderboard.md").read_text())
    assert unnamed is not None
    assert len(rows[["cases", "controls", "latent"]].drop_duplicates()) == 1, "all were judged on the same cases"
    for claim in (
        f"All {len(board)} detectors on the same {int(plan.cases + plan.controls + plan.latent)} cases",
        f"has all {len(board)} and says",
        f"raises an alarm on {plan.detection_rate:.0%} of the bugs, names the cause of {plan.exact_rate:.0%} and flags "
        f"{plan.false_alarm_rate:.0%} of the controls",
        f"{unnamed[1]} the {unnamed[2]} that do harm are found by nobody",
        "flag " + ", ".join(f"{rate:.0%} (`{name}`)" for name, rate in learned.items()) + " of the controls",
        f"`{best}` names more causes, {readers[best]:.0%}, than any other detector that reads traces only",
        f"`umlaut`, which flags {flagged['umlaut']:.0%} of the controls",
        f"`autotrainer` ({flagged['autotrainer']:.0%})",
        f"`deepdiagnosis` ({flagged['deepdiagnosis']:.0%};",
        f"`deeplocalize` ({flagged['deeplocalize']:.0%};",
    ):
        assert claim in words


def test_page_shows_the_leaderboard(board):
    page = (RESULTS / "leaderboard.html").read_text()
    assert len(page.encode()) <= LARGEST
    match = re.search(r'<script type="application/json" id="data">(.*?)</script>', page)
    assert match is not None
    data = json.loads(match[1])
    assert data["detectors"] == list(board["detector"])
    first = board.iloc[1]
    assert data["boards"]["|"][first["detector"]] == cells(first)[3:]


def test_tables_beside_it_are_of_the_same_detectors(board):
    for name in ("by_fault", "by_family", "by_control", "answers_and_times"):
        table = pd.read_csv(RESULTS / f"{name}.csv")
        assert set(table["detector"]) == set(board["detector"]), name


@pytest.mark.parametrize("folder", ["full", "seeds"])
def test_published_verdicts_follow_from_truth_and_suspects(folder, catalogue):
    """Who recomputes the verdicts from what is published beside them finds the same."""
    cases = published.read(RESULTS / folder)
    truths = {(r.bug, r.workload, r.seed): r.truth for r in cases.records}
    families = {fault: entry["family"] for fault, entry in catalogue.faults.items()}
    assert {bug.partition("(")[0] for bug, _, _ in truths} <= set(catalogue.cards)
    assert set(cases.verdicts["detector"]) <= set(catalogue.detectors)
    assert cases.verdicts.groupby("detector")["seed"].count().min() == len(truths), "each detector judged each case"
    answers = {"reason", "seconds", "alarm_step", "status"}
    for row in verdict_rows(cases.verdicts):
        said = {name: row[name] for name in answers} | {"suspects": json.loads(row["suspects"])}
        truth = truths[row["bug"], row["workload"], row["seed"]]
        again = verdict(truth, row["detector"], row["access"], families, **said)
        different = [name for name in again if again[name] != row[name] and again[name] == again[name]]
        assert not different, (row["detector"], truth, different)


def test_readme_says_what_the_reference_cost():
    cases = published.read(RESULTS / "full")
    ran = {r.trace_key: r.seconds_bug for r in cases.records} | {r.twin_key: r.seconds_twin for r in cases.records}
    seconds, reruns = cases.verdicts["seconds"], cases.verdicts["access"].astype(str).str.contains("rerun")
    again, read = (seconds[some].sum() / len(cases.records) for some in (reruns, ~reruns))
    said = " ".join((ROOT / "README.md").read_text().split())
    assert f"Training all these programs took {sum(ran.values()) / 3600:.1f} core-hours" in said
    assert f"run programs again {again:.0f} seconds a case together, those of the others {read:.1f}," in said


def test_readme_names_the_detectors_with_verdicts_of_several_versions():
    told = re.search(r"Verdicts by more than one version.* of (.*?)\.\*\*", (RESULTS / "leaderboard.md").read_text())
    said = re.search(r"in part by the version\s+before:\s+(.*?)\.\n\n", (ROOT / "README.md").read_text(), re.DOTALL)
    assert re.findall(r"`(\w+)`", said[1] if said else "") == (told[1].split(", ") if told else [])


def test_table_is_of_the_published_cases(board):
    cases = published.read(RESULTS / "full")
    assert set(cases.verdicts["detector"]) == set(board["detector"])
    table = (RESULTS / "leaderboard.md").read_text()
    counts = re.search(r"(\d+) harmful bug cases, (\d+) control cases; (\d+) latent bug cases", table)
    assert counts is not None
    harmful, controls, latent = map(int, counts.groups())
    assert controls == sum(record.control for record in cases.records)
    assert harmful + latent == len(cases.records) - controls


@pytest.mark.slow
def test_readme_says_what_further_seeds_tell(catalogue, tmp_path):
    cases = published.read(RESULTS / "seeds")
    pairs = {(r.bug, r.workload) for r in cases.records}
    assert len(cases.records) == 3 * len(pairs)
    of_first = [r for r in cases.records if r.seed == 0]
    first = replace(cases, records=of_first, verdicts=cases.verdicts[cases.verdicts["seed"] == 0])
    widths = []
    for name, some in (("first", first), ("all", cases)):
        merge.merge(some, tmp_path / name)
        board, _ = leaderboard.build(tmp_path / name, Records(tmp_path / name).read(), catalogue)
        board = board.set_index("detector")
        widths.append(board["diagnosis_j_high"] - board["diagnosis_j_low"])
    ratio = (widths[1] / widths[0])[widths[0] > 0.05]  # others are never right, or never wrong
    said = " ".join((ROOT / "README.md").read_text().split())
    assert f"on {len(pairs)} pairs of a card and a workload" in said
    assert f"Of the {len(ratio)} detectors whose interval of *J* is wider than 0.05" in said
    assert f"is {ratio.median():.2f} times as wide as over one" in said
    table = (tmp_path / "all" / "leaderboard.md").read_text()
    (figures,) = re.findall(r"each in (\d+%) of .*correlation ([\d.]+)\).* an estimated (\d+%) at most", table)
    assert f"with each of three seeds {figures[0]} of the time" in said
    assert f"is {figures[1]}: further seeds, however many, would narrow an interval by {figures[2]} at most" in said
