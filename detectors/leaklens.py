"""leaklens: contamination between two tables, and columns that give the target away."""

from dataclasses import dataclass

from bugbench.detector import Detector, Diagnosis, NotApplicable, Trace
from bugbench.third_party import Message, tables, tool, translate

FAULTS = {
    "Train/Test Contamination": ["train_in_validation", "duplicates_across_split"],
    "Duplicate Rows": ["duplicate_rows"],
    "Target Leakage": ["label_leakage"],
}


@dataclass
class Leaklens(Detector):
    """leaklens 1.3.0 (PyPI, leaklens): its analyzers ``contamination`` and ``target_leakage`` at their defaults.

    The others (drift, outliers, collinearity, constant columns) tell of any images that they are at fault: two critical
    issues and a dozen warnings on a healthy split. They are left out, as a user of such data would have to. The tables
    are those of ``leakcheck_ml``. Critical issues and warnings count, in this order; information does not.
    """

    access = {"rerun"}
    origin = "tool"

    def diagnose(self, trace: Trace) -> Diagnosis:
        config = tool("leaklens").Config()
        analyzers = [
            tool("leaklens.analyzers.contamination").ContaminationAnalyzer(config),
            tool("leaklens.analyzers.target_leakage").TargetLeakageAnalyzer(config),
        ]
        train, test, target = tables(trace)
        if test is None:
            raise NotApplicable("the tool compares two tables; the program has not evaluated anything yet")
        issues = [issue for a in analyzers for issue in a.run(train, test, target) if issue.severity.value != "info"]
        issues.sort(key=lambda issue: issue.severity.value)  # stable
        return translate([Message(i.title, f"{i.severity.value}: {i.message}") for i in issues], FAULTS)
