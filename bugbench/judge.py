"""Judge stored traces again without training: ``python -m bugbench.judge [--detector NAME …] [--again]``.

For new or changed detectors: every stored case gets new verdicts, and the tables are rebuilt. Cases that are damaged
are named and left as they are; the exit status is then 1. With ``--trace FOLDER`` the detectors judge a trace of your
own instead, see :mod:`bugbench.own_trace`.
"""

import argparse
import sys
from collections.abc import Callable, Collection
from pathlib import Path

from bugbench import own_trace, panel
from bugbench.catalogue import Catalogue, load, search_path_of
from bugbench.declaration import detector_groups
from bugbench.integrity import Damaged, warn
from bugbench.isolation import LEVELS
from bugbench.job import exhibit, skipped_rows, verdict_rows
from bugbench.judging import Bench, Exhibit, Judge
from bugbench.judging_worker import JUDGE_MEMORY
from bugbench.known_impact import measured_impact
from bugbench.learning import Learning
from bugbench.names import unknown
from bugbench.pools import isolation_notices, judge_pool, secrets, train_pool
from bugbench.records import Records, results_folder
from bugbench.report import leaderboard
from bugbench.store import Store
from rich.console import Console
from rich.progress import track


def judges_of(catalogue: Catalogue, names: list[str] | None = None) -> list[Judge]:
    """Return the detectors of these names, or of these words for several of them, with their default knobs.

    Raises:
        LookupError: an unknown name, with the nearest right ones.
    """
    groups = detector_groups(catalogue.detectors)
    chosen = set()
    for name in names or ["all"]:
        if name not in catalogue.detectors and name not in groups:
            raise LookupError(unknown("detector", name, [*catalogue.detectors, *groups]))
        chosen |= {name} if name in catalogue.detectors else {*groups[name]}
    return [
        Judge(name, detector.file, detector.access, detector.knobs, detector.learns)
        for name, detector in catalogue.detectors.items()
        if name in chosen
    ]


def judge_again(
    results: Path,
    catalogue: Catalogue,
    judges: list[Judge],
    workers: int,
    again: bool,
    seconds: float = 60,
    isolation: str = "auto",
    memory: int = JUDGE_MEMORY,
    folders: Collection[str] | None = None,
) -> list[str]:
    """Judge every stored case whose trace is still whole; verdicts of other detectors, from wherever, are kept.

    Args:
        results: where the cases lie.
        catalogue: for the vocabulary.
        judges: the detectors.
        workers: how many judge at a time.
        again: take no stored diagnosis.
        seconds: that a diagnosis may take.
        isolation: how detectors are confined.
        memory: bytes that a diagnosis may use.
        folders: judge these cases alone. Those that learn learn from all that are stored.

    Returns:
        A line for each case that stays as it is, because it, its trace or its training data is damaged or gone, its
        verdicts could not be written, or another run of it has been stored meanwhile. A trace may be gone where every
        diagnosis asked for is stored.

    Raises:
        NotConfined: this machine does not offer the isolation asked for.
    """
    store = Store(results, train_pool(workers))
    bench = Bench(results, judge_pool(workers, isolation, secrets(catalogue, results), memory), seconds)
    if isolation != "auto":
        with bench.pool.borrow() as worker:
            worker.start()
    learning = Learning(results, store, bench, workers, measured_impact, again)
    records = Records(results)
    cases = records.read(folders)
    problems = records.damage(cases, catalogue.folders)
    shuffled = sorted(cases.records, key=lambda r: r.trace_key)  # what ran before is no clue to what comes next
    for record in track(shuffled, description="judging", transient=True):
        try:
            if record.skipped is None:
                taught = learning.taught(judges, record.workload, record.data)
                seen = exhibit(record, store)
                if again or seen.trace.exists() or not all(_needs_no_trace(bench, seen, judge) for judge in taught):
                    store.verify(record.trace_key, record.data)
                diagnoses = panel.judge_all(bench, seen, taught, workers, again)
                rows = verdict_rows(record, judges, diagnoses, catalogue.faults)
            else:
                rows = skipped_rows(record, judges, catalogue.faults)
            now = records.stored(record.folder)
            if now is not None and not now.same_run(record):
                problems.append(f"case {record.folder}: another run of it was stored meanwhile; judge again")
                continue
            records.join(record, rows)
        except (Damaged, OSError) as error:
            problem = str(error) if isinstance(error, Damaged) else f"{type(error).__name__}: {error}"
            problems.append(records.how_to_mend(record.folder, problem, catalogue.folders))
    return problems


def _needs_no_trace(bench: Bench, seen: Exhibit, judge: Judge) -> bool:
    untaught = judge.learns and judge.model.status != "ok"
    return untaught or bench.stored(seen, judge) is not None


def above_zero(kind: Callable[[str], float]) -> Callable[[str], float]:
    """Return what turns an option's text into a number of a kind, and refuses 0 and less."""

    def read(text: str) -> float:
        value = kind(text)
        if not value > 0:
            raise argparse.ArgumentTypeError(f"{text}: give a number above 0")
        return value

    return read


def main(arguments: list[str]) -> None:
    parser = argparse.ArgumentParser(prog="python -m bugbench.judge", description=__doc__)
    parser.add_argument(
        "--detector",
        nargs="+",
        metavar="NAME",
        help="only these detectors, or practice, published, tool, baseline, (no_)rerun, (not_)fitted (default: all)",
    )
    parser.add_argument("--again", action="store_true", help="do not take stored diagnoses")
    parser.add_argument("--results", type=Path, default=Path("results"))
    parser.add_argument("--search-path", nargs="+", default=search_path_of([]), metavar="FOLDER")
    parser.add_argument("--workers", type=above_zero(int), default=2, help="how many judge at a time")
    parser.add_argument("--seconds", type=above_zero(float), default=60, help="that a detector may take on one trace")
    parser.add_argument("--isolation", choices=["auto", *LEVELS], default="auto", help="how detectors are confined")
    parser.add_argument("--trace", type=Path, metavar="FOLDER", help="print what they say of a trace of your own")
    options = parser.parse_args(arguments)
    try:
        results_folder(options.results)
        catalogue = load(options.search_path)
        judges = judges_of(catalogue, options.detector)
        if options.trace:
            wanted = options.detector or [n for n, d in catalogue.detectors.items() if d.origin != "baseline"]
            judges = [judge for judge in judges if judge.name in wanted and "truth" not in judge.access]
            pool = judge_pool(options.workers, options.isolation, secrets(catalogue, options.results))
            own_trace.show(own_trace.judge_trace(options.trace, judges, pool, options.seconds), Console())
            return
        problems = judge_again(
            options.results, catalogue, judges, options.workers, options.again, options.seconds, options.isolation
        )
        for line in [*isolation_notices(), *problems]:
            warn(line)
        cases = Records(options.results).read()
        board, _ = leaderboard.build(options.results, cases, catalogue)
    except (LookupError, ValueError, OSError) as error:
        sys.exit(f"bugbench: {error}")
    leaderboard.show(board, Console())
    leaderboard.show_failures(cases.verdicts, Console())
    Console().print(leaderboard.wrote(options.results), highlight=False, soft_wrap=True)
    if problems:
        sys.exit(1)


if __name__ == "__main__":
    main(sys.argv[1:])
