"""torch.autograd's anomaly mode: which backward function is the first to return NaN?"""

import re
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
import torch.fx.traceback
from bugbench.detector import HEALTHY, Detector, Diagnosis, NotApplicable, Trace
from bugbench.third_party import UNWATCHED, Following, Message, translate

FAULTS = {  # the backward function that returned NaN
    **{"LogBackward": ["log_of_zero"], "Log2Backward": ["log_of_zero"], "Log10Backward": ["log_of_zero"]},
    **{"XlogyBackward": ["log_of_zero"], "ExpBackward": ["exp_overflow"], "SqrtBackward": ["sqrt_grad_at_zero"]},
    "other": ["numerics"],
}


@dataclass
class AnomalyMode(Detector):
    """``torch.autograd.set_detect_anomaly(True)`` for the whole run (torch's documentation, "Anomaly detection").

    Its error names the backward function that returned NaN first, and its warning the line of the forward call. Where
    the forward values are finite, that operation mostly is the one that left its domain. Where the forward pass has NaN
    already, it is only the operation nearest to the loss whose gradient is NaN for that, and the cause lies elsewhere.
    The message does not tell the two apart; a logarithm, ``exp`` and ``sqrt`` are given as their known fault all the
    same. What else it names is the family ``numerics``: a division has many causes, and where a norm or a standard
    deviation is zero, torch's gradient of it is zero, not NaN. NaN in the forward pass alone, and infinite values, are
    not looked for.

    The mode writes down the call stack of every forward operation, for that warning: most of its cost, and of no use
    to a run without an error. Here a first run goes without, and only one that ends in the error is run once more,
    with. The seconds are therefore less than those of a training under the mode as it is.
    """

    access = {"rerun"}
    origin = "tool"

    def diagnose(self, trace: Trace) -> Diagnosis:
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            with _no_stacks():
                if not _anomaly(trace):
                    return HEALTHY
            named = _anomaly(trace)
        if not named:
            raise RuntimeError("the error of the first run did not come in the second")
        forward = "".join(str(w.message) for w in caught if "Traceback of forward call" in str(w.message))
        lines = re.findall(r'program\.py", line (\d+)', forward)
        rule = named[1] if named[1] in FAULTS else "other"
        return translate([Message(rule, named[0], line=int(lines[-1]) if lines else None)], FAULTS)


@contextmanager
def _no_stacks() -> Iterator[None]:
    usual = torch.fx.traceback.format_stack
    setattr(torch.fx.traceback, "format_stack", list)  # noqa: B010  the mode looks it up by this name at each call
    try:
        yield
    finally:
        setattr(torch.fx.traceback, "format_stack", usual)  # noqa: B010


def _anomaly(trace: Trace) -> re.Match[str] | None:
    """Run the program under the mode and return what its error says, if it ends in one."""
    run = _Anomaly(trace)
    try:
        trace.rerun(run)
    except Exception as error:
        named = re.search(r"Function '([^']+?)\d*' returned nan values", str(error))
        if not named:
            reason = f"the program raises {type(error).__name__}, which is no anomaly of its gradients"
            raise NotApplicable(reason) from error
        return named
    finally:
        torch.autograd.set_detect_anomaly(False)
    if not run.watched:
        raise NotApplicable(UNWATCHED)
    return None


class _Anomaly(Following):
    def on_watch(self, model: Any, optimizer: Any) -> None:
        torch.autograd.set_detect_anomaly(True)
