"""leakcheck-ml: training and test tables compared for leaks."""

from dataclasses import dataclass

from bugbench.detector import Detector, Diagnosis, NotApplicable, Trace
from bugbench.third_party import Message, tables, tool, translate

FAULTS = {
    "duplicates: also appear in train": ["train_in_validation", "duplicates_across_split"],
    "near-duplicates": ["duplicates_across_split", "split"],
    "target-leakage": ["label_leakage"],
    "group-leakage": ["group_leakage"],
    "temporal": ["temporal_leakage"],
}


@dataclass
class LeakcheckMl(Detector):
    """leakcheck-ml 0.3.0 (PyPI, leakcheck-ml), all its checks at their defaults.

    The tables are the samples of the first epoch in the order of the loader, before augmentation where the program logs
    them, and those of the first evaluation: a column for each input value, and the target where a sample has one.
    Findings "fail" and "warn" count, in this order. ``id-columns``, "drop it before training", is a hint and no fault.
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
