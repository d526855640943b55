"""Verdicts on diagnoses that name the faults a test chooses."""

from bugbench.scoring import verdict

FAMILIES = {
    "softmax_dim": "model",
    "zero_init": "model",
    "redundant_softmax": "loss",
    "nan_inputs": "data",
    "same_batch": "data",
}


def judged(truth, *faults, detector="d", **details):
    """Return the verdict on suspects that name the given faults, in this order."""
    return verdict(truth, detector, "curves", FAMILIES, [{"fault": fault} for fault in faults], **details)
