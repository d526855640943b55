"""cleanlab's Datalab: noisy labels, missing values, near duplicates and order in the training data."""

import contextlib
import io
import warnings
from dataclasses import dataclass
from typing import Any

import numpy as np
from bugbench.detector import Detector, Diagnosis, NotApplicable, Trace
from bugbench.sample_tables import Samples, first_epoch, validation
from bugbench.third_party import Message, tool, translate

FAULTS = {
    "null": ["nan_inputs"],
    "non_iid": ["unshuffled_loader"],
    "label": ["label_noise"],
    "class_imbalance": ["class_imbalance"],
    "near_duplicate: and validation": ["train_in_validation", "duplicates_across_split"],
    "near_duplicate": ["duplicate_rows"],
}


@dataclass
class CleanlabDatalab(Detector):
    """cleanlab 2.9.0, ``Datalab`` (docs.cleanlab.ai), its issue types null, near_duplicate, non_iid, label, imbalance.

    The features are the samples of the first epoch, each once, in the order of the loader. A second Datalab holds
    training and validation together, if they have one shape: near duplicates with members in both. Suspects come in the
    order of ``Datalab.report()``, by the number of issues: its scores cannot be compared across types of issues.

    Datalab asks for embeddings, and for out-of-sample probabilities from "the most accurate model you can produce". It
    gets raw samples, and the probabilities of a logistic regression on them in five folds, as in its quickstart, if
    each class has five. Where that model is bad, Datalab takes its mistakes for those of the labels: so come the alarms
    on healthy programs of heartbeats (ECG). The check of labels of a regression, for want of predictions, is not made.

    Datalab flags rows, and of labels and duplicates it flags some in every data set; whether that is a fault it leaves
    to the reader. What is usual in well-kept data is published: at least 3.3 % wrong labels on average in ten
    benchmarks (``usual_errors``; Northcutt et al. 2021, by cleanlab's authors), and 3.3 % of CIFAR-10's test images
    with a near duplicate in its training set (``usual_duplicates``; Barz and Denzler 2020). Shares above that count;
    that of duplicates, known across a split, is applied within training, too. Those of labels are not quite alike:
    3.3 % are estimated to be wrong, but Datalab counts what it flags, and of that people found 51 % to be wrong in the
    same study. Data with the usual errors may so be called noisy.

    For missing values Datalab's summary is silent, so a null score below 1 counts; then distances, which it cannot
    take, are not asked for. Outliers and under-performing groups name no fault. A check that fails it prints and passes
    over. If no other finds anything, that is not health: few or infinite samples are not applicable, else an error.
    """

    access = {"rerun"}
    origin = "tool"
    usual_errors: float = 0.033
    usual_duplicates: float = 0.033

    def diagnose(self, trace: Trace) -> Diagnosis:
        datalab = tool("cleanlab.datalab.datalab").Datalab  # needs the extra "datalab", else it is not there
        splits = first_epoch(trace)
        train, held_out = splits["train"], validation(splits)
        whole = not np.isnan(train.features).any()  # what is no number is null to Datalab
        tables = [train.features]
        with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()) as printed:
            warnings.simplefilter("ignore")
            messages = self._of_training(datalab, train, whole, trace)
            if whole and held_out is not None and train.features.shape[1:] == held_out.features.shape[1:]:
                tables.append(held_out.features)
                messages += self._of_both(datalab, *tables)
        errors = [line for line in printed.getvalue().splitlines() if line.startswith("Error in ")]
        if errors and not messages:
            raise _reason(tables, "; ".join(dict.fromkeys(errors)))
        return translate(messages, FAULTS)

    def _of_training(self, datalab: Any, train: Samples, whole: bool, trace: Trace) -> list[Message]:
        labels = train.labels if trace.meta.get("task") == "classification" else None
        labels = None if labels is None or (labels % 1 != 0).any() else labels
        checks, given = ["null", *(["near_duplicate", "non_iid"] if whole else [])], {}
        if labels is not None:
            checks += ["class_imbalance"]
            sizes = np.unique(labels, return_counts=True)[1]
            if np.isfinite(train.features).all() and sizes.min() >= 5 and len(sizes) > 1:
                checks += ["label"]
                given["pred_probs"] = _out_of_fold(train.features, labels)
        lab = _issues(datalab, train.features, checks, labels, **given)
        usual, messages = {"label": self.usual_errors, "near_duplicate": self.usual_duplicates}, []
        summary, rows = lab.get_issue_summary().copy(), len(train.features)
        summary.loc[summary["issue_type"] == "null", "num_issues"] = (lab.get_issues("null")["null_score"] < 1).sum()
        for kind, _, count in summary.sort_values("num_issues", ascending=False, kind="stable").to_numpy():
            if count / rows > usual.get(kind, 0.0):
                what = f"{count} of {rows} rows have a null_score below 1"
                messages.append(Message(kind, what if kind == "null" else f"{count} issues in {rows} rows"))
        return messages

    def _of_both(self, datalab: Any, train: np.ndarray, held_out: np.ndarray) -> list[Message]:
        lab = _issues(datalab, np.concatenate([train, held_out]), ["near_duplicate"])
        found = lab.get_info().get("near_duplicate", {})  # of a check that failed there is nothing
        sets = found.get("near_duplicate_sets", [])[len(train) :]
        shared = sum(bool(len(others)) and min(others) < len(train) for others in sets)
        text = f"{shared} of {len(held_out)} rows are near duplicates in training and validation"
        return [Message("near_duplicate", text)] if shared / len(held_out) > self.usual_duplicates else []


def _reason(tables: list[np.ndarray], errors: str) -> Exception:
    if not all(np.isfinite(table).all() for table in tables):
        return NotApplicable(f"Datalab takes no distances of values that are not finite: {errors}")
    if (samples := len(tables[0])) <= 10:  # its number of neighbours
        return NotApplicable(f"Datalab compares a sample with ten others; there are {samples} samples: {errors}")
    return RuntimeError(f"cleanlab: {errors}")


def _issues(datalab: Any, features: np.ndarray, checks: list[str], labels: Any = None, **given: Any) -> Any:
    data = {"row": np.arange(len(features))} if labels is None else {"label": labels.astype(int)}
    lab = datalab(data, **({} if labels is None else {"label_name": "label"}), verbosity=0)
    lab.find_issues(features=features.astype(np.float64), issue_types={check: {} for check in checks}, **given)
    return lab


def _out_of_fold(features: np.ndarray, labels: np.ndarray) -> np.ndarray:
    from sklearn import linear_model, model_selection

    model = linear_model.LogisticRegression()
    return model_selection.cross_val_predict(model, features, labels.astype(int), cv=5, method="predict_proba")
