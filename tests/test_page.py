"""The page: whole, harmless and self-contained, whatever the results folder holds."""

import base64
import hashlib
import math
import re
from pathlib import Path

import pandas as pd
import pytest
from bugbench.comparison import friedman
from bugbench.judging import Judge
from bugbench.records import Records
from bugbench.report import drawing, leaderboard, page
from bugbench.report.stored_runs import StoredRuns
from bugbench.report.tables import Tables, compared_words
from bugbench.scoring import verdict, verdict_table
from bugbench.survival import kaplan_meier
from rich.console import Console
from stored_cases import FAMILIES, built, data_of, record, store, write_trace

ATTACK = '</script><script>alert(1)</script><img src=x onerror="alert(2)"> & \u2028'


@pytest.fixture
def results(tmp_path: Path) -> Path:
    for seed in range(2):
        store(tmp_path, record(seed=seed), {"right": "softmax_dim", "symptom": FAMILIES["softmax_dim"], "silent": None})
        store(tmp_path, record("lr_too_high", "lr_too_high", seed=seed), {"right": "lr_too_high", "silent": None})
    store(tmp_path, record("reseeded", "none"), {"right": None, "symptom": "softmax_dim", "silent": None})
    return tmp_path


def test_page_needs_nothing_from_outside_and_runs_only_its_own_script(results):
    text, parsed = built(results)
    assert len(text.encode()) < 2**20
    assert not re.search(r"https?:|//\w|@import|url\(", text), "an address"
    assert not [a for _, a in parsed.elements if {"src", "onclick", "onerror", "onload"} & set(a)]
    assert all(a["href"].startswith("#") for _, a in parsed.elements if "href" in a)
    scripts = re.findall(r"<script[^>]*>(.*?)</script>", text, re.DOTALL)
    assert len(scripts) == 2
    seal = base64.b64encode(hashlib.sha256(scripts[1].encode()).digest()).decode()
    (policy,) = [a["content"] for tag, a in parsed.elements if tag == "meta" and "http-equiv" in a]
    assert f"script-src 'sha256-{seal}'" in policy and "default-src 'none'" in policy
    identities = [a["id"] for _, a in parsed.elements if "id" in a]
    assert len(identities) == len(set(identities))


def test_what_detectors_say_is_text(results):
    case = record("nan_inputs", "nan_inputs", error=f"ValueError: {ATTACK}", crashed_bug=True, oracle_bug=None)
    store(results, case, {"right": "nan_inputs"}, evidence=ATTACK)
    store(results, record("seed", "none", seed=1), {"right": None}, status="crashed", reason=ATTACK)
    write_trace(results, "twin-0", "a = 1\n", [1.0, 0.5])
    write_trace(results, "nan_inputs-0", f"a = '''{ATTACK}'''\n", [1.0, math.nan])
    text, parsed = built(results)
    assert len([tag for tag, _ in parsed.elements if tag == "script"]) == 2
    assert not [tag for tag, _ in parsed.elements if tag == "img"]
    assert "&lt;img src=x onerror=&#34;alert(2)&#34;&gt;" in text
    assert data_of(text)["detectors"]


def test_numbers_on_the_page_are_those_of_the_tables(results):
    text, _ = built(results)
    board = pd.read_csv(results / "leaderboard.csv").set_index("detector")
    data = data_of(text)
    assert data["detectors"] == list(board.index)
    assert set(data["boards"]) == {"|", "|model", "|optimizer", "digits|", "digits|model", "digits|optimizer"}
    # 2 + 2 harmful cases and one control; the detector `symptom` was judged on softmax_dim only
    assert data["boards"]["|"]["right"][0] == "1.00" and data["boards"]["|"]["right"][-1] == "4 + 1"
    assert data["boards"]["|model"]["right"][-1] == "2 + 1"
    assert data["boards"]["|"]["symptom"][-1] == "2 + 1"
    assert data["boards"]["|model"]["silent"][0] == "0.00"
    heat = data["heat"]["fault"]
    assert heat["names"] == ["softmax_dim", "lr_too_high"]  # by family
    places = [data["detectors"].index(name) for name in ("right", "symptom", "silent")]
    assert [[row[i] for i in places] for row in heat["values"]["right"]] == [[100, 0, 0], [100, None, 0]]
    assert [[row[i] for i in places] for row in heat["values"]["family_right"]] == [[100, 100, 0], [100, None, 0]]
    assert data["heat"]["control"]["values"]["flagged"][0][places[1]] == 100
    assert ["softmax_dim", "model", 2, 0] in data["confusion"]["symptom"]
    answers = pd.read_csv(results / "answers_and_times.csv").set_index("detector")
    assert answers.loc["symptom", ["cause", "symptom", "wrong"]].tolist() == [0, 1, 0]
    markdown = (results / "leaderboard.md").read_text()
    assert "judged on fewer: " in markdown
    assert re.search(r"^\| right .*\| 4 \+ 1 \| not told apart from silent, symptom \|$", markdown, re.MULTILINE)


def test_comparisons_in_words_and_from_both_sides():
    none = pd.DataFrame()
    tables = Tables(none, none, none)
    columns = ["detector", "other", "difference", "p", "told_apart"]
    rows = [("a", "b", 0.5, 0.01, True), ("a", "c", -0.2, 0.01, True), ("b", "c", 0.1, 0.6, False)]
    rows.append(("a", "d", math.nan, math.nan, False))  # they share no case
    vars(tables).update(comparisons=pd.DataFrame(rows, columns=columns), contestants=["a", "b", "c", "d"])
    words = {name: compared_words(found) for name, found in tables.compared.items()}
    assert words == {
        "a": "better than b, worse than c",
        "b": "worse than a, not told apart from c",
        "c": "better than a, not told apart from b",
        "d": "not compared",
    }
    assert (
        compared_words({"better than": ["a", "b", "c"], "worse than": ["d", "e"]}) == "better than 3, worse than d, e"
    )


def test_tables_are_written_beside_the_page(results):
    built(results)
    for name in ("by_fault", "by_family", "by_control", "confusion", "comparisons", "answers_and_times"):
        assert len(pd.read_csv(results / f"{name}.csv")), name
    assert not [path for path in results.iterdir() if path.name.startswith(".")], "a draft was left behind"


def test_redrawing_gives_the_same_bytes(results):
    first, _ = built(results)
    assert built(results)[0] == first


def test_diff_and_curves_come_from_the_stored_runs(results, catalogue):
    case = record("softmax_dim", workload="cancer_mlp", seed=7)
    store(results, case, {"right": "softmax_dim"})
    write_trace(results, "twin-7", "loss = cross_entropy(outputs)\n", [2.0, 1.0, 0.5])
    write_trace(results, "softmax_dim-7", "loss = nll_loss(outputs)\n", [2.0, math.inf, 1.0])
    text, _ = built(results, catalogue)
    # on digits the programs are gone; the section shows a workload with the largest effect, and these are equal
    assert "Softmax over the batch instead of the classes" in text
    assert "Fix: <code>dim=-1</code>, or <code>F.cross_entropy</code> on the raw scores." in text
    assert "<code>python -m bugbench bug=softmax_dim workload=cancer_mlp &#39;seeds=[7]&#39;</code>" in text
    assert '<span class="removed">-loss = cross_entropy(outputs)\n</span>' in text
    assert '<span class="added">+loss = nll_loss(outputs)\n</span>' in text
    assert "<code>lr</code>: <del>0.1</del> → <ins>0.5</ins>" in text
    assert text.count('<path class="line twin"') == text.count('<path class="line bug"') == 2
    assert "The programs are no longer stored." in text  # of the other bug


def test_damaged_and_skipped_cases_are_named(results):
    path = results / "runs" / "cases" / "digits" / "lr_too_high" / "seed-0" / "case.json"
    path.write_text(path.read_text()[:100])
    skipped = record("lr_too_low", "lr_too_low", oracle_bug=None, oracle_twin=None, skipped="no data")
    store(results, skipped, {"right": None}, status="skipped", reason="no data")
    text, _ = built(results)
    assert "Damaged and left out:" in text and "lr_too_high/seed-0" in text
    assert "Skipped, because the harness failed, 1 case: no data (digits/lr_too_low/seed-0)" in text


def test_faults_that_nobody_names_are_listed(results, catalogue):
    store(results, record("lr_too_low", "lr_too_low"), {"right": "lr_too_high", "prior": "lr_too_low", "silent": None})
    store(results, record("lr_too_high", "lr_too_high", seed=1), {"silent": "lr_too_low"})  # named, but not found
    leaderboard.build(results, Records(results).read(), catalogue)
    words = "1 of the 3 faults that do harm is found by nobody (on none of its cases is the first suspect of any "
    words += "detector right, baselines aside): "
    assert f"{words}`lr_too_low`." in (results / "leaderboard.md").read_text()
    assert f"{words}<code>lr_too_low</code>." in (results / "leaderboard.html").read_text()


def test_verdicts_of_two_versions_of_a_detector_are_told(results, catalogue):
    for seed, version in ((3, "0a1b-cc"), (4, "0a1b-dd")):  # what follows the first part is no other version
        store(results, record("lr_too_low", "lr_too_low", seed=seed), {"mine": None, "other": None}, version=version)
    leaderboard.build(results, Records(results).read(), catalogue)
    assert "more than one version" not in (results / "leaderboard.md").read_text()
    store(results, record("lr_too_low", "lr_too_low", seed=5), {"mine": None}, version="9f9f-cc")
    leaderboard.build(results, Records(results).read(), catalogue)
    words = "Verdicts by more than one version, or with different knobs, of mine."
    assert f"**{words}**" in (results / "leaderboard.md").read_text()
    assert words in (results / "leaderboard.html").read_text()


def test_verdicts_of_another_version_than_lies_here_are_told(results, catalogue):
    now = Judge("mode_check", (d := catalogue.detectors["mode_check"]).file, d.access, d.knobs).digest
    case = record("lr_too_low", "lr_too_low", seed=3)
    for version, told in ((now, False), ("0a1b", True), ("", False)):
        store(results, case, {"mode_check": None, "unknown_here": None}, version=version)
        leaderboard.build(results, Records(results).read(), catalogue)
        words = "**Verdicts by another version than lies here, or with other knobs, of mode_check.**"
        assert (words in (results / "leaderboard.md").read_text()) == told


def test_tool_that_is_not_installed_is_a_row_with_the_reason(results):
    case = record(seed=2)
    rows = [verdict(case.truth, "tool", "rerun", FAMILIES, status="not_installed", reason="pip install <it>")]
    Records(results).write(case, verdict_table(row | {"isolation": "namespaces"} for row in rows))
    board, _ = leaderboard.build(results, Records(results).read())
    assert board.iloc[-1][["detector", "cases", "not_installed"]].tolist() == ["tool", 0, 1]
    assert "- `tool`: pip install <it>" in (results / "leaderboard.md").read_text()
    assert "tool: <code>pip install &lt;it&gt;</code>" in (results / "leaderboard.html").read_text()


def test_terminal_counts_the_most_cases_and_names_who_fails(results, catalogue):
    store(results, record("lr_too_low", "lr_too_low"), {"silent": None})
    case = record("lr_too_low", "lr_too_low", seed=5)
    row = verdict(case.truth, "mine", "curves", FAMILIES, status="invalid", reason="no fault 7")
    Records(results).write(case, verdict_table([row | {"isolation": "namespaces"}]))
    cases = Records(results).read()
    board, _ = leaderboard.build(results, cases, catalogue)
    console = Console(width=160, record=True)
    leaderboard.show(board, console)
    leaderboard.show_failures(cases.verdicts, console)
    text = console.export_text()
    assert "Leaderboard: 5 harmful bug cases, 1 control case; 3 detectors judged on fewer" in text
    assert "mine: invalid in 1 of 1 cases: no fault 7" in text


def test_origin_of_detectors_is_shown(results, catalogue):
    case = record("lr_too_low", "lr_too_low")
    store(results, case, {"umlaut": "lr_too_low", "deepfd": None, "always_healthy": None})
    board, _ = leaderboard.build(results, Records(results).read(), catalogue)
    shown = {"umlaut": "published", "deepfd": "published, fitted", "always_healthy": "baseline", "right": ""}
    assert board.set_index("detector")["origin"].reindex(list(shown)).to_dict() == shown
    text = (results / "leaderboard.html").read_text()
    assert re.search(r'<tr data-detector="deepfd" data-tier="[a-z]+" data-origin="published">', text)
    assert '<option value="baseline"' in text
    assert '<option value="tool"' not in text


def test_damaged_traces_are_left_out(results):
    write_trace(results, "twin-0", "a = 1\n", [1.0, 0.5])
    write_trace(results, "softmax_dim-0", "a = 2\n", [1.0, 0.5])
    folder = results / "runs" / "traces" / "softmax_dim-0"
    (folder / "trace" / "steps.parquet").write_bytes(b"PAR1")
    (folder / "trace" / "config.yaml").write_text("lr: [")
    (folder / "outcome.json").write_text("{")
    text, _ = built(results)
    assert "The curves are no longer stored." in text
    assert '<span class="added">+a = 2\n</span>' in text
    assert math.isnan(StoredRuns(results).lengths([record()])["steps"].iloc[0])


@pytest.mark.parametrize(
    "case",
    [record(), record("reseeded", "none"), record(onset=None), record(crashed_bug=True, oracle_bug=None, error="E")],
)
def test_one_case_is_a_page(tmp_path, case):
    store(tmp_path, case, {"one": None})
    text, _ = built(tmp_path)
    assert "too few detectors or blocks" in text
    store(tmp_path, case, {"one": "softmax_dim", "two": None, "oracle": None})
    built(tmp_path)


def test_long_evidence_is_cut_before_the_page_grows_too_large(results, monkeypatch):
    store(results, record("nan_inputs", "nan_inputs"), {"right": "nan_inputs"}, evidence="word " * 200)
    text, _ = built(results)
    assert 200 < max(len(found) for found in re.findall(r"(?:word ?)+", text)) <= 400
    monkeypatch.setattr(page, "LARGEST", len(text.encode()) - 100)
    text, _ = built(results)
    assert max(len(found) for found in re.findall(r"(?:word ?)+", text)) <= 120


# -- drawings -------------------------------------------------------------------------------------------------------


def test_gaps_and_scale_of_a_curve():
    svg = drawing.curves("Loss", "step", [(0, 1.0), (1, 0.001)], [(0, 1.0), (1, math.nan), (2, 2.0)], {"bug": math.nan})
    assert "(log scale)" in svg
    (path,) = re.findall(r'<path class="line bug" d="([^"]*)"', svg)
    assert path.count("M") == 2, "a gap where the loss is not finite"
    assert "hidden" not in svg
    assert "<svg" in drawing.curves("Loss", "step", [], [], {"twin": None})


def test_staircase_goes_down_at_the_alarm():
    svg = drawing.staircases({"d<": kaplan_meier([2, 4], [True, False])}, 4, ["d<"])
    (steps,) = re.findall(r' d="([^"]*)"><title>d&lt;', svg)
    heights = [float(y) for _, y in re.findall(r"[ML](\S+) ([\d.]+)", steps)]
    assert heights[0] == heights[1] < heights[2] == heights[3]


def test_diagram_joins_what_is_not_told_apart():
    ranks = friedman(pd.DataFrame({"a": [3.0] * 30, "b": [2.0] * 30, "c": [2.0, 1.0] * 15}).to_numpy())
    svg = drawing.critical_difference_diagram(["a", "b", "c"], ranks)
    # mean ranks 1, 2.25 and 2.75; the critical difference is 2.3437 x sqrt(12 / 180) = 0.605, and b and c are
    # joined
    assert svg.count('class="join"') == 1
    assert [float(rank) for rank in re.findall(r">[abc] ([\d.]+)<", svg)] == [1.0, 2.25, 2.75]
    assert "critical difference 0.61" in svg
