"""The evaluations that a trace holds whole: of a large one, only the first batches were kept."""

from bugbench.trace import Batch, Trace


def whole_evaluations(trace: Trace, split: str) -> dict[int, list[Batch]]:
    """Return the batches of every evaluation of ``split`` of which none is missing, by step, in the order of steps."""
    logged = trace.steps[trace.steps["split"] == split].groupby("step").size()
    return {step: batches for step, batches in _recorded(trace, split).items() if len(batches) == logged.get(step)}


def fair_evaluations(trace: Trace, split: str) -> dict[int, list[Batch]]:
    """Return the evaluations that show all classes: whole ones, and parts of those with many targets a sample.

    The first samples of a part may be all of one class, as those of a folder of images are; those of a text are not.
    """
    whole, recorded = whole_evaluations(trace, split), _recorded(trace, split)
    return {step: b for step, b in recorded.items() if step in whole or _many(b[0])}


def _recorded(trace: Trace, split: str) -> dict[int, list[Batch]]:
    by_step: dict[int, list[Batch]] = {}
    for batch in trace.batches(split):
        by_step.setdefault(batch.step, []).append(batch)
    return by_step


def _many(batch: Batch) -> bool:
    return batch.targets.dtype.kind in "iu" and batch.targets.size > len(batch.targets)
