"""``python -m bugbench.overhead [--workload NAME …] [--recorder NAME …] [--repeats N] [--results FOLDER]``."""

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
from rich.console import Console
from rich.progress import Progress
from rich.table import Table


def show(rows: Sequence[Overhead], console: Console) -> None:
    """Print the rows as a table."""
    table = Table(title="CPU time over the bare program's (median of pairs)", title_justify="left")
    for column in ("workload", "recorder"):
        table.add_column(column, no_wrap=True)
    for column in ("ratio", "95 % interval", "without writing", "pairs"):
        table.add_column(column, justify="right", overflow="fold")
    for row in rows:
        if row.ratio is None:
            table.add_row(row.workload, row.recorder, row.status, row.reason, "", "")
        else:
            interval = f"{row.low:.3f} … {row.high:.3f}"
            training = f"{row.training_ratio:.3f}"
            table.add_row(row.workload, row.recorder, f"{row.ratio:.3f}", interval, training, str(row.repeats))
    console.print(table)


def main(arguments: list[str]) -> None:
    parser = argparse.ArgumentParser(
        prog="python -m bugbench.overhead", description="Measure what recording costs, beside other tools."
    )
    parser.add_argument("--workload", nargs="+", metavar="NAME", help="only these workloads (default: all)")
    parser.add_argument("--recorder", nargs="+", metavar="NAME", help=f"only these of {', '.join(CONTENDERS)}")
    parser.add_argument("--repeats", type=int, default=15, metavar="N", help="pairs of runs (default: 15)")
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
    except (ValueError, LookupError) as error:
        sys.exit(f"bugbench: {error}")
    console = Console()
    rows: list[Overhead] = []
    pairs = (options.repeats + 1) * len(recorders)
    with Progress(console=console, transient=True) as progress:
        for workload in workloads:
            advance = partial(progress.advance, progress.add_task(workload.name, total=pairs))
            with tempfile.TemporaryDirectory() as folder:
                rows += measure(workload, recorders, options.repeats, Path(folder), advance)
            write_rows(rows, options.results / "overhead.csv")  # what is measured is not lost if the next is stopped
    show(rows, console)
    console.print(f"written to {options.results / 'overhead.csv'}", highlight=False)


if __name__ == "__main__":
    main(sys.argv[1:])
