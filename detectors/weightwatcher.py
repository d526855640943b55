"""WeightWatcher: the spectra of the trained weights."""

import logging
from dataclasses import dataclass

import torch
from bugbench.detector import Detector, Diagnosis, NotApplicable, Trace
from bugbench.third_party import Following, Message, follow, tool, translate

FAULTS = {"over-trained": ["overfit_capacity"], "under-trained": ["too_few_epochs", "lr_too_low"]}  # the warning


@dataclass
class Weightwatcher(Detector):
    """weightwatcher 0.7.7 (PyPI, weightwatcher): the column ``warning`` of ``WeightWatcher(model).analyze()``.

    It looks at the weights after the last training batch of the trace, in layers with eight eigenvalues or more, its
    default, and warns of an exponent alpha below 2 (over-trained) or above 6 (under-trained). The alpha of a fit that
    failed, -1, is none. Its README asks for more than the default: below 50 eigenvalues a power law fit makes no sense.
    So it warns of healthy small networks too. It raises on weights that are not finite.

    Of several models each is looked at, and one without such layers says nothing.
    """

    access = {"rerun"}
    origin = "tool"

    def diagnose(self, trace: Trace) -> Diagnosis:
        watcher = tool("weightwatcher").WeightWatcher
        run = Following(trace)
        follow(trace, run)
        messages, layers, fits = [], 0, 0
        before = logging.root.manager.disable
        logging.disable(logging.WARNING)
        try:
            for model, _ in run.watched:
                if not all(bool(torch.isfinite(p).all()) for p in model.parameters()):
                    raise NotApplicable("the tool raises on weights that are not finite")
                details = watcher(model=model).analyze(plot=False)
                layers += len(details)
                if not len(details):
                    continue
                fitted = details[details["status"] == "success"]
                fits += len(fitted)
                for row in fitted[fitted["warning"] != ""].itertuples():
                    messages.append(Message(row.warning, f"alpha {row.alpha:.2f}", row.longname))
        finally:
            logging.disable(before)
        if not layers:
            raise NotApplicable("the tool looks at layers of eight eigenvalues or more; there is none")
        if not fits:
            raise NotApplicable("the tool could fit a power law to no layer's spectrum")
        return translate(messages, FAULTS)
