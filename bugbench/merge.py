"""Take over published cases and verdicts: ``python -m bugbench.merge FOLDER … [--results FOLDER]``.

For sweeps that were split over machines without a common file system, for a sweep that goes on elsewhere, and to set a
detector of your own beside the verdicts that this project has published, without judging everything again. A folder is
any results folder with ``cases.parquet`` and ``verdicts.parquet`` (:mod:`bugbench.published`).

What lies in the results folder stays as it is; what is missing there is added, and an attempt there that failed for the
machine's sake gives way to a run that went well. Verdicts are joined to a case only if it is the same run with the same
truth. They are taken at their word.
"""

import argparse
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pandas as pd
from bugbench import published
from bugbench.integrity import write_sealed
from bugbench.judging import Bench
from bugbench.records import Cases, Record, Records, results_folder, verdict_rows
from bugbench.scoring import UNJUDGED
from bugbench.worker import WorkerPool
from rich.console import Console

FINAL = ("ok", "not_applicable", "invalid")  # statuses that another attempt would not change


class Merged(NamedTuple):
    """What a merge did.

    Attributes:
        added: cases that were not there, or only as an attempt that failed for the machine's sake.
        joined: cases that got further verdicts.
        different: cases left out, for here the same bug, workload and seed is another run, or has another truth.
        verdicts: taken over.
    """

    added: int = 0
    joined: int = 0
    different: int = 0
    verdicts: int = 0


def merge(source: Cases, results: Path) -> Merged:
    """Add the cases and verdicts of ``source`` to a results folder; cases that were skipped there are left out.

    Diagnoses are stored too, under the version of the detector that made them: judging again takes those that still
    hold. They come first, so that a merge that is cut short can be done again. Not so of runs that may have failed for
    a machine's sake.
    """
    records, bench = Records(results), Bench(results, WorkerPool([]))
    counts = dict.fromkeys(Merged._fields, 0)
    for record, theirs in _by_case(source):
        own = records.read([record.folder])
        here = next((r for r in own.records if r.skipped is None), None)
        if here is not None and here.trace_key == record.trace_key and here.transient != record.transient:
            if record.transient:
                continue
            here = None
        if here is not None and not here.same_run(record):
            counts["different"] += 1
            continue
        if not record.transient:
            _store_diagnoses(bench, record.trace_key, theirs)
        if here is None:
            records.write(record, theirs)
            counts["added"] += 1
        else:
            judged = own.verdicts[~own.verdicts["status"].isin(UNJUDGED)]
            theirs = theirs[~theirs["detector"].isin(judged["detector"]) & ~theirs["status"].isin(UNJUDGED)]
            if theirs.empty:
                continue
            records.join(here, theirs)
            counts["joined"] += 1
        counts["verdicts"] += len(theirs)
    return Merged(**counts)


def _by_case(source: Cases) -> Iterator[tuple[Record, pd.DataFrame]]:
    rows = dict(list(source.verdicts.groupby(["workload", "bug", "seed"])))
    for record in source.scored:
        yield record, rows.get((record.workload, record.bug, record.seed), source.verdicts[:0])


def _store_diagnoses(bench: Bench, key: str, verdicts: pd.DataFrame) -> None:
    for row in verdict_rows(verdicts):
        if row["version"] and row["status"] in FINAL:
            path = bench.diagnosis_path(key, row["detector"], row["version"])
            if not path.exists():
                said: dict[str, Any] = {n: row[n] for n in ("isolation", "status", "reason", "seconds", "alarm_step")}
                write_sealed(path, said | {"suspects": json.loads(row["suspects"])})


def main(arguments: list[str]) -> None:
    parser = argparse.ArgumentParser(
        prog="python -m bugbench.merge", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("sources", type=Path, nargs="+", metavar="FOLDER", help="with cases.parquet, verdicts.parquet")
    parser.add_argument("--results", type=Path, default=Path("results"), help="where to (default: results)")
    options = parser.parse_args(arguments)
    console = Console()
    try:
        results_folder(options.results)
        for folder in options.sources:
            done = merge(published.read(folder), options.results)
            text = f"{folder}: {done.added} cases added, {done.joined} got further verdicts; {done.verdicts} verdicts."
            if done.different:
                text += f" {done.different} left out: here they are another run, or have another truth."
            console.print(text, highlight=False, soft_wrap=True)
    except (ValueError, OSError) as error:
        sys.exit(f"bugbench: {error}")
    console.print("`python -m bugbench.report` makes the tables of all.", highlight=False, soft_wrap=True)


if __name__ == "__main__":
    main(sys.argv[1:])
