"""What is known of each case, on disk: case.json (measured truth) and verdicts.parquet, one folder per case.

::

    results/runs/cases/<workload>/<bug>/seed-<n>/case.json
    results/runs/cases/<workload>/<bug>/seed-<n>/verdicts.parquet

Every case has a folder of its own, so that many processes write without locks; tables are made by reading all.
"""

import io
import json
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import pandas as pd
from bugbench import atomic
from bugbench.impact import Oracle, measure_impact
from bugbench.scoring import Truth


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

    @property
    def folder(self) -> str:
        return f"{self.workload}/{self.bug}/seed-{self.seed}"

    @property
    def truth(self) -> Truth:
        names = ("bug", "fault", "family", "control", "workload", "seed", "onset", "lines", "accepts")
        return Truth(**{name: getattr(self, name) for name in names})


class Records:
    """All cases below ``results/runs/cases``."""

    def __init__(self, results: Path) -> None:
        self.root = results.resolve() / "runs" / "cases"

    def write(self, record: Record, verdicts: pd.DataFrame) -> None:
        """Store a case and its verdicts, each file in one step."""
        folder = self.root / record.folder
        atomic.write(folder / "case.json", json.dumps(asdict(record), indent=1) + "\n")
        buffer = io.BytesIO()
        verdicts.to_parquet(buffer, index=False)
        atomic.write(folder / "verdicts.parquet", buffer.getvalue())

    def read(self, folders: Iterable[str] | None = None) -> list[Record]:
        """Return the cases in ``folders`` (relative to the root; None = all), sorted."""
        chosen = self.root.glob("*/*/*") if folders is None else (self.root / folder for folder in folders)
        paths = [folder / "case.json" for folder in chosen]
        records = [Record(**json.loads(path.read_text())) for path in sorted(paths) if path.exists()]
        return sorted(records, key=lambda r: (r.workload, r.bug, r.seed))

    def verdicts(self, records: Iterable[Record]) -> pd.DataFrame:
        """Return the verdict rows of the given cases."""
        paths = [self.root / record.folder / "verdicts.parquet" for record in records]
        frames = [pd.read_parquet(path) for path in paths if path.exists()]
        return pd.concat(frames, ignore_index=True) if frames else pd.DataFrame()


def impact_of(records: Iterable[Record]) -> pd.DataFrame:
    """Return the impact table of the given cases; see :func:`bugbench.impact.measure_impact`."""
    records = list(records)
    rows = [{**asdict(r), "key": r.program_key} for r in records]
    oracles = {r.workload: Oracle(**r.oracle) for r in records}
    columns = ["bug", "workload", "seed", "onset", "oracle_bug", "oracle_twin", "reported_bug", "reported_twin"]
    return measure_impact(pd.DataFrame(rows, columns=[*columns, "crashed_bug", "key"]), oracles)


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
