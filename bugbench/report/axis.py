"""Where an axis is marked: at round numbers, as Heckbert lays down ("Nice Numbers for Graph Labels", Graphics Gems)."""

import math
from collections.abc import Sequence

ROUND = (1, 2, 5, 10)
SLACK = 1e-9  # of a step, for numbers that rounding puts just beyond an end


def round_numbers(low: float, high: float, number: int = 4, whole: bool = False) -> list[float]:
    """Return round numbers from ``low`` to ``high``, some ``number`` of them.

    Args:
        low: the lower end.
        high: the upper end; ``low`` itself is the only mark where both are the same.
        number: how many are wanted, more or less.
        whole: whether only whole numbers will do.
    """
    if not high > low:
        return [low]
    raw = (high - low) / max(number - 1, 1)
    if whole:
        raw = max(raw, 1.0)
    unit = 10.0 ** math.floor(math.log10(raw))
    step = min((factor * unit for factor in ROUND), key=lambda step: abs(math.log(step / raw)))
    first, last = math.ceil(low / step - SLACK), math.floor(high / step + SLACK)
    return [float(f"{i * step:.12g}") for i in range(first, last + 1)]


def powers(low: float, high: float, number: int = 4) -> list[float]:
    """Return powers of ten from ``low`` to ``high``, both positive, with numbers between them where they are few.

    Args:
        low: the lower end.
        high: the upper end.
        number: how many there are at most.
    """
    first, last = math.floor(math.log10(low)), math.ceil(math.log10(high))
    for factors in ((1, 2, 5), (1, 3), (1,)):
        marks = [float(f"{factor}e{power}") for power in range(first, last + 1) for factor in factors]
        marks = [mark for mark in marks if low * (1 - SLACK) <= mark <= high * (1 + SLACK)]
        if len(marks) <= number:
            return marks
    return marks[:: math.ceil(len(marks) / number)]


def texts(marks: Sequence[float]) -> list[str]:
    """Return the numbers in three digits, or in as many as tell them apart."""
    for digits in range(3, 17):
        found = [_short(mark, digits) for mark in marks]
        if len(set(found)) == len(marks):
            break
    return found


def _short(value: float, digits: int) -> str:
    mantissa, _, exponent = f"{value:.{digits}g}".partition("e")
    return f"{mantissa}e{int(exponent)}" if exponent else mantissa
