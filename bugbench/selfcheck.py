"""Does every bug bite, and is every control harmless? ``python -m bugbench.selfcheck [--seeds N] [--bug NAME …] …``

Trains every card on every workload it applies to beside its healthy twin, with matched seeds and no detector, and
rewrites ``impact.csv`` and ``CATALOGUE.md``. What is trained already is found on disk, so it can be stopped and go on.
"""

import argparse
import sys
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

import pandas as pd
from bugbench import atomic
from bugbench.card import Card
from bugbench.catalogue import Catalogue, load, search_path_of
from bugbench.impact import is_harmful
from bugbench.job import outcome_of, record_of
from bugbench.names import UnknownName, unknown
from bugbench.pools import train_pool
from bugbench.records import impact_of, merge_impact, read_impact
from bugbench.report.catalogue_page import page
from bugbench.report.tables import csv
from bugbench.runner import Case, prepare_seeds
from bugbench.store import HarnessFailure, Store
from rich.console import Console
from rich.progress import MofNCompleteColumn, Progress, TimeRemainingColumn


def cases_of(catalogue: Catalogue, bugs: Sequence[str], workloads: Sequence[str], seeds: int) -> list[Case]:
    """Return every case of these bugs on those of these workloads that they apply to."""
    chosen = [catalogue.workload(name) for name in workloads]
    return [
        case
        for card in map(catalogue.card, bugs)
        for workload in chosen
        if catalogue.why_not(card, workload) is None
        for case in prepare_seeds(card, workload, range(seeds))
    ]


def measure(
    cases: Sequence[Case], store: Store, catalogue: Catalogue, workers: int, on_trained: Callable[[], None]
) -> tuple[pd.DataFrame, list[str]]:
    """Train what is missing; return the cases' impact table, and a line for each case that could not be measured."""
    runs = {store.key(run): run for case in cases for run in (case.twin, case.run)}
    outcomes = store.train_all(runs.values(), workers, on_done=on_trained)
    records, problems = [], []
    for case in cases:
        try:
            bug, twin = outcome_of(case.run, outcomes, store), outcome_of(case.twin, outcomes, store, "healthy twin: ")
            records.append(record_of(case, bug, twin, store, catalogue))
        except HarnessFailure as failure:
            problems.append(f"{case.folder}: {failure}")
    return impact_of(records), problems


def complaints(cards: Iterable[Card], impact: pd.DataFrame) -> list[str]:
    """Return what is wrong with the catalogue: controls that do harm, bugs that do none and give no reason.

    A bug whose runs are the healthy twin's to the last bit (no onset) changes nothing there that could go wrong: its
    patterns fit the text of that program and not what it means.
    """
    lines = []
    for card in cards:
        rows = impact[impact["bug"] == card.id]
        harmful = {str(row.workload): str(row.state) for row in rows.itertuples() if is_harmful(str(row.state))}
        if card.control:
            lines += [f"control {card.id} is harmful on {workload}: {state}" for workload, state in harmful.items()]
        elif rows.empty:
            lines.append(f"bug {card.id} was measured on no workload")
        elif not harmful and not card.latent:
            lines.append(f"bug {card.id} does no harm on any workload; keep it only with a reason (`latent: …`)")
        elif harmful and card.latent:
            lines.append(f"bug {card.id} gives a reason for being latent, but does harm on {', '.join(harmful)}")
        if not card.control:
            same = rows.loc[rows["onset"].isna(), "workload"]
            lines += [f"bug {card.id} changes nothing on {name}: its card should not apply there" for name in same]
    return lines


def main(arguments: list[str]) -> None:
    parser = argparse.ArgumentParser(
        prog="python -m bugbench.selfcheck", description="Measure what every bug and every control does."
    )
    parser.add_argument("--bug", nargs="+", metavar="NAME", help="only these cards (default: all)")
    parser.add_argument("--workload", nargs="+", metavar="NAME", help="only on these workloads (default: all)")
    parser.add_argument("--seeds", type=int, default=5, metavar="N", help="matched seeds (default: 5)")
    parser.add_argument("--workers", type=int, default=2, metavar="N", help="programs trained at a time (default: 2)")
    parser.add_argument("--results", type=Path, default=Path("results"), metavar="FOLDER")
    parser.add_argument("--page", type=Path, default=Path("CATALOGUE.md"), metavar="FILE", help="where the page goes")
    parser.add_argument("--search-path", nargs="+", default=search_path_of([]), metavar="FOLDER")
    options = parser.parse_args(arguments)
    console = Console()
    try:
        for name in ("seeds", "workers"):
            if getattr(options, name) < 1:
                raise ValueError(f"--{name} must be at least 1, not {getattr(options, name)}")
        catalogue = load(options.search_path)
        for name in options.bug or []:
            if name not in catalogue.cards:
                raise UnknownName(unknown("bug", name, catalogue.cards))
        bugs, workloads = options.bug or [*catalogue.cards], options.workload or [*catalogue.workloads]
        cases = cases_of(catalogue, bugs, workloads, options.seeds)
    except (ValueError, LookupError) as error:
        sys.exit(f"bugbench: {error}")
    store = Store(options.results, train_pool(options.workers))
    columns = (*Progress.get_default_columns()[:2], MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console, transient=True) as progress:
        programs = {store.key(run) for case in cases for run in (case.run, case.twin)}
        bar = progress.add_task("programs", total=len(programs))
        impact, problems = measure(cases, store, catalogue, options.workers, lambda: progress.advance(bar))
    path = options.results / "impact.csv"
    impact = merge_impact(read_impact(path), impact)
    impact = impact[impact["bug"].isin(catalogue.cards) & impact["workload"].isin(catalogue.workloads)]
    cards, workloads_of = map(catalogue.card, impact["bug"]), map(catalogue.workload, impact["workload"])
    impact = impact[[catalogue.why_not(*pair) is None for pair in zip(cards, workloads_of, strict=True)]]
    atomic.write(path, csv(impact))
    atomic.write(options.page, page(catalogue, impact))
    measured = {case.card.id for case in cases} if options.workload else {*bugs}  # of the others nothing new is known
    for line in [*problems, *complaints(map(catalogue.card, sorted(measured)), impact)]:
        console.print(f"[yellow]complaint:[/] {line}", highlight=False, soft_wrap=True)
    console.print(f"{len(cases)} cases. Wrote {path} and {options.page}.", highlight=False, soft_wrap=True)
    sys.exit(1 if problems else 0)


if __name__ == "__main__":
    main(sys.argv[1:])
