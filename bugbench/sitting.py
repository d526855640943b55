"""What a panel does in its process: each member diagnoses one trace in turn; those that raise an alarm, also its parts.

See :mod:`bugbench.panel` for who sits on one.
"""

import shutil
import tempfile
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from bugbench.answers import Answer
from bugbench.diagnosing import perform
from bugbench.trace import export


def sit(request: Mapping[str, Any], folder: Path, seed: Callable[[], None]) -> Answer:
    """Return as ``value`` an answer for each of the request's ``members``, with ``seconds`` and ``alarm_step``.

    Args:
        request: ``members`` (each a ``detector`` and its ``knobs``), and for the time of an alarm the ``access`` that
            they share, the ``prefixes`` of the trace (numbers of training batches, rising) and its number of ``steps``.
        folder: the trace, cut to that access.
        seed: called before each diagnosis, to put every generator into one state.
    """
    answers = []
    for member in request["members"]:
        seed()
        started = time.perf_counter()
        answer = perform({**member, "task": "diagnose"}, folder)
        answers.append(answer | {"seconds": time.perf_counter() - started, "alarm_step": None})
    waiting = [n for n, answer in enumerate(answers) if answer["suspects"]]
    for number in waiting:
        answers[number]["alarm_step"] = max(request["steps"] - 1, 0)
    part = Path(tempfile.gettempdir()) / "part"
    for until in request["prefixes"] if waiting else []:
        export(folder, part, request["access"], until)
        for number in list(waiting):
            seed()
            if perform({**request["members"][number], "task": "diagnose"}, part)["suspects"]:
                answers[number]["alarm_step"] = until - 1
                waiting.remove(number)
        shutil.rmtree(part)
        if not waiting:
            break
    return {"status": "ok", "reason": "", "suspects": [], "value": answers}
