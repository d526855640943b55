"""What a judging child answers, held to a form: a detector can write to its answer pipe whatever it likes."""

import json
from typing import Any

MAX_ANSWER = 2**24  # bytes
MAX_VALUE = 2**23  # bytes of a model, or of what it is learned from
MAX_TEXT = 500  # characters of an evidence or a reason that are kept
MAX_LINE = 2**31  # of a program; tables hold no larger number
OWN_WORDS = ("ok", "crashed", "out_of_memory", "not_installed", "not_applicable", "invalid")  # others are the server's
Answer = dict[str, Any]


def failure(status: str, reason: str) -> Answer:
    """Return what stands for a diagnosis where there is none; ``transient``: the next attempt may go better."""
    return {"status": status, "reason": reason, "suspects": [], "seconds": 0.0, "transient": True}


def complete(received: bytes) -> Answer | None:
    """Return the answer in ``received`` (eight bytes of length, then JSON); None if there is more to come."""
    length = int.from_bytes(received[:8], "little")
    if len(received) < 8 or (length <= MAX_ANSWER and len(received) < 8 + length):
        return None
    try:
        answer = json.loads(received[8 : 8 + length]) if length <= MAX_ANSWER else {}
        suspects = [_suspect(**suspect) for suspect in answer["suspects"]]
        if answer["status"] in OWN_WORDS and (not suspects or answer["status"] == "ok"):
            said = {"status": answer["status"], "reason": plain(answer["reason"]), "suspects": suspects}
            return said | ({"value": plain_json(answer["value"])} if "value" in answer else {})
    except (ValueError, KeyError, TypeError, AttributeError, OverflowError, RecursionError):
        pass
    return failure("invalid", "what came back is no diagnosis")


def plain_json(value: Any) -> Any:
    """Return a value as JSON gives it back; raises TypeError, ValueError or RecursionError if it is none, or too large.

    What Python's JSON alone can say, NaN and infinities, is none.
    """
    text = json.dumps(value, allow_nan=False)
    if len(text) > MAX_VALUE:
        raise ValueError(f"{len(text)} bytes, allowed are {MAX_VALUE}")
    return json.loads(text)


def _suspect(
    fault: str, confidence: float, evidence: str, line: int | None = None, layer: str | None = None
) -> dict[str, Any]:
    share = float(confidence)
    number = isinstance(confidence, int | float) and not isinstance(confidence, bool)
    place = line is None or (isinstance(line, int) and not isinstance(line, bool) and abs(line) <= MAX_LINE)
    if not (number and place and 0 <= share <= 1):
        raise ValueError("a confidence or a line is none")
    known = None if layer is None else plain(layer)
    return {"fault": plain(fault), "confidence": share, "evidence": plain(evidence), "line": line, "layer": known}


def plain(text: str) -> str:
    """Return text that every table and terminal takes: no half characters, no control codes, not too long."""
    if not isinstance(text, str):
        raise TypeError(f"{text!r} is no text")
    return "".join(c if c.isprintable() or c in "\n\t" else "\N{REPLACEMENT CHARACTER}" for c in text[:MAX_TEXT])
