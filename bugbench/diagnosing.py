"""Hand one trace to one detector and put its diagnosis into plain values: what a judging process does.

It knows a folder, a detector's file and its knobs: nothing of the case. In the folder is a trace, to be diagnosed or to
extract from, or what a detector that learns is to be fitted on.
"""

import json
import operator
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from bugbench.answers import MAX_TEXT, plain_json
from bugbench.detector import Detector, Diagnosis, Label, NotApplicable, NotInstalled, Suspect, Trace
from bugbench.plugins import load_detector

OUT_OF_MEMORY = ("can't allocate memory", "not enough memory", "out of memory")  # torch says so in a RuntimeError


EXAMPLES, MODEL = "examples.json", "model.json"  # files in the folder of a detector that learns


def perform(request: Mapping[str, Any], folder: Path) -> dict[str, Any]:
    """Return ``status``, ``reason`` and ``suspects`` (as mappings), and of a task other than "diagnose" the ``value``.

    The request holds ``detector`` (its file), ``knobs`` and ``task``: "diagnose", "extract" or "fit".
    """
    said: dict[str, Any] = {"suspects": []}
    try:
        detector = load_detector(Path(request["detector"]))(**request["knobs"])
        said |= TASKS[request["task"]](detector, folder)
        status, reason = "ok", ""
    except NotApplicable as error:
        status, reason = "not_applicable", str(error)
    except NotInstalled as error:
        status, reason = "not_installed", str(error)
    except InvalidDiagnosis as error:
        status, reason = "invalid", str(error)
    except MemoryError as error:
        status, reason = "out_of_memory", str(error) or "MemoryError"
    except Exception as error:  # a broken detector costs its own row only
        status, reason = "crashed", f"{type(error).__name__}: {error}"
        if isinstance(error, RuntimeError) and any(words in reason for words in OUT_OF_MEMORY):
            status = "out_of_memory"
    return {"status": status, "reason": reason[:MAX_TEXT], **said}


def timed(request: Mapping[str, Any]) -> dict[str, Any]:
    """Perform a task in this process, where none can be forked; ``seconds`` is wall time."""
    started = time.perf_counter()
    answer = perform(request, Path(request["folder"]))
    return answer | {"seconds": time.perf_counter() - started}


def _diagnose(detector: Detector, folder: Path) -> dict[str, Any]:
    model = folder / MODEL
    if model.exists():
        detector.model = json.loads(model.read_text())
    return {"suspects": as_mappings(detector.diagnose(Trace(folder)))}


def _extract(detector: Detector, folder: Path) -> dict[str, Any]:
    return {"value": checked_json(detector.extract(Trace(folder)), "extract")}


def _fit(detector: Detector, folder: Path) -> dict[str, Any]:
    examples = [(value, Label(**label)) for value, label in json.loads((folder / EXAMPLES).read_text())]
    return {"value": checked_json(detector.fit(examples), "fit")}


TASKS = {"diagnose": _diagnose, "extract": _extract, "fit": _fit}


class InvalidDiagnosis(TypeError):
    """A detector returned something else than a Diagnosis of Suspects, or than plain data where it learns."""


def checked_json(value: Any, method: str) -> Any:
    """Return what a method returned; raises InvalidDiagnosis if it is no plain JSON, or too much of it."""
    try:
        return plain_json(value)
    except (TypeError, ValueError, RecursionError) as error:
        raise InvalidDiagnosis(f"{method} returned what is no plain JSON: {error}") from error


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
