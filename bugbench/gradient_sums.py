"""Is a gradient that of one batch, or the sum over all so far? What the numbers tell, whatever was called."""

import numpy as np
import pandas as pd
from bugbench.trace import Trace

FIRST = 4  # batches that are kept whole one after the other
GROWTH = 0.25  # slope of log norm over log batches: 0 of single gradients, 1/2 (a random walk) to 1 of their sums
ROUNDING = 1e-5  # of the largest gradient: a hundred float32 roundings; below, as before batch norm, noise may cancel


def adds_up(trace: Trace, model: str, tolerance: float) -> bool | None:
    """Tell whether gradients of a watched model are sums over batches; None where nothing decides.

    Where the outputs are a layer's own, the gradient of its bias is the sum of d loss / d outputs over all other axes:
    that of this batch, or of all so far. And zeros cannot come back into a gradient while gradients add up.
    """
    orders = trace.train_steps()["order"].fillna("")[: FIRST + 1]
    stepped = [(f"{model}.step" if model else "step") in order.split() for order in orders]
    late = bool(stepped) and not stepped[0]  # logged before the step: gradients show with the next batch
    if len(stepped) <= FIRST or not all(stepped[late:]):
        return None  # accumulation: a sum over batches is in order
    gradients = _of_model(trace, model)
    slopes: list[np.ndarray] = []
    for batch in trace.batches()[:FIRST]:
        if batch.step == len(slopes) and batch.output_gradients is not None:
            slopes.append(batch.output_gradients.astype(np.float64))
    for _, recorded in gradients[gradients["layer"].str.endswith("bias")].groupby("layer"):
        rows = recorded.set_index("step").reindex([step + late for step in range(FIRST)])
        seen = rows[["mean", "std", "min", "max"]].to_numpy(dtype=np.float64)
        for axis in (None, 1, -1):
            answer = _answer(seen, [_summed(slope, axis) for slope in slopes], tolerance)
            if answer is not None:
                return answer
    size = gradients[["min", "max"]].abs().max(axis=1)
    told = gradients[size > ROUNDING * size.groupby(gradients["step"]).transform("max")]
    return False if (told.groupby("layer")["zero_share"].diff() > 0).any() else None


def grow(trace: Trace, model: str) -> bool:
    """Tell whether gradients grow with the number of batches as sums do; True where too few were seen to tell."""
    train = trace.train_steps()
    norms = train.get(f"{model}.grad_norm" if model else "grad_norm", pd.Series(np.nan, train.index))
    known = (norms > 0) & np.isfinite(norms)
    if known.sum() < FIRST:
        return True
    return bool(np.polyfit(np.log(train.loc[known, "step"] + 1), np.log(norms[known]), 1)[0] > GROWTH)


def _of_model(trace: Trace, model: str) -> pd.DataFrame:
    gradients = trace.layers[trace.layers["kind"] == "gradient"]
    if model:
        return gradients[gradients["layer"].str.startswith(f"{model}.")]
    others = tuple(size.removesuffix("parameters") for size in trace.meta.get("sizes", {}) if size != "parameters")
    return gradients[~gradients["layer"].str.startswith(others)] if others else gradients


def _summed(slope: np.ndarray, axis: int | None) -> np.ndarray:
    """Return the sum over all axes but one; over all, for a single output, where there is no such axis."""
    if axis is None or slope.ndim < 2:
        return slope.sum(keepdims=True).reshape(1)
    return np.moveaxis(slope, axis, -1).reshape(-1, slope.shape[axis]).sum(axis=0)


def _answer(seen: np.ndarray, own: list[np.ndarray], tolerance: float) -> bool | None:
    """Tell whether statistics of a bias gradient are those of the sums so far or of each alone; None if unclear."""
    total, answers, start = np.zeros(()), [], np.nan
    for number, (statistics, alone) in enumerate(zip(seen, own, strict=False)):
        if number and alone.shape != own[0].shape:
            break
        total = total + alone
        scales = np.array([_scale(statistics, values, tolerance) for values in (alone, total)])
        fits = np.isfinite(scales)
        start = scales[0] if not number else start
        if number and fits.all():  # one output, or two that mirror each other, have but a size to tell by
            fits = np.abs(scales / start - 1) <= tolerance
        if not fits.any():
            break
        answers += [tuple(fits)] if number else []
    enough = len(answers) > (own[0].size <= 2 if own else 0)  # a size alone may agree by chance
    return bool(answers[0][1]) if enough and len(set(answers)) == 1 and sum(answers[0]) == 1 else None


def _scale(seen: np.ndarray, values: np.ndarray, tolerance: float) -> float:
    """Return how many times ``values`` was seen, going by its statistics; NaN if it was not.

    Loss scaling and clipping change the scale.
    """
    expected = np.array([values.mean(), values.std(), values.min(), values.max()])
    size = np.linalg.norm(seen)
    if not size > 0 or (values.size == 1) != (seen[1] == 0):
        return np.nan
    scale = seen @ expected / max(expected @ expected, 1e-30)
    return float(scale) if np.linalg.norm(seen - scale * expected) <= tolerance * size else np.nan
