"""CATALOGUE.md: every card with its story, its diff, and what it was measured to do."""

from collections.abc import Sequence

import pandas as pd
from bugbench.card import Card
from bugbench.catalogue import Catalogue
from bugbench.impact import is_harmful
from bugbench.known_impact import choose_workloads
from bugbench.runner import prepare


def page(catalogue: Catalogue, impact: pd.DataFrame) -> str:
    """Return the page as Markdown.

    Args:
        catalogue: its cards, workloads and faults.
        impact: a row for each bug and workload, see :func:`bugbench.impact.measure_impact`.
    """
    cards = [catalogue.card(name) for name in catalogue.cards]
    bugs, controls = [c for c in cards if not c.control], [c for c in cards if c.control]
    states = {name: rows for name, rows in impact.groupby("bug")}
    harmful = [c for c in bugs if _bites(states.get(c.id))]
    faults = {c.fault for c in bugs}
    families: dict[str, list[Card]] = {}
    for card in sorted(bugs, key=lambda c: (c.fault, c.id)):
        families.setdefault(catalogue.faults[card.fault]["family"], []).append(card)
    text = [
        "# Catalogue",
        "",
        "Made by `python -m bugbench.selfcheck`; do not edit.",
        "",
        f"{len(bugs)} bugs for {len(faults)} faults and {len(controls)} controls on {len(catalogue.workloads)} "
        f"workloads. {len(harmful)} of the bugs ({_percent(len(harmful), len(bugs))}) do harm on at least one of them.",
        "",
        *_overview(families, states),
        "",
        "How to read the tables: *state* is `crashed`, `degraded` (the hidden-test result is worse than the healthy "
        "twin's), `inflated` or `understated` (the program's own report is rosier or gloomier than the hidden test "
        "bears out), or `latent` (none of these). *Hidden test* is the twin's result → the bug's, mean over matched "
        "seeds; *report shift* is how much rosier the report became; *onset* is the training step at which the run "
        "leaves its twin's track.",
    ]
    for family, members in sorted(families.items()):
        text += ["", f"## {family}: {catalogue.families[family]}"]
        for card in members:
            text += ["", *_entry(card, catalogue, impact)]
    text += ["", "## Controls: nothing is wrong"]
    for card in sorted(controls, key=lambda c: c.id):
        text += ["", *_entry(card, catalogue, impact)]
    return "\n".join(text) + "\n"


def _overview(families: dict[str, list[Card]], states: dict) -> list[str]:
    rows = ["| family | faults | bugs | harmful | latent |", "| --- | ---: | ---: | ---: | --- |"]
    for family, members in sorted(families.items()):
        latent = [c.id for c in members if not _bites(states.get(c.id))]
        named = ", ".join(f"`{name}`" for name in latent)
        faults = len({c.fault for c in members})
        rows.append(f"| {family} | {faults} | {len(members)} | {len(members) - len(latent)} | {named} |")
    return rows


def _bites(rows: pd.DataFrame | None) -> bool:
    return rows is not None and any(is_harmful(str(state)) for state in rows["state"])


def _entry(card: Card, catalogue: Catalogue, impact: pd.DataFrame) -> list[str]:
    """Return what stands about one card."""
    fault = [] if card.control else [f"**fault** `{card.fault}`"]
    accepts = [f"**accepted too** {', '.join(f'`{fault}`' for fault in card.accepts)}"] if card.accepts else []
    knobs = [f"**knobs** {', '.join(f'`{k}={v}`' for k, v in card.knobs.items())}"] if card.knobs else []
    fools = [f"**fools** {'; '.join(card.fools)}"] if card.fools else []
    latent = [f"**kept although latent** {card.latent}"] if card.latent else []
    text = [f"### {card.id}", "", f"{card.title}.", "", card.about]
    if facts := [*fault, *accepts, *knobs, *fools, *latent]:
        text += ["", " · ".join(facts)]
    text += ["", *_impact_table(impact[impact["bug"] == card.id])]
    text += ["", *_diff(card, catalogue, impact), "", f"Sources: {'; '.join(card.sources)}"]
    return text


def _impact_table(rows: pd.DataFrame) -> list[str]:
    table = ["| workload | state | hidden test | report shift | onset |", "| --- | --- | ---: | ---: | ---: |"]
    for row in rows.to_dict("records"):
        hidden = "no result" if row["crashed"] == 1 else f"{row['oracle_twin']:.3f} → {row['oracle_bug']:.3f}"
        shift = "" if row["crashed"] == 1 else f"{row['report_shift']:+.3f}"
        onset = "never" if pd.isna(row["onset"]) else f"{row['onset']:.0f}"
        table.append(f"| {row['workload']} | {row['state']} | {hidden} | {shift} | {onset} |")
    return table


def _diff(card: Card, catalogue: Catalogue, impact: pd.DataFrame) -> Sequence[str]:
    """Return the diff on the workload on which the card does most."""
    (workload,) = choose_workloads(card, "auto", catalogue, impact)
    case = prepare(card, workload, 0)
    lines = []
    if case.diff:
        lines += ["```diff", case.diff.rstrip("\n"), "```"]
    if case.config_changes:
        changes = ", ".join(f"`{name}: {a}` → `{b}`" for name, (a, b) in case.config_changes.items())
        lines += [f"Settings on {workload.name}: {changes}"]
    return lines or ["Nothing is changed."]


def _percent(part: int, whole: int) -> str:
    return f"{round(100 * part / whole)} %" if whole else "none"
