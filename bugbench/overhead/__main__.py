"""``python -m bugbench.overhead``: what recording costs; with ``--sweep N``, what the harness does."""

import argparse
import sys
import tempfile
from collections.abc import Sequence
from functools import partial
from pathlib import Path

from bugbench.catalogue import load, search_path_of
from bugbench.names import UnknownName, unknown
from bugbench.overhead import Overhead, measure, write_rows
from bugbench.overhead.recorders import CONTENDERS
from bugbench.overhead.sweep import measure_sweep, sampled_runs
from rich.console import Console
from rich.progress import Progress
from rich.table import Table


def show(rows: Sequence[Overhead], title: str, console: Console) -> None:
    """Print the rows as a table."""
    table = Table(title=title, title_justify="left")
    for column in ("workload", "recorder"):
        table.add_column(column, no_wrap=True)
    for column in ("ratio", "95 % interval", "no writing", "pairs"):
        table.add_column(column, justify="right", overflow="fold", min_width=min(len(column), 13))
    for row in rows:
        if row.ratio is None:
            table.add_row(row.workload, row.recorder, row.status, row.reason, "", "")
        else:
            interval = f"{row.low:.3f} … {row.high:.3f}"
            training = "" if row.training_ratio is None else f"{row.training_ratio:.3f}"
            table.add_row(row.workload, row.recorder, f"{row.ratio:.3f}", interval, training, str(row.repeats))
    console.print(table)


def main(arguments: list[str]) -> None:
    parser = argparse.ArgumentParser(
        prog="python -m bugbench.overhead", description="Measure what recording costs, beside other tools."
    )
    parser.add_argument("--workload", nargs="+", metavar="NAME", help="only these workloads (default: all)")
    parser.add_argument("--recorder", nargs="+", metavar="NAME", help=f"only these of {', '.join(CONTENDERS)}")
    parser.add_argument("--repeats", type=int, default=15, metavar="N", help="pairs of runs (default: 15)")
    text = "instead, train N cases by the harness and as plain processes, and compare (50 take ten minutes)"
    parser.add_argument("--sweep", type=int, metavar="N", help=text)
    parser.add_argument("--results", type=Path, default=Path("results"), metavar="FOLDER")
    parser.add_argument("--search-path", nargs="+", default=search_path_of([]), metavar="FOLDER")
    options = parser.parse_args(arguments)
    try:
        if options.repeats < 1:
            raise ValueError(f"--repeats must be at least 1, not {options.repeats}")
        catalogue = load(options.search_path)
        workloads = [catalogue.workload(name) for name in dict.fromkeys(options.workload or catalogue.workloads)]
        recorders = list(dict.fromkeys(options.recorder or CONTENDERS))
        for name in recorders:
            if name not in CONTENDERS:
                raise UnknownName(unknown("recorder", name, CONTENDERS))
        runs = [] if options.sweep is None else sampled_runs(catalogue, options.sweep)
    except (ValueError, LookupError) as error:
        sys.exit(f"bugbench: {error}")
    console = Console()
    rows: list[Overhead] = []
    pairs = (options.repeats + 1) * len(recorders)
    with Progress(console=console, transient=True) as progress:
        if runs:
            advance = partial(progress.advance, progress.add_task("sweep", total=len(runs)))
            with tempfile.TemporaryDirectory() as folder:
                rows += measure_sweep(runs, Path(folder), advance)
            write_rows(rows, options.results / "overhead.csv")
        for workload in [] if runs else workloads:
            advance = partial(progress.advance, progress.add_task(workload.name, total=pairs))
            with tempfile.TemporaryDirectory() as folder:
                rows += measure(workload, recorders, options.repeats, Path(folder), advance)
            write_rows(rows, options.results / "overhead.csv")  # what is measured is not lost if the next is stopped
    title = "Wall time over the other's (sums)" if runs else "CPU time over the bare program's (median of pairs)"
    show(rows, title, console)
    console.print(f"written to {options.results / 'overhead.csv'}", highlight=False)


if __name__ == "__main__":
    main(sys.argv[1:])
