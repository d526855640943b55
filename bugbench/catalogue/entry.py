"""What there is to say of one name of the catalogue: ``python -m bugbench.catalogue softmax_dim``."""

from collections.abc import Callable, Mapping
from typing import Any

import pandas as pd
from bugbench.card import Card
from bugbench.catalogue import Catalogue, Workload
from bugbench.known_impact import choose_workloads
from bugbench.names import UnknownName, unknown
from bugbench.report.terminal import number, show_injection
from bugbench.report.wording import counted
from bugbench.runner import prepare
from bugbench.scoring import tier
from rich.console import Console
from rich.markdown import Markdown
from rich.markup import escape
from rich.table import Table


def show_entry(name: str, catalogue: Catalogue, impact: pd.DataFrame | None, console: Console) -> None:
    """Print all that the catalogue holds under ``name``: a bug or control, fault, family, workload or detector.

    Raises:
        UnknownName: there is nothing of that name, with the nearest ones.
    """
    kinds: Mapping[str, tuple[Mapping[str, Any], Callable[[], None]]] = {
        "bug": (catalogue.cards, lambda: _show_card(catalogue.card(name), catalogue, impact, console)),
        "fault": (catalogue.faults, lambda: _show_fault(name, catalogue, console)),
        "family": (catalogue.families, lambda: _show_family(name, catalogue, console)),
        "workload": (catalogue.workloads, lambda: _show_workload(catalogue.workload(name), catalogue, console)),
        "detector": (catalogue.detectors, lambda: _show_detector(name, catalogue, console)),
    }
    found = [kind for kind, (names, _) in kinds.items() if name in names]
    if not found:
        raise UnknownName(unknown("name", name, {n for names, _ in kinds.values() for n in names}))
    for kind in found:
        kinds[kind][1]()
        console.print()


def _show_card(card: Card, catalogue: Catalogue, impact: pd.DataFrame | None, console: Console) -> None:
    applicable = catalogue.applicable(card)
    shown = choose_workloads(card, "auto", catalogue, impact)[0]  # where `bug=` alone runs it
    show_injection(card, prepare(card, shown, 0), console)
    _facts(
        {
            "family": "" if card.control else catalogue.faults[card.fault]["family"],
            "also right": ", ".join(card.accepts),
            "may fool": ", ".join(card.fools),
            "knobs": ", ".join(f"bug.{k}={v}" for k, v in card.knobs.items()),
            "latent": card.latent,
            "sources": "; ".join(card.sources),
            "run it": f"python -m bugbench bug={card.id}",
        },
        console,
    )
    table = Table(title="What it does (mean of the matched seeds)", title_justify="left")
    for column in ("workload", "state", "hidden test", "claimed", "seeds"):
        table.add_column(column, justify="left" if column in ("workload", "state") else "right")
    rows = {} if impact is None else {r["workload"]: r for r in impact[impact["bug"] == card.id].to_dict("records")}
    for workload in applicable:
        row = rows.get(workload.name)
        figures = ["not measured", "", "", ""]
        if row is not None:
            pairs = [(row[f"{what}_twin"], row[f"{what}_bug"]) for what in ("oracle", "reported")]
            figures = [row["state"], *(" → ".join(map(_value, pair)) for pair in pairs), str(row["seeds"])]
        table.add_row(f"{workload.name} [dim](above)[/]" if workload is shown else workload.name, *figures)
    console.print(table)


def _show_fault(name: str, catalogue: Catalogue, console: Console) -> None:
    entry = catalogue.faults[name]
    console.print(f"[bold]{name}[/], a fault of the family {entry['family']}: {escape(entry['title'])}", soft_wrap=True)
    titles = {id: fields["title"] for id, fields in catalogue.cards.items() if fields["fault"] == name}
    _facts(titles or {"bugs": "none so far"}, console)


def _show_family(name: str, catalogue: Catalogue, console: Console) -> None:
    console.print(f"[bold]{name}[/], a family of faults: {escape(catalogue.families[name])}", soft_wrap=True)
    _facts({f: entry["title"] for f, entry in catalogue.faults.items() if entry["family"] == name}, console)


def _show_workload(workload: Workload, catalogue: Catalogue, console: Console) -> None:
    settings = workload.settings
    cards = [catalogue.card(id) for id in catalogue.cards]
    here = [card.control for card in cards if catalogue.why_not(card, workload) is None]
    console.print(f"[bold]{workload.name}[/], a workload")
    others = [v.label for kind in catalogue.variations.values() for v in kind.values() if workload.name in v.workloads]
    _facts(
        {
            "task": f"{settings['task']} of the data set {settings['dataset']}",
            "judged by": f"{settings['oracle']['metric']} on a hidden test, harm from {settings['oracle']['floor']}",
            "claims": f"{settings['report']['metric']} on {settings['report']['split']}",
            "traits": ", ".join(sorted(workload.traits)),
            "settings": ", ".join(f"{k}={v}" for k, v in workload.config.items()),
            "also with": ", ".join(others),
            "cards": f"{counted(here.count(False), 'bug')}, {counted(here.count(True), 'control')}",
            "program": str(workload.program),
        },
        console,
    )


def _show_detector(name: str, catalogue: Catalogue, console: Console) -> None:
    detector = catalogue.detectors[name]
    console.print(f"[bold]{name}[/], a detector")
    console.print(Markdown(detector.about))  # for its paragraphs and lists, at the terminal's width
    console.print()
    _facts(
        {
            "origin": detector.origin,
            "sees": f"{', '.join(sorted(detector.access))} ({tier(detector.access)})",
            "learns": "from runs of other workloads" if detector.learns else "",
            "knobs": ", ".join(f"{k}={v}" for k, v in detector.knobs.items()),
            "file": str(detector.file),
        },
        console,
    )


def _facts(facts: Mapping[str, str], console: Console) -> None:
    """Print names and what they stand for as two columns, those with nothing left out."""
    table = Table.grid(padding=(0, 2, 0, 0))
    table.add_column(style="bold", no_wrap=True)
    table.add_column(overflow="fold")
    for name, text in facts.items():
        if text:
            table.add_row(name, escape(" ".join(text.split())))
    console.print(table, highlight=False)


def _value(value: float) -> str:
    return "none" if pd.isna(value) else number(value)
