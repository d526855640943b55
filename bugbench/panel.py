"""Have many detectors judge one trace in one process: to fork and confine one for each takes longer than to ask it.

That is for the project's own detectors alone that only read, which are known to leave a process as they found it: those
that run programs again, tools and plugins have a process each, and so has whoever failed here. A panel sees one folder,
which holds what each of its members declares: those with another access sit on another.
"""

import json
import sys
from collections.abc import Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

import pandas as pd
from bugbench.answers import complete
from bugbench.declaration import read_declaration
from bugbench.integrity import write_sealed
from bugbench.judging import Bench, Exhibit, Judge, prefixes
from bugbench.plugins import project_folder
from bugbench.runner import digest
from bugbench.trace import export
from bugbench.worker import TimedOut, WorkerDied

Answer = dict[str, Any]


def judge_all(
    bench: Bench, exhibit: Exhibit, judges: Sequence[Judge], workers: int, again: bool = False
) -> list[Answer]:
    """Return what each judge says of an exhibit, as :meth:`~bugbench.judging.Bench.judge` does, and store it.

    Raises:
        NotConfined: no judging process can be started at the level asked for.
    """
    panels: dict[frozenset[str], list[Judge]] = {}
    for judge in judges:
        if _sits(judge.file) and not judge.learns and (again or bench.stored(exhibit, judge) is None):
            panels.setdefault(judge.access, []).append(judge)
    several = [panel for panel in panels.values() if len(panel) > 1]
    heard = dict(
        said for answers in bench.pool.run(lambda p: _hear(bench, exhibit, p), several, workers) for said in answers
    )
    alone = [(exhibit, judge) for judge in judges if judge.name not in heard]
    others = iter(bench.judge_all(alone, workers, again))
    return [heard[judge.name] if judge.name in heard else next(others) for judge in judges]


@lru_cache
def _sits(detector: Path) -> bool:
    """Tell whether a detector may share a process. Where none is forked, all of them share one as it is."""
    if sys.platform != "linux" or detector.resolve().parent != project_folder("detectors").resolve():
        return False
    declared = read_declaration(detector)
    return declared.origin != "tool" and not declared.access & {"rerun", "truth"}


def _hear(bench: Bench, exhibit: Exhibit, panel: Sequence[Judge]) -> list[tuple[str, Answer]]:
    """Return the names of those that answered, with their answers, stored as the bench does it."""
    order = sorted(panel, key=lambda judge: digest(exhibit.key, judge.name))  # whoever is first waits for what all need
    heard = []
    for judge, answer in zip(order, _ask(bench, exhibit, order), strict=False):
        if answer["status"] in ("ok", "not_applicable"):
            version = judge.version(exhibit.truth)
            write_sealed(bench.diagnosis_path(exhibit.key, judge.name, version), answer)
            heard.append((judge.name, answer | {"version": version}))
    return heard


def _ask(bench: Bench, exhibit: Exhibit, panel: Sequence[Judge]) -> list[Answer]:
    """Return the answers of a panel in its order: none, if the process failed."""
    access = panel[0].access
    steps = pd.read_parquet(exhibit.trace / "steps.parquet", columns=["split", "step"])
    total = int((steps["split"] == "train").sum())
    parts = {"access": sorted(access), "prefixes": prefixes(exhibit.trace, total), "steps": total}
    members = [(judge.file, judge.knobs) for judge in panel]
    with bench.pool.borrow() as worker:
        try:
            part = (access, digest({}), None, None)  # as the bench calls it, who may ask for it too
            folder = worker.place(exhibit.key, part, lambda place: export(exhibit.trace, place, access))
            answer = worker.diagnose_all(members, folder, bench.judge_seconds, **parts)
        except (TimedOut, WorkerDied):
            return []
        level = worker.level
    said = answer.get("value", [])
    return [{"isolation": level} | _checked(one) for one in said] if len(said) == len(panel) else []


def _checked(one: Mapping[str, Any]) -> Answer:
    """Return one answer of several, held to the form of one alone."""
    text = json.dumps(one).encode()
    answer = complete(len(text).to_bytes(8, "little") + text)
    assert answer is not None  # it is as long as it says
    return answer | {"seconds": float(one["seconds"]), "alarm_step": one["alarm_step"]}
