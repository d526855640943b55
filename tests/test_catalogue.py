"""Generic tests over the whole catalogue: whoever adds a card, a detector or a workload writes none of these."""

import ast
import json
import re
import subprocess
import sys
from pathlib import Path

import pytest
from bugbench.catalogue import apply, catalogue_of
from bugbench.catalogue.__main__ import listing, main
from bugbench.catalogue.hydra_groups import cards_by_family
from bugbench.declaration import detector_groups
from bugbench.detector import ORIGINS
from bugbench.judge import judges_of
from bugbench.known_impact import choose_workloads, reference_impact
from bugbench.runner import prepare

ROOT = Path(__file__).resolve().parent.parent
CATALOGUE = catalogue_of()
CARDS = {name: CATALOGUE.card(name) for name in CATALOGUE.cards}
PAIRS = [(card.id, w.name) for card in CARDS.values() for w in CATALOGUE.applicable(card)]
EDITED_PAIRS = [(bug, workload) for bug, workload in PAIRS if CARDS[bug].variants]
OTHER_PAIRS = [(b, w) for b in CARDS for w in CATALOGUE.workloads if (b, w) not in PAIRS]
NAMED_BY_THE_USER = [
    *("softmax_dim", "unshuffled_loader", "unshifted_lm_labels", "missing_normalization", "nan_inputs"),
    *("bad_augmentation", "label_leakage"),
]


@pytest.mark.parametrize(("bug", "workload"), PAIRS)
def test_card_changes_what_it_applies_to(bug: str, workload: str) -> None:
    case = prepare(CARDS[bug], CATALOGUE.workloads[workload], seed=3)
    changed = case.run.source != case.twin.source or case.config_changes
    assert bool(changed) == (bug != "none")
    if case.run.source != case.twin.source:
        ast.parse(case.run.source)
        assert case.lines, "an edited program has lines to blame"
        assert max(case.lines) <= len(case.run.source.splitlines())
        assert f"{workload}.py" in case.diff


@pytest.mark.parametrize(("bug", "workload"), EDITED_PAIRS)
def test_edited_program_betrays_nothing(bug: str, workload: str) -> None:
    """Nothing in the text tells that something was injected: no name of a bug, no new comment."""
    source = CATALOGUE.workloads[workload].source
    edited = apply(CARDS[bug], CATALOGUE.workloads[workload])[0].source
    added = [line for line in edited.splitlines() if line not in source.splitlines()]
    assert not [line for line in added if "#" in line]
    bugs = [card.id for card in CARDS.values() if not card.control]  # controls bear names of torch's own words
    assert not [name for name in bugs if re.search(rf"\b{name}\b", edited)]


@pytest.fixture(scope="module")
def reformatted(tmp_path_factory: pytest.TempPathFactory) -> str:
    """What ruff would change in the edited programs: all at once, since its start takes longer than a file."""
    folder = tmp_path_factory.mktemp("edited")
    for bug, workload in EDITED_PAIRS:
        edited = apply(CARDS[bug], CATALOGUE.workloads[workload])[0].source
        (folder / f"{bug}-{workload}.py").write_text(edited)
    command = [sys.executable, "-m", "ruff", "format", "--diff", "--no-cache", "--config", str(ROOT / "pyproject.toml")]
    done = subprocess.run([*command, str(folder)], text=True, capture_output=True, cwd=ROOT, check=False)
    assert done.returncode in (0, 1), done.stderr
    assert (done.returncode == 1) == bool(done.stdout)
    assert re.search(rf"(?<!\d){len(EDITED_PAIRS)} files? already", done.stderr) or done.stdout, done.stderr
    return done.stdout


@pytest.mark.parametrize(("bug", "workload"), EDITED_PAIRS)
def test_edited_program_is_formatted(bug: str, workload: str, reformatted: str) -> None:
    """A person's editor would have formatted it; an odd blank line would tell."""
    place = reformatted.find(f"/{bug}-{workload}.py")
    assert place < 0, reformatted[place : place + 3000]


@pytest.mark.parametrize(("bug", "workload"), OTHER_PAIRS)
def test_pair_that_does_not_apply_has_a_reason(bug: str, workload: str) -> None:
    reason = CATALOGUE.why_not(CARDS[bug], CATALOGUE.workloads[workload])
    assert reason
    assert bug in reason
    assert workload in reason


@pytest.mark.parametrize("bug", CARDS)
def test_card_is_complete(bug: str) -> None:
    card = CARDS[bug]
    assert len(card.about.split()) >= 12, "the card is the documentation: why, what is seen, how to fix"
    assert card.sources
    assert card.fault not in card.accepts
    text = (ROOT / "bugs" / f"{bug}.yaml").read_text()
    assert len(text.splitlines()) <= 60  # about 20; more only for variants
    assert any(bug == b for b, _ in PAIRS), "applies nowhere"
    if card.control and bug != "none":
        assert card.fools, "a control says which detector or rule it is known to fool"


@pytest.mark.parametrize("bug", [b for b, c in CARDS.items() if c.knobs])
def test_knob_reaches_the_program(bug: str) -> None:
    """Another value of a knob makes another program or config."""
    card = CARDS[bug]
    for name, value in card.knobs.items():
        other = {**CATALOGUE.cards[bug], name: value * 3 + 1 if isinstance(value, (int, float)) else f"{value}x"}
        workload = CATALOGUE.applicable(card)[0]
        changed = CATALOGUE.card(bug, other)
        assert (changed.variants, changed.config) != (card.variants, card.config)
        assert CATALOGUE.why_not(changed, workload) is None


def test_seven_named_bugs_and_enough_controls_are_there() -> None:
    assert set(NAMED_BY_THE_USER) <= set(CARDS)
    assert sum(card.control for card in CARDS.values()) >= 7


@pytest.mark.parametrize("name", CATALOGUE.detectors)
def test_detector_is_documented_and_small(name: str) -> None:
    detector = CATALOGUE.detectors[name]
    assert len(detector.about) >= 40
    assert len(detector.file.read_text().splitlines()) <= 120
    json.dumps(detector.knobs)  # knobs are plain values, so that a command line can set them


@pytest.mark.parametrize("name", CATALOGUE.workloads)
def test_workload_is_complete(name: str) -> None:
    workload = CATALOGUE.workloads[name]
    names = {
        node.name for node in ast.walk(ast.parse(workload.source)) if isinstance(node, (ast.FunctionDef, ast.ClassDef))
    }
    for role, places in workload.settings["roles"].items():
        for place in [places] if isinstance(places, str) else places:
            assert set(place.split(".")) <= names, f"role {role} names {place}"
    for key in workload.config:
        assert f"config.{key}" in workload.source, f"nothing reads the setting {key}"
    for key in re.findall(r"config\.(\w+)", workload.source):
        assert key in {*workload.config, "seed", "data_dir"}, f"the program reads config.{key}"


def test_impact_table_is_fresh_and_complete() -> None:
    """results/impact.csv was measured on the programs as they are now, with enough seeds to be significant."""
    impact = reference_impact(ROOT / "results")
    assert impact is not None
    rows = {(row.bug, row.workload): row for row in impact.itertuples()}
    for bug, workload in PAIRS:
        assert (bug, workload) in rows, f"run `python -m bugbench bug={bug} workload={workload} seeds=5`"
        row = rows[bug, workload]
        case = prepare(CARDS[bug], CATALOGUE.workloads[workload], seed=0)
        assert row.key == case.program_key, f"{bug} on {workload} has changed since it was measured"
        assert row.seeds >= 5
        assert not row.provisional


def test_controls_are_harmless_and_the_seven_bite() -> None:
    impact = reference_impact(ROOT / "results")
    assert impact is not None
    controls = impact[impact["bug"].isin([c.id for c in CARDS.values() if c.control])]
    assert controls.loc[controls["state"] != "latent", ["bug", "workload", "state"]].values.tolist() == []
    for bug in NAMED_BY_THE_USER:
        assert (impact.loc[impact["bug"] == bug, "state"] != "latent").any(), bug


def test_auto_takes_the_workload_on_which_the_bug_bites_hardest() -> None:
    impact = reference_impact(ROOT / "results")
    assert impact is not None
    (chosen,) = choose_workloads(CARDS["softmax_dim"], "auto", CATALOGUE, impact)
    effects = impact[impact["bug"] == "softmax_dim"].set_index("workload")["effect_share"]
    assert chosen.name == effects.idxmax()


def test_listing_has_what_tools_need(capsys: pytest.CaptureFixture[str]) -> None:
    main(["--format", "json"])
    data = json.loads(capsys.readouterr().out)
    assert set(data) == {"bugs", "faults", "workloads", "detectors", "suites", "cases"}
    assert {"id", "fault", "family", "control"} <= set(data["bugs"][0])
    assert {"bug": "softmax_dim", "workload": "digits_cnn", "state": "degraded"} in data["cases"]
    assert {d["id"] for d in data["detectors"]} >= {"oracle", "finite_checks", "loss_recomputation"}


def test_half_of_the_cases_of_a_suite_are_controls() -> None:
    """Counted by hand from the pairs: bugs five seeds and controls twelve in one, one and three in the other."""
    suites = {suite["id"]: suite for suite in listing(CATALOGUE)["suites"]}
    controls = sum(CARDS[bug].control for bug, _ in PAIRS)
    assert suites["full"]["bug_cases"] == 5 * (len(PAIRS) - controls)
    assert suites["full"]["control_cases"] == 12 * controls
    assert suites["quick"]["bug_cases"] == sum(not card.control for card in CARDS.values())
    assert suites["quick"]["control_cases"] == 3 * sum(card.control for card in CARDS.values())
    assert all(suite["control_share"] >= 0.45 for suite in suites.values())


def test_suites_of_families_hold_each_bug_once() -> None:
    suites = cards_by_family(CATALOGUE)
    assert sorted(name for names in suites.values() for name in names) == sorted(
        card.id for card in CARDS.values() if not card.control
    )
    assert "softmax_dim" in suites["model"]


def test_words_for_several_detectors(catalogue):
    groups = detector_groups(catalogue.detectors)
    assert sorted([*groups["rerun"], *groups["no_rerun"]]) == groups["all"] == sorted(catalogue.detectors)
    assert sorted([*groups["fitted"], *groups["not_fitted"]]) == groups["all"]
    assert groups["fitted"] == ["deepfd", "default_tree", "invariants"]
    assert sorted(name for word in ORIGINS for name in groups[word]) == groups["all"]
    assert {"debugging_plan", "anomaly_mode"} <= set(groups["rerun"])
    assert {"umlaut", "autotrainer"} <= set(groups["published"])
    asked = [judge.name for judge in judges_of(catalogue, ["baseline", "umlaut"])]
    assert sorted(asked) == sorted([*groups["baseline"], "umlaut"])


def test_a_detector_named_like_a_word_is_itself_what_the_word_stands_for(catalogue):
    detectors = {"tool": catalogue.detectors["umlaut"], "ruff": catalogue.detectors["ruff"]}
    both = ["ruff", "tool"]
    assert detector_groups(detectors) == {"all": both, "no_rerun": both, "not_fitted": both, "published": ["tool"]}
