"""What a detector may answer, and what is wrong with an answer that it may not give."""

import difflib
from collections.abc import Mapping, Sequence
from numbers import Integral, Real
from typing import Any


class InvalidDiagnosis(ValueError):
    """A diagnosis that breaks the rules; its text is the reason in the table."""


def check_suspects(suspects: Sequence[Mapping[str, Any]], families: Mapping[str, str]) -> list[dict[str, Any]]:
    """Return the suspects with all their fields, as plain JSON values.

    Args:
        suspects: ``fault`` and, where known, ``confidence``, ``evidence``, ``line``, ``layer``; most suspected first.
        families: fault id to family id, for the whole vocabulary.

    Raises:
        InvalidDiagnosis: a fault that is neither fault nor family, a confidence outside [0, 1], a line that is no
            line number, or evidence or a layer that is no text.
    """
    known = sorted({*families, *families.values()})
    checked: list[dict[str, Any]] = []
    for suspect in suspects:
        fault, confidence = suspect.get("fault"), suspect.get("confidence", 1.0)
        evidence, line, layer = suspect.get("evidence", ""), suspect.get("line"), suspect.get("layer")
        if not isinstance(fault, str) or fault not in known:
            near = difflib.get_close_matches(str(fault), known, n=3)
            hint = f"did you mean {' or '.join(near)}?" if near else "see faults.yaml; a healthy run has no suspects"
            raise InvalidDiagnosis(f"unknown fault {fault!r}: {hint}")
        if isinstance(confidence, bool) or not isinstance(confidence, Real) or not 0 <= float(confidence) <= 1:
            raise InvalidDiagnosis(f"confidence of {fault} is {confidence!r}: a number from 0 to 1")
        if line is not None and (isinstance(line, bool) or not isinstance(line, Integral) or int(line) < 1):
            raise InvalidDiagnosis(f"line of {fault} is {line!r}: a line number from 1, or None")
        if not isinstance(evidence, str) or not isinstance(layer, str | None):
            raise InvalidDiagnosis(f"evidence and layer of {fault} must be text: {evidence!r}, {layer!r}")
        confidence, line = float(confidence), line and int(line)  # plain numbers, even if they were numpy's
        checked.append(dict(fault=fault, confidence=confidence, evidence=evidence, line=line, layer=layer))
    return checked
