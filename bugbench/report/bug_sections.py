"""A section of the page for each bug: its diff, its curves beside the healthy twin's, and what the detectors said."""

import json
import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import pandas as pd
from bugbench.catalogue import Catalogue
from bugbench.impact import is_harmful
from bugbench.records import Record, choice
from bugbench.report import drawing
from bugbench.report.stored_runs import StoredRuns
from bugbench.report.terminal import STATE_WORDS, judged
from bugbench.report.terminal import number as metric_text
from bugbench.scoring import UNJUDGED
from markupsafe import Markup

SIGNS = {"green": "good", "yellow": "half", "red": "bad"}
MOST_SUSPECTS = 3
Impact = dict[tuple[str, str], dict[Any, Any]]  # by bug and workload


@dataclass(frozen=True)
class Said:
    """What one detector said of the case that a section shows."""

    detector: str
    sign: str
    words: str
    suspects: str
    since: str
    evidence: str


@dataclass(frozen=True)
class Section:
    """What the page shows of a bug.

    Attributes:
        label: the bug's id, with the knobs that were changed.
        about: what the card tells of it.
        fault, family: "none" for a control.
        record: the case that is shown: the workload on which the bug does most, its first seed.
        states: a row for each workload: state, hidden test, and who named the fault: ``named`` as it is shown,
            ``names`` the detectors alone.
        diff, settings: what was changed; diff is None if the programs are no longer stored.
        figures: training loss and reported metric.
        said: by the detectors that spoke, the right ones first.
        silent, unable: names of those that said healthy, and of those that did not answer, with the reason.
    """

    label: str
    title: str
    about: str
    fault: str
    fault_title: str
    family: str
    record: Record
    harmful: bool
    states: Sequence[dict[str, str]]
    diff: Sequence[tuple[str, str]] | None
    settings: dict[str, tuple[Any, Any]]
    figures: Sequence[Markup]
    said: Sequence[Said]
    silent: Sequence[str]
    unable: dict[str, Sequence[str]]

    @property
    def command(self) -> str:
        """What runs the case that is shown."""
        return shlex.join(["python", "-m", "bugbench", *choice(self.record.folder)])


def sections(
    records: Sequence[Record],
    verdicts: pd.DataFrame,
    impact: pd.DataFrame,
    runs: StoredRuns,
    catalogue: Catalogue | None,
    faults: dict[str, dict[str, str]],
) -> list[Section]:
    """Return a section for each bug and each control, in the order of their names, bugs first."""
    measured: Impact = {(str(row["bug"]), str(row["workload"])): row for row in impact.to_dict("records")}
    judged_cases = {key: rows for key, rows in verdicts.groupby(["bug", "workload", "seed"])}
    found = []
    for label in sorted({r.bug for r in records}):
        own = sorted((r for r in records if r.bug == label), key=lambda r: (-_bite(r, measured), r.workload, r.seed))
        record = own[0]
        card = catalogue.cards.get(label.partition("(")[0]) if catalogue else None
        rows = judged_cases.get((label, record.workload, record.seed), verdicts.iloc[:0])
        states = [
            _state(label, workload, own, measured, judged_cases) for workload in dict.fromkeys(r.workload for r in own)
        ]
        found.append(
            Section(
                label=label,
                title=str(card["title"]) if card else "",
                about=" ".join(str(card["about"]).split()) if card else "",
                fault=record.fault,
                fault_title=faults.get(record.fault, {}).get("title", ""),
                family=record.family,
                record=record,
                harmful=any(is_harmful(state["state"]) for state in states),
                states=states,
                diff=_diff_lines(runs.diff(record)),
                settings=runs.settings(record),
                figures=_figures(record, runs, catalogue),
                **_statements(rows),
            )
        )
    return sorted(found, key=lambda section: (section.record.control, section.label))


def _bite(record: Record, measured: Impact) -> float:
    row = measured[record.bug, record.workload]
    low, high = record.oracle["bounds"]
    harm = max(float(row["effect_share"]), abs(float(row["report_shift"])) / (high - low))
    return is_harmful(str(row["state"])) * 1.0 + harm


def _state(
    label: str, workload: str, records: Sequence[Record], measured: Impact, judged_cases: dict[Any, pd.DataFrame]
) -> dict[str, str]:
    row, own = measured[label, workload], [r for r in records if r.workload == workload]
    rows = [judged_cases[key] for r in own if (key := (label, workload, r.seed)) in judged_cases]
    verdicts = pd.concat(rows) if rows else pd.DataFrame(columns=["detector", "access", "status", "alarm", "exact"])
    verdicts = verdicts[(verdicts["access"] != "truth") & ~verdicts["status"].isin(UNJUDGED)]
    alarms = verdicts[verdicts["alarm"].astype(bool)]
    named = alarms if own[0].control else alarms[alarms["exact"].astype(bool)]
    counts = named["detector"].value_counts(sort=False).sort_values(ascending=False, kind="stable")
    asked = verdicts["detector"].value_counts()
    names = [str(name) for name in counts.index]
    texts = [f"{name} {counts[name]}/{asked[name]}" for name in names] if len(own) > 1 else names
    state = str(row["state"])
    result = "crashed" if state == "crashed" else metric_text(row["oracle_bug"])
    words = ", ".join(STATE_WORDS[part] for part in state.split("+"))
    if state == "latent" and float(row["effect"]) > 0 and not row["provisional"]:
        words += f" (p = {float(row['p']):.2g} over {row['seeds']} seeds)"
    return {
        "workload": workload,
        "state": state,
        "words": words,
        "hidden": f"{metric_text(row['oracle_twin'])} → {result}",
        "metric": str(own[0].oracle["metric"]),
        "seeds": str(len(own)),
        "named": ", ".join(texts) or "nobody",  # of several seeds, in how many of those that the detector was judged on
        "names": ", ".join(names) or "nobody",
    }


def _diff_lines(text: str | None) -> list[tuple[str, str]] | None:
    """Return the lines of a diff, each with the class that colours it."""
    if text is None:
        return None
    kinds = {"+": "added", "-": "removed", "@": "place"}
    lines = text.splitlines()
    return [("file" if number < 2 else kinds.get(line[:1], "kept"), line) for number, line in enumerate(lines)]


def _figures(record: Record, runs: StoredRuns, catalogue: Catalogue | None) -> list[Markup]:
    """Return training loss and reported metric as far as both runs are still stored."""
    workload = catalogue.workloads.get(record.workload.partition("(")[0]) if catalogue else None
    report = (workload.settings["report"]["split"], workload.settings["report"]["metric"]) if workload else None
    twin, bug = (runs.curves(key, report) for key in (record.twin_key, record.trace_key))
    if twin is None or bug is None:
        return []
    onset = None if record.onset is None else float(record.onset)
    figures = [drawing.curves("Training loss", "step", twin.loss, bug.loss, {}, onset)]
    if report and (twin.metric or bug.metric):
        low, high = record.oracle["bounds"]
        hidden = {"twin": record.oracle_twin, "bug": record.oracle_bug}
        levels = {k: None if v is None else min(max(v, low), high) for k, v in hidden.items()}
        title = f"{record.oracle['metric']}, reported ({report[0]}) and hidden test"
        figures.append(drawing.curves(title, "epoch", twin.metric, bug.metric, levels))
    return figures


def _statements(rows: pd.DataFrame) -> dict[str, Any]:
    """Return who spoke, who was silent, and who could not answer."""
    said: list[Said] = []
    silent: list[str] = []
    unable: dict[str, list[str]] = {}
    ordered = rows.sort_values(["exact", "top3", "family_right", "alarm", "detector"], ascending=[False] * 4 + [True])
    for row in ordered.to_dict("records"):
        suspects = json.loads(row["suspects"])
        if row["status"] != "ok":
            reason = f"{row['status'].replace('_', ' ')}: {row['reason']}".rstrip(": ")
            unable.setdefault(reason, []).append(row["detector"])
        elif not suspects:
            silent.append(row["detector"])
        else:
            colour, words = judged(pd.Series(row))
            line = f"line {suspects[0]['line']}: " if suspects[0]["line"] else ""
            layer = f"{suspects[0]['layer']}: " if suspects[0]["layer"] else ""
            since = "" if pd.isna(row["alarm_step"]) else str(row["alarm_step"])
            names = ", ".join(suspect["fault"] for suspect in suspects[:MOST_SUSPECTS])
            evidence = line + layer + suspects[0]["evidence"]
            said.append(Said(row["detector"], SIGNS[colour], words, names, since, evidence))
    return {"said": said, "silent": silent, "unable": unable}
