"""What a judging worker does: hand one trace to one detector and report its diagnosis.

A request names a trace folder, a detector's file and its knobs: nothing of the case.
"""

import operator
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from bugbench.detector import Diagnosis, NotApplicable, NotInstalled, Suspect, Trace
from bugbench.plugins import load_detector

MAX_TEXT = 500  # characters of an evidence or a reason that are kept


def handle(request: dict[str, Any], progress: Callable[[dict[str, Any]], None]) -> dict[str, Any]:
    """Diagnose; returns ``status``, ``reason``, ``suspects`` (as mappings) and ``seconds``."""
    started = time.perf_counter()
    try:
        detector = load_detector(Path(request["detector"]))(**request["knobs"])
        started = time.perf_counter()
        suspects = as_mappings(detector.diagnose(Trace(request["folder"])))
        status, reason = "ok", ""
    except NotApplicable as error:
        status, reason, suspects = "not_applicable", str(error), []
    except NotInstalled as error:
        status, reason, suspects = "not_installed", str(error), []
    except InvalidDiagnosis as error:
        status, reason, suspects = "invalid", str(error), []
    except MemoryError as error:
        status, reason, suspects = "out_of_memory", str(error), []
    except Exception as error:  # a broken detector costs its own row only
        status, reason, suspects = "crashed", f"{type(error).__name__}: {error}", []
    seconds = time.perf_counter() - started
    return {"status": status, "reason": reason[:MAX_TEXT], "suspects": suspects, "seconds": seconds}


class InvalidDiagnosis(TypeError):
    """A detector returned something else than a Diagnosis of Suspects."""


def as_mappings(diagnosis: Any) -> list[dict[str, Any]]:
    """Return the suspects as JSON-serialisable mappings.

    Raises:
        InvalidDiagnosis: naming what was returned instead.
    """
    if not isinstance(diagnosis, Diagnosis):
        raise InvalidDiagnosis(f"diagnose returned {type(diagnosis).__name__}, not a Diagnosis")
    mappings = []
    for suspect in diagnosis.suspects:
        if not isinstance(suspect, Suspect):
            raise InvalidDiagnosis(f"a suspect is a {type(suspect).__name__}, not a Suspect")
        if not isinstance(suspect.fault, str):
            raise InvalidDiagnosis(f"a suspect's fault is {suspect.fault!r}, not a fault's id")
        try:
            confidence = float(suspect.confidence)
            line = None if suspect.line is None else operator.index(suspect.line)
        except (TypeError, ValueError) as error:
            raise InvalidDiagnosis(f"confidence or line of {suspect.fault} is no number: {error}") from error
        if not 0 <= confidence <= 1:  # NaN is not either
            raise InvalidDiagnosis(f"the confidence in {suspect.fault} is {confidence}: allowed is 0 to 1")
        mappings.append(
            {
                "fault": suspect.fault,
                "confidence": confidence,
                "evidence": str(suspect.evidence)[:MAX_TEXT],
                "line": line,
                "layer": None if suspect.layer is None else str(suspect.layer),
            }
        )
    return mappings
