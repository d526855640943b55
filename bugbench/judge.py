"""Judge stored traces again without training: ``python -m bugbench.judge [--detector NAME …] [--again]``.

For new or changed detectors: every stored case gets new verdicts, and the tables are rebuilt.
"""

import argparse
import sys
from pathlib import Path

import pandas as pd
from bugbench.catalogue import Catalogue, load, search_path_of
from bugbench.isolation import LEVELS
from bugbench.job import exhibit, judge_pool, secrets, train_pool, verdict_rows
from bugbench.judging import Bench, Judge
from bugbench.names import unknown
from bugbench.records import Record, Records
from bugbench.report import leaderboard
from bugbench.runner import Store
from rich.console import Console
from rich.progress import track


def judges_of(catalogue: Catalogue, names: list[str] | None = None) -> list[Judge]:
    """Return the detectors with their default knobs.

    Raises:
        LookupError: an unknown name, with the nearest right ones.
    """
    for name in names or []:
        if name not in catalogue.detectors:
            raise LookupError(unknown("detector", name, catalogue.detectors))
    return [
        Judge(name, detector.file, detector.access, detector.knobs)
        for name, detector in catalogue.detectors.items()
        if not names or name in names
    ]


def judge_again(
    results: Path,
    catalogue: Catalogue,
    judges: list[Judge],
    workers: int,
    again: bool,
    seconds: float = 60,
    isolation: str = "auto",
) -> list[Record]:
    """Judge every stored case whose trace is still there; verdicts of other detectors are kept."""
    store = Store(results, train_pool(workers))
    bench = Bench(results, judge_pool(workers, isolation, secrets(catalogue, results)), seconds)
    records = [r for r in Records(results).read() if (store.trace(r.trace_key) / "meta.json").exists()]
    records.sort(key=lambda r: r.trace_key)  # an order that tells nothing: what ran before is no clue to what comes next
    for record in track(records, description="judging", transient=True):
        pairs = [(exhibit(record, store), judge) for judge in judges]
        rows = verdict_rows(record, judges, bench.judge_all(pairs, workers, again), catalogue.faults)
        old = Records(results).verdicts([record])
        if len(old):
            names = [judge.name for judge in judges]
            kept = old[~old["detector"].isin(names) & old["detector"].isin(list(catalogue.detectors))]
            rows = pd.concat([kept, rows], ignore_index=True)
        Records(results).write(record, rows)
    return records


def main(arguments: list[str]) -> None:
    parser = argparse.ArgumentParser(prog="python -m bugbench.judge", description=__doc__)
    parser.add_argument("--detector", nargs="+", metavar="NAME", help="only these detectors (default: all)")
    parser.add_argument("--again", action="store_true", help="do not take stored diagnoses")
    parser.add_argument("--results", type=Path, default=Path("results"))
    parser.add_argument("--search-path", nargs="+", default=search_path_of([]), metavar="FOLDER")
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--isolation", choices=["auto", *LEVELS], default="auto", help="how detectors are confined")
    options = parser.parse_args(arguments)
    try:
        catalogue = load(options.search_path)
        judges = judges_of(catalogue, options.detector)
        how = {"workers": options.workers, "again": options.again, "isolation": options.isolation}
        records = judge_again(options.results, catalogue, judges, **how)
        board, _ = leaderboard.build(options.results, records)
    except (LookupError, ValueError) as error:
        sys.exit(f"bugbench: {error}")
    leaderboard.show(board, Console())


if __name__ == "__main__":
    main(sys.argv[1:])
