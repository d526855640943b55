"""The interface of a detector: one file, one dataclass, one method.

::

    @dataclass
    class FiniteChecks(Detector):
        '''Where does the first non-finite value arise? (source of the rule)'''

        access = {"tensors", "data"}
        patience: int = 1                      # a knob: detector.finite_checks.patience=…

        def diagnose(self, trace: Trace) -> Diagnosis:
            ...
            return suspect("nan_inputs", evidence="…")

The file's name is the detector's id. A detector sees a :class:`~bugbench.trace.Trace` that holds only the files of
its declared access, and nothing else: not the card, not the twin, not the hidden test set.
"""

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any, ClassVar

from bugbench.trace import Trace

__all__ = ["HEALTHY", "Detector", "Diagnosis", "NotApplicable", "NotInstalled", "Suspect", "Trace", "suspect"]


@dataclass(frozen=True)
class Suspect:
    """One explanation of what is wrong.

    Attributes:
        fault: a fault id of faults.yaml, or a family id where only the symptom's family is known.
        confidence: in [0, 1]; only ranks and reports, it is no threshold.
        evidence: what was seen, in a sentence with numbers.
        line: 1-based line of program.py to blame, if known.
        layer: name of the layer to blame, if known.
    """

    fault: str
    confidence: float = 1.0
    evidence: str = ""
    line: int | None = None
    layer: str | None = None


@dataclass(frozen=True)
class Diagnosis:
    """Suspects, most suspected first; none means healthy."""

    suspects: tuple[Suspect, ...] = field(default=())

    def __init__(self, suspects: Iterable[Suspect] = ()) -> None:
        object.__setattr__(self, "suspects", tuple(suspects))


HEALTHY = Diagnosis()


def suspect(fault: str, evidence: str = "", **details: Any) -> Diagnosis:
    """Return a diagnosis with one suspect."""
    return Diagnosis([Suspect(fault, evidence=evidence, **details)])


class NotApplicable(Exception):
    """Raised by a detector that cannot say anything about this kind of run; its text is the reason in the table."""


class NotInstalled(Exception):
    """Raised by a detector whose third-party tool is missing; its text says what to install."""


@dataclass
class Detector:
    """Base of all detectors: facts are class attributes, knobs are dataclass fields, behaviour is ``diagnose``."""

    access: ClassVar[set[str]] = {"curves"}

    def diagnose(self, trace: Trace) -> Diagnosis:
        """Return what is wrong with the run that left ``trace``."""
        raise NotImplementedError
