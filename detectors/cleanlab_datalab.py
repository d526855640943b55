"""cleanlab's Datalab: noisy labels, missing values, near duplicates and order in the training data."""

import contextlib
import io
import warnings
from dataclasses import dataclass
from typing import Any

import numpy as np
from bugbench.detector import Detector, Diagnosis, Trace
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

    The features are the samples of the first epoch, each once, in the order of the loader; out-of-fold probabilities
    come from a logistic regression in five folds, as in Datalab's quickstart. A second Datalab holds training and
    validation together: near duplicates with members in both. Suspects come in the order of ``Datalab.report()``, by
    the number of issues: its scores are comparable "but not across different issue types" (its documentation).

    Datalab flags rows, and of labels and duplicates it flags some in every data set; whether that is a fault it leaves
    to the reader. What is usual in well-kept data is published: at least 3.3 % wrong labels on average in ten
    benchmarks (``usual_errors``; Northcutt et al. 2021, by cleanlab's authors), and 3.3 % of CIFAR-10's test images
    with a near duplicate in its training set (``usual_duplicates``; Barz and Denzler 2020). Shares above that count.
    The two shares of labels are not quite alike: 3.3 % are estimated to be wrong, but Datalab counts what it flags, and
    of that people found 51 % to be wrong in the same study. Data with the usual errors may so be called noisy.

    For missing values Datalab's summary is silent, so a null score below 1 counts. Outliers and under-performing groups
    name no fault.
    """

    access = {"rerun"}
    origin = "tool"
    usual_errors: float = 0.033
    usual_duplicates: float = 0.033

    def diagnose(self, trace: Trace) -> Diagnosis:
        datalab = tool("cleanlab.datalab.datalab").Datalab  # needs the extra "datalab", else it is not there
        splits = first_epoch(trace)
        train = splits["train"]
        messages: list[Message] = []
        with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
            warnings.simplefilter("ignore")
            nulls = _issues(datalab, train.features, ["null"]).get_issues("null")
            if share := float((nulls["null_score"] < 1).mean()):
                messages.append(Message("null", f"{share:.1%} of the rows have a null_score below 1"))
            else:  # the other checks need distances
                messages += self._of_training(datalab, train, trace)
                if (held_out := validation(splits)) is not None:
                    messages += self._of_both(datalab, train.features, held_out.features)
        return translate(messages, FAULTS)

    def _of_training(self, datalab: Any, train: Samples, trace: Trace) -> list[Message]:
        classes = trace.meta.get("task") == "classification" and train.labels is not None
        labels = train.labels if classes and train.labels is not None and (train.labels % 1 == 0).all() else None
        checks, given = ["near_duplicate", "non_iid"], {}
        if labels is not None and np.unique(labels, return_counts=True)[1].min() >= 5 and len(set(labels)) > 1:
            checks += ["label", "class_imbalance"]
            given["pred_probs"] = _out_of_fold(train.features, labels)
        lab = _issues(datalab, train.features, checks, labels if given else None, **given)
        usual, messages = {"label": self.usual_errors, "near_duplicate": self.usual_duplicates}, []
        summary = lab.get_issue_summary().sort_values("num_issues", ascending=False, kind="stable")
        for row in summary.itertuples():
            if row.num_issues / len(train.features) > usual.get(row.issue_type, 0.0):
                messages.append(Message(row.issue_type, f"{row.num_issues} issues in {len(train.features)} rows"))
        return messages

    def _of_both(self, datalab: Any, train: np.ndarray, held_out: np.ndarray) -> list[Message]:
        if train.shape[1:] != held_out.shape[1:] or not np.isfinite(held_out).all():
            return []
        issues = _issues(datalab, np.concatenate([train, held_out]), ["near_duplicate"]).get_issues("near_duplicate")
        sets = issues["near_duplicate_sets"].iloc[len(train) :]
        shared = sum(bool(len(others)) and min(others) < len(train) for others in sets)
        text = f"{shared} of {len(held_out)} rows are near duplicates in training and validation"
        return [Message("near_duplicate", text)] if shared / len(held_out) > self.usual_duplicates else []


def _issues(datalab: Any, features: np.ndarray, checks: list[str], labels: Any = None, **given: Any) -> Any:
    data = {"row": np.arange(len(features))} if labels is None else {"label": labels.astype(int)}
    lab = datalab(data, **({} if labels is None else {"label_name": "label"}), verbosity=0)
    lab.find_issues(features=features.astype(np.float64), issue_types={check: {} for check in checks}, **given)
    return lab


def _out_of_fold(features: np.ndarray, labels: np.ndarray) -> np.ndarray:
    from sklearn.linear_model import LogisticRegression
    from sklearn.model_selection import cross_val_predict

    return cross_val_predict(LogisticRegression(), features, labels.astype(int), cv=5, method="predict_proba")
