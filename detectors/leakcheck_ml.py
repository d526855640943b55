"""leakcheck-ml: training and test tables compared for leaks."""

from dataclasses import dataclass

from bugbench.detector import Detector, Diagnosis, NotApplicable, Trace
from bugbench.sample_tables import tables
from bugbench.third_party import Message, tool, translate

FAULTS = {
    "duplicates: also appear in train": ["train_in_validation", "duplicates_across_split"],
    "duplicates: No shared feature columns": (),  # of tables that have other columns there is nothing to compare
    "near-duplicates: are near-duplicates of train rows": ["duplicates_across_split", "split"],
    "target-leakage: with target": ["label_leakage"],
    "target-leakage: is an exact copy of the target": ["label_leakage"],
    "id-columns: drop it before training": (),  # a hint, at "warn"
}


@dataclass
class LeakcheckMl(Detector):
    """leakcheck-ml 0.3.0 (PyPI, leakcheck-ml), ``run_all`` at its defaults.

    The tables are the samples of the first epoch, each once, before augmentation where the program logs them, and those
    of the first evaluation: a column for each input value, and the target where a sample has one. Its checks of groups
    and of time look for columns by name or of dates; a tensor has neither, so they cannot speak here. Findings "fail"
    and "warn" count, in this order, but for one: the "warn" of columns that look like identifiers names no fault, nor
    does the remark that two tables share no columns.
    """

    access = {"rerun"}
    origin = "tool"

    def diagnose(self, trace: Trace) -> Diagnosis:
        checks = tool("leakcheck.checks")
        train, test, target = tables(trace)
        if test is None:
            raise NotApplicable("the tool compares two tables; the program has not evaluated anything yet")
        found = [f for f in checks.run_all(train, test, target) if f.status in ("fail", "warn")]
        found.sort(key=lambda f: f.status)  # stable
        return translate([Message(f.check, f"{f.status}: {f.message}") for f in found], FAULTS)
