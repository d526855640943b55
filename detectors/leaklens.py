"""leaklens: contamination between two tables, and columns that give the target away."""

from dataclasses import dataclass

from bugbench.detector import Detector, Diagnosis, NotApplicable, Trace
from bugbench.sample_tables import tables
from bugbench.third_party import Message, tool, translate

FAULTS = {
    "Train/Test Contamination": ["train_in_validation", "duplicates_across_split"],
    "Duplicate Rows": ["duplicate_rows"],
    "Target Leakage": ["label_leakage"],
    "Missing Value Leakage": ["label_leakage", "nan_inputs"],
    "Preprocessing-Before-Split Leakage": ["fit_on_all"],
    "Class Imbalance": ["class_imbalance"],
    "Target Drift": ["split"],  # "re-check your split strategy"
    # of each column alone, at a level of 5 %: with hundreds of columns it speaks of every split. That mutes critical
    # ones as well (p < 0.001; in a column of booleans a PSI of 0.25), and with them a drift that is more than chance
    "Distribution Drift": (),
    "Unseen Categories": (),  # of columns of booleans: an input that training knows one value of
    # neighbouring pixels and samples of a signal are alike, and the border of an image is constant
    "Multicollinearity": (),
    "Duplicate Columns": (),
    "Constant Feature": (),
    # only the names of columns are the adapter's. How many there are and of which type comes from the program, which
    # here evaluates on other inputs or targets than it trains on; which fault that is, the tool does not say
    "Schema Mismatch": (),
    "Dtype Mismatch": (),
}


@dataclass
class Leaklens(Detector):
    """leaklens 1.3.0 (PyPI, leaklens): ``LeakLens(train, test, target=…, script=…).run()`` at its defaults.

    The tables are those of ``leakcheck_ml``, the script is the program. Critical issues and warnings count, in this
    order; information, such as outliers, does not. ``FAULTS`` says which warnings name no fault, and why. The two
    checks of pairs of columns are among them and take half a minute with 500 columns: they are capped at none. What
    needs columns of dates, text or telling names (temporal leakage, hidden missing and invalid values) cannot speak of
    a tensor.
    """

    access = {"rerun"}
    origin = "tool"

    def diagnose(self, trace: Trace) -> Diagnosis:
        leaklens = tool("leaklens")
        train, test, target = tables(trace)
        if test is None:
            raise NotApplicable("the tool compares two tables; the program has not evaluated anything yet")
        config = leaklens.Config(max_columns_for_duplicate_check=0, max_columns_for_multicollinearity=0)
        report = leaklens.LeakLens(train, test, target=target, config=config, script=trace.source).run()
        issues = [issue for issue in report.issues if issue.severity.value != "info"]
        issues.sort(key=lambda issue: issue.severity.value)  # stable
        return translate([Message(i.title, f"{i.severity.value}: {i.message}") for i in issues], FAULTS)
