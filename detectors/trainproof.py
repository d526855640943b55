"""trainproof: a linter for the log of a training run."""

from dataclasses import dataclass
from typing import Any

from bugbench.detector import Detector, Diagnosis, NotApplicable, Trace
from bugbench.sample_tables import evaluation_split
from bugbench.third_party import Message, tool, translate

FAULTS = {  # what the rule's text or the tool's gallery of broken runs (README) gives as the cause, else the family
    "TP-NAN": ["numerics"],
    "TP-ZERO-LOSS-ONSET": ["numerics"],
    "TP-ZERO-LOSS": ["loss"],
    "TP-ZERO-LR": ["lr_too_low"],
    "TP-ZERO-LR-PARTIAL": ["lr_decays_early"],
    "TP-FLAT": ["lr_too_low"],  # "dead run", as the next one; in the gallery that is a rate of zero
    "TP-DEAD-RUN": ["lr_too_low"],
    "TP-DIVERGE": ["lr_too_high"],
    "TP-OVERFIT": ["overfit_capacity"],
}


@dataclass
class Trainproof(Detector):
    """trainproof 0.22.0 (PyPI, trainproof): the verdict of ``trainproof epoch`` on loss and learning rate of each step.

    The log has a record for each training batch, with the loss that the program reports of an evaluation as
    ``eval_loss``. That it is of batches is the adapter's choice: the tool takes any log, and its README shows a
    run that ends at 1.88 times its minimum by batches and at 1.00 by epochs. TP-DIVERGE holds the last entry, here one
    batch, against the lowest (1.5 times), however the evaluation goes.

    FAIL comes before WARN. A WARN alone (TP-OVERFIT, TP-ZERO-LR-PARTIAL) is an alarm here, as warnings are in the other
    adapters, since the tool's verdict is then WARN and not PASS; but its exit status is 0, and it stops no run for it.
    It reads symptoms off curves and says so itself. Curves hold no norms of gradients and no times, so its rules about
    these cannot speak.
    """

    access = {"curves"}
    origin = "tool"

    def diagnose(self, trace: Trace) -> Diagnosis:
        check_records = tool("trainproof.epoch").check_records
        records: list[Any] = trace.train_steps()[["step", "loss", "lr"]].to_dict("records")
        if not records:
            raise NotApplicable("the program logs no training batch")
        reported = trace.metrics[trace.metrics["name"] == "loss"]
        evaluated = reported[reported["split"] == evaluation_split(reported["split"])]
        records += [{"step": step, "eval_loss": v} for step, v in evaluated[["step", "value"]].itertuples(index=False)]
        records.sort(key=lambda record: record["step"])  # stable: a batch comes before the evaluation after it
        report = check_records(_plain(records))
        if report["verdict"] == "NOT-CHECKED":
            raise NotApplicable(report["findings"][-1]["evidence"])
        found = [f for f in report["findings"] if f["level"] in ("FAIL", "WARN")]
        found.sort(key=lambda f: f["level"])  # stable
        return translate([Message(f["id"], f"{f['level']} {f['message']} {f['evidence']}") for f in found], FAULTS)


def _plain(records: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [{key: float(v) for key, v in record.items() if v is not None} for record in records]
