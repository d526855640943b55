"""WeightWatcher: the spectra of the trained weights."""

import logging
from dataclasses import dataclass

import torch
from bugbench.detector import Detector, Diagnosis, NotApplicable, Trace
from bugbench.third_party import Following, Message, follow, tool, translate

FAULTS = {"over-trained": ["overfit_capacity"], "under-trained": ["too_few_epochs", "lr_too_low"]}


@dataclass
class Weightwatcher(Detector):
    """weightwatcher 0.7.7 (PyPI, weightwatcher): the column ``warning`` of ``WeightWatcher(model).analyze()``.

    It looks at the weights after the last training batch of the trace, in layers with eight eigenvalues or more, its
    default, and warns of an exponent alpha below 2 (over-trained) or above 6 (under-trained). It warns of healthy small
    networks too, and raises on weights that are not finite.
    """

    access = {"rerun"}
    origin = "tool"

    def diagnose(self, trace: Trace) -> Diagnosis:
        watcher = tool("weightwatcher").WeightWatcher
        run = Following(trace)
        follow(trace, run)
        if not run.watched:
            raise NotApplicable("the program watches no model")
        messages = []
        logging.disable(logging.WARNING)
        for model, _ in run.watched:
            if not all(bool(torch.isfinite(p).all()) for p in model.parameters()):
                raise NotApplicable("the tool raises on weights that are not finite")
            details = watcher(model=model).analyze(plot=False)
            if not len(details):
                raise NotApplicable("the tool looks at layers of eight eigenvalues or more; there is none")
            for row in details.itertuples():
                messages.append(Message(row.warning, f"alpha {row.alpha:.2f}", row.longname))
        return translate(messages, FAULTS)
