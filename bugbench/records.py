"""What is known of each case, on disk: its measured truth and its verdicts, one sealed file per case.

::

    results/runs/cases/<workload>/<bug>/seed-<n>/case.json

Every case has a folder of its own, so that many processes write without locks; tables are made by reading all.
"""

import math
import os
import shlex
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import pandas as pd
from bugbench import integrity
from bugbench.impact import Oracle, measure_impact
from bugbench.integrity import Damaged
from bugbench.scoring import VERDICT_TYPES, Truth, delay_of, verdict_table

MEASURED = (  # fields of a record that are known when its programs have run
    *("onset", "trace_key", "twin_key", "data", "oracle_bug", "oracle_twin", "reported_bug", "reported_twin"),
    *("crashed_bug", "error", "seconds_bug", "seconds_twin", "steps", "transient", "skipped"),
)


@dataclass(frozen=True)
class Record:
    """The measured truth of a case.

    Attributes:
        bug, fault, family, control, workload, seed, onset, lines, accepts: see :class:`bugbench.scoring.Truth`.
        trace_key, twin_key: names of the traces of bug and twin.
        program_key: stands for the programs and configs of both, the seed left out.
        data: name of the training data's folder.
        oracle_bug, oracle_twin, reported_bug, reported_twin: metrics; None where there is none.
        crashed_bug: whether the run of the bug raised.
        error: the last line of its traceback.
        seconds_bug, seconds_twin: wall time of the programs.
        oracle: the workload's oracle settings.
        steps: training batches of the bug's run; None where an older version did not write them down.
        transient: whether the run failed for what may lie in the machine, so that the next attempt trains it again.
        skipped: why nothing is known of the case: the harness failed, not the program; else None.
    """

    bug: str
    fault: str
    family: str
    control: bool
    workload: str
    seed: int
    onset: int | None
    lines: list[int]
    accepts: list[str]
    trace_key: str
    twin_key: str
    program_key: str
    data: str
    oracle_bug: float | None
    oracle_twin: float | None
    reported_bug: float | None
    reported_twin: float | None
    crashed_bug: bool
    error: str | None
    seconds_bug: float
    seconds_twin: float
    oracle: dict[str, Any]
    steps: int | None = None
    transient: bool = False
    skipped: str | None = None

    @property
    def folder(self) -> str:
        return f"{self.workload}/{self.bug}/seed-{self.seed}"

    @property
    def truth(self) -> Truth:
        names = ("bug", "fault", "family", "control", "workload", "seed", "onset", "lines", "accepts")
        return Truth(**{name: getattr(self, name) for name in names})

    def same_programs(self, other: "Record") -> bool:
        """Tell whether two records are of the same card and programs, whatever came of them."""
        return replace(self, **{name: getattr(other, name) for name in MEASURED}) == other

    def same_run(self, other: "Record") -> bool:
        """Tell whether a verdict on the one is one on the other: the same trace, held against the same truth.

        An attempt that failed for the machine's sake has the trace's name, but ended elsewhere.
        """
        ended = [(r.transient, r.steps if r.transient else None) for r in (self, other)]
        return ended[0] == ended[1] and (self.trace_key, self.truth) == (other.trace_key, other.truth)


@dataclass(frozen=True)
class Cases:
    """Stored cases, read.

    Attributes:
        records: sorted by workload, bug and seed; cases that were skipped are among them.
        verdicts: the rows of all of them, see :data:`bugbench.scoring.VERDICT_TYPES`.
        damaged: the cases that could not be read.
    """

    records: list[Record]
    verdicts: pd.DataFrame
    damaged: list[Damaged]

    @property
    def scored(self) -> list[Record]:
        """Those of which something is known: all that were not skipped."""
        return [record for record in self.records if record.skipped is None]


class Records:
    """All cases below ``results/runs/cases``."""

    def __init__(self, results: Path) -> None:
        self.root = results.resolve() / "runs" / "cases"

    def write(self, record: Record, verdicts: pd.DataFrame) -> None:
        """Store a case with its verdicts in one step."""
        content = {"record": asdict(record), "verdicts": verdict_rows(verdicts)}
        integrity.write_sealed(self.root / record.folder / "case.json", content)

    def join(self, record: Record, verdicts: pd.DataFrame) -> None:
        """Store a case; what other detectors said of the same run stays, also if it was stored a moment ago."""
        stored = self.read([record.folder])
        if any(known.same_run(record) for known in stored.records):
            others = stored.verdicts[~stored.verdicts["detector"].isin(verdicts["detector"])]
            verdicts = pd.concat([others, verdicts], ignore_index=True)
        self.write(record, verdicts)

    def stored(self, folder: str) -> Record | None:
        """Return the case in ``folder``, or None if none is there that can be read."""
        return next(iter(self.read([folder]).records), None)

    def read(self, folders: Iterable[str] | None = None) -> Cases:
        """Return the cases in ``folders`` (relative to the root; None = all that there are)."""
        chosen = self.root.glob("*/*/*") if folders is None else (self.root / folder for folder in folders)
        records: list[Record] = []
        rows: list[dict[str, Any]] = []
        damaged = []
        for path in sorted(folder / "case.json" for folder in chosen):
            try:
                content = integrity.read_sealed(path)
                record, verdicts = checked(path, content)
            except FileNotFoundError:
                continue
            except Damaged as error:
                damaged.append(error)
            else:
                records.append(record)
                rows += verdicts
        records.sort(key=lambda r: (r.workload, r.bug, r.seed))
        return Cases(records, verdict_table(rows), damaged)

    def damage(self, cases: Cases, search_path: Sequence[Path] = ()) -> list[str]:
        """Return a line for each damaged case, with the command that makes it again; see :meth:`how_to_mend`."""
        return [
            self.how_to_mend(str(error.path.parent.relative_to(self.root)), f"left out: {error}", search_path)
            for error in cases.damaged
        ]

    def how_to_mend(self, folder: str, problem: str, search_path: Sequence[Path] = ()) -> str:
        """Return a line that says what is wrong with the case in ``folder``, and the command that makes it again.

        Args:
            folder: relative to the root.
            problem: what is wrong.
            search_path: folders from outside the project in which bug and workload may lie.
        """
        *words, seed = choice(folder)
        if (results := self.root.parent.parent) != Path("results").resolve():
            words.append(f"results={results}")
        if search_path:
            words.append(f"search_path=[{','.join(map(str, search_path))}]")
        command = shlex.join(["python", "-m", "bugbench", *words, seed])
        return f"case {folder}: {problem}; to make it again: {command}"


def choice(folder: str) -> list[str]:
    """Return what chooses the case in a folder on the command line, the seed last."""
    workload, label, seed = Path(folder).parts
    bug, _, knobs = label.rstrip(")").partition("(")
    name, _, overrides = workload.rstrip(")").partition("(")
    settings = [setting for setting in overrides.split(",") if setting]
    return [
        *(f"bug={bug}", *(f"bug.{knob}" for knob in knobs.split(",") if knob), f"workload={name}"),
        *(s if s.startswith(("data=", "model=")) else f"workload.config.{s}" for s in settings),
        f"seeds=[{seed.removeprefix('seed-')}]",
    ]


def results_folder(path: Path) -> Path:
    """Return where results lie as an absolute path.

    Raises:
        NotADirectoryError: a file is in the way.
        PermissionError: this user cannot write there.
    """
    path = path.absolute()
    there = next(p for p in (path, *path.parents) if p.exists())
    if not there.is_dir():
        raise NotADirectoryError(f"results: {there} is a file; give a folder")
    if not os.access(there, os.W_OK | os.X_OK):
        raise PermissionError(f"results: {there} cannot be written by this user; give a folder that can")
    return path


def _delay(row: Mapping[str, Any]) -> float:
    onset = math.nan if row["onset"] is None else float(row["onset"])
    return math.nan if row["control"] else delay_of(row["alarm_step"], onset, row["access"])


def verdict_rows(verdicts: pd.DataFrame) -> list[dict[str, Any]]:
    """Return verdicts as plain JSON values: None for what is missing, NaN for a number that is none."""
    columns = {
        name: [None if value is pd.NA else value for value in verdicts[name].astype(object)] for name in VERDICT_TYPES
    }
    return [dict(zip(columns, values, strict=True)) for values in zip(*columns.values(), strict=True)]


def checked(path: Path, content: Any) -> tuple[Record, list[dict[str, Any]]]:
    """Return what a case's file holds, or raise Damaged if it is of a version that wrote something else."""
    try:
        record = Record(**content["record"])
        # older versions did not say how isolated, by which version of the detector, and took an alarm from the program,
        # before the onset, for none
        verdicts = [{"isolation": "", "version": "", **row} for row in content["verdicts"]]
        verdicts = [row | {"delay": _delay(row)} for row in verdicts]
    except (KeyError, TypeError) as error:
        raise Damaged(path, f"not what this version writes: {error}") from error
    for row in verdicts:
        if different := set(row) ^ set(VERDICT_TYPES):
            raise Damaged(path, f"not what this version writes: {sorted(different)[0]}")
    return record, verdicts


def impact_of(records: Iterable[Record]) -> pd.DataFrame:
    """Return the impact table of the given cases, skipped ones left out; see :func:`bugbench.impact.measure_impact`.

    Each bug is read with the oracle settings under which it was measured: of a workload whose settings were changed,
    other cases may still be of the time before.

    Raises:
        ValueError: the seeds of one bug on one workload were measured under different settings.
    """
    groups: dict[str, list[Record]] = {}
    settings: dict[tuple[str, str], Record] = {}
    for record in (r for r in records if r.skipped is None):
        first = settings.setdefault((record.workload, record.bug), record)
        if first.oracle != record.oracle:
            raise ValueError(
                f"{first.folder} and seed {record.seed} were measured under different oracle settings, {first.oracle} "
                f"and {record.oracle}: run both seeds again, or delete the folder of the older one"
            )
        groups.setdefault(f"{record.workload}: {sorted(record.oracle.items())}", []).append(record)
    columns = ["bug", "workload", "seed", "onset", "oracle_bug", "oracle_twin", "reported_bug", "reported_twin"]

    def table(own: Sequence[Record]) -> pd.DataFrame:
        rows = [{**asdict(r), "key": r.program_key} for r in own]
        runs = pd.DataFrame(rows, columns=[*columns, "crashed_bug", "key"])
        return measure_impact(runs, {r.workload: Oracle(**r.oracle) for r in own[:1]})

    tables = [table(own) for own in groups.values()] or [table([])]
    return pd.concat(tables).sort_values(["bug", "workload"], ignore_index=True)


def merge_impact(known: pd.DataFrame | None, measured: pd.DataFrame) -> pd.DataFrame:
    """Return ``known`` with the measured rows in it.

    A row measured with fewer seeds does not replace one of the same programs (equal ``key``) with more.
    """
    if known is None or known.empty:
        return measured
    names = ["bug", "workload"]
    both = measured.merge(known[[*names, "key", "seeds"]], on=names, how="left", suffixes=("", "_known"))
    better = (both["key"] == both["key_known"]) & (both["seeds_known"] > both["seeds"])
    fresh = measured[~better.to_numpy()]
    rest = known[~known.set_index(names).index.isin(fresh.set_index(names).index)]
    return pd.concat([f for f in (rest, fresh) if len(f)]).sort_values(names, ignore_index=True)


def read_impact(path: Path) -> pd.DataFrame | None:
    """Return a stored impact table, or None if there is none."""
    return pd.read_csv(path, dtype={"key": str}) if path.exists() else None
