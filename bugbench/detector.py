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

A detector that learns has two more methods, ``extract`` and ``fit``, and finds in ``self.model`` what it learned on
other workloads than the one that it judges.

The file's name is the detector's id. A detector sees a :class:`~bugbench.trace.Trace` that holds only the files of
its declared access, and nothing else: not the card, not the twin, not the hidden test set.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar, NamedTuple

from bugbench.trace import Trace

__all__ = [
    *("HEALTHY", "ORIGINS", "Detector", "Diagnosis", "Label", "NotApplicable", "NotInstalled", "Suspect", "Trace"),
    "suspect",
]


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
ORIGINS = {  # where the rules of a detector come from, and how the table says so
    "practice": "debugging practice",
    "published": "published rules, ported",
    "tool": "third-party tool",
    "baseline": "baseline",
}


def suspect(fault: str, evidence: str = "", **details: Any) -> Diagnosis:
    """Return a diagnosis with one suspect."""
    return Diagnosis([Suspect(fault, evidence=evidence, **details)])


class NotApplicable(Exception):
    """Raised by a detector that cannot say anything about this kind of run; its text is the reason in the table."""


class NotInstalled(Exception):
    """Raised by a detector whose third-party tool is missing; its text says what to install."""


class Label(NamedTuple):
    """What is known of an example to learn from.

    Attributes:
        fault, family: what is wrong with the run; both "none" if nothing is.
        workload: the program and its data, without the settings that were changed.
        control: whether nothing is wrong.
    """

    fault: str
    family: str
    workload: str
    control: bool


@dataclass
class Detector:
    """Base of all detectors: facts are class attributes, knobs are dataclass fields, behaviour is ``diagnose``.

    One that learns defines ``extract`` and ``fit`` too. Both answer with plain JSON-able data.
    """

    access: ClassVar[set[str]] = {"curves"}
    origin: ClassVar[str] = "practice"  # one of ORIGINS
    model: Any = field(default=None, init=False, repr=False, compare=False)  # what fit returned

    def diagnose(self, trace: Trace) -> Diagnosis:
        """Return what is wrong with the run that left ``trace``."""
        raise NotImplementedError

    def extract(self, trace: Trace) -> Any:
        """Return what is to be learned from ``trace``; raises NotApplicable where that is nothing."""
        raise NotImplementedError

    def fit(self, examples: Sequence[tuple[Any, Label]]) -> Any:
        """Return a model of examples: what was extracted from a run, and what is known of it.

        They are of other workloads than the one to be judged, and their order says nothing.
        """
        raise NotImplementedError
