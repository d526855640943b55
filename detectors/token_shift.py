"""To which token was each position of a language model compared: itself, the next, or the one after that?"""

from dataclasses import dataclass

import numpy as np
from bugbench.detector import HEALTHY, Detector, Diagnosis, Trace, suspect
from bugbench.trace import Batch
from scipy.special import log_softmax


@dataclass
class TokenShift(Detector):
    """To which token was each position of a language model compared: itself, the next, or the one after that?

    Labels may be shifted in the data or inside the loss, as Hugging Face models do; done nowhere, the model copies its
    input (transformers issue 27517); done twice, it predicts the second next token (issue 32944). What counts is the
    sum of both, so targets alone tell nothing. Two ways to see it, without a threshold on a curve: the one negative
    entry of d loss / d outputs, (softmax - onehot) / N, names the token that a position was compared to; without a
    gradient, the loss is recomputed with targets 0, 1 and 2 further. The named tokens are then looked up in the inputs.

    * themselves: ``unshifted_lm_labels``, once the model also copies them (a model that shifts its own inputs, as T5's
      decoder does, learns to predict them instead, and is not accused);
    * the second next or later: ``double_shift``;
    * a token that does nothing but fill up rows of different lengths, and counts: ``padding_in_loss``.

    Only for the task "language_model" with tokens (B, T) as inputs, and outputs (B, T, C). A text that repeats itself
    so that several shifts fit is not judged; neither are masked or encoder-decoder models, where none fits.
    """

    access = {"data"}
    agreement: float = 0.99  # of the positions: a shift that is right fits all but those that are masked
    doubt: float = 0.9  # another shift that fits this well makes the text too repetitive to tell
    copied: float = 0.9  # share of positions that repeat their own token: no text is that predictable

    def diagnose(self, trace: Trace) -> Diagnosis:
        batches = [b for b in trace.batches() if _is_sequence(b)]
        if trace.meta.get("task") != "language_model" or len(batches) < 2:
            return HEALTHY
        compared = [tokens for b in batches if (tokens := _compared(b)) is not None]
        if len(compared) < len(batches):
            return HEALTHY
        fits = np.array([_fits(b.inputs, tokens) for b, tokens in zip(batches, compared, strict=True)]).mean(axis=0)
        shift = int(fits.argmax())
        clear = fits[shift] >= self.agreement and np.delete(fits, shift).max() < self.doubt
        last = batches[-1].outputs.argmax(axis=-1)
        if clear and shift == 0 and (last == compared[-1])[compared[-1] >= 0].mean() > self.copied:
            return suspect("unshifted_lm_labels", f"{fits[0]:.1%} of the positions were compared to their own token")
        if clear and shift > 1:
            return suspect("double_shift", f"{fits[shift]:.1%} of the positions were compared to token t + {shift}")
        if all(_counts_padding(b.inputs, tokens) for b, tokens in zip(batches, compared, strict=True)):
            return suspect("padding_in_loss", "the loss also compares the token that fills up the rows")
        return HEALTHY


def _is_sequence(batch: Batch) -> bool:
    tokens = np.issubdtype(batch.inputs.dtype, np.integer) and batch.inputs.ndim == 2 and batch.outputs.ndim == 3
    return bool(tokens and batch.outputs.shape[:2] == batch.inputs.shape and len(batch.inputs[0]) > 4)


def _compared(batch: Batch) -> np.ndarray | None:
    """Return the token (B, T) that each position was compared to, -1 where to none; None if it cannot be told."""
    slope = batch.output_gradients
    if slope is not None and slope.shape == batch.outputs.shape and np.isfinite(slope).all() and slope.any():
        return np.where(np.abs(slope).sum(axis=-1) > 0, slope.argmin(axis=-1), -1)
    if batch.targets.shape != batch.inputs.shape or not np.issubdtype(batch.targets.dtype, np.integer):
        return None
    scores = log_softmax(batch.outputs.astype(np.float64), axis=-1)
    for shift in range(3):
        moved: np.ndarray = np.full(batch.targets.shape, -1, dtype=np.int64)
        moved[:, : batch.targets.shape[1] - shift] = batch.targets[:, shift:]
        counted = (moved >= 0) & (moved < scores.shape[-1])
        own = np.take_along_axis(scores, np.where(counted, moved, 0)[..., None], axis=-1)[..., 0]
        if counted.any() and np.isclose(-own[counted].mean(), batch.loss, rtol=1e-4):
            return np.where(counted, moved, -1)
    return None


def _fits(inputs: np.ndarray, compared: np.ndarray) -> np.ndarray:
    """Return the share of compared positions whose token is the one 0, 1, 2, 3 further in the inputs."""
    length = inputs.shape[1]
    shares = []
    for shift in range(4):
        tokens = compared[:, : length - shift]
        same = (tokens == inputs[:, shift:])[tokens >= 0]
        shares.append(same.mean() if same.size else 0.0)
    return np.array(shares)


def _counts_padding(inputs: np.ndarray, compared: np.ndarray) -> bool:
    """Tell whether rows end in runs, of different lengths, of a token that is nowhere else, and these were compared."""
    tokens, counts = np.unique(inputs[:, -1], return_counts=True)
    filler = tokens[counts.argmax()]
    is_filler = inputs == filler
    run = np.logical_and.accumulate(is_filler[:, ::-1], axis=1)[:, ::-1]
    lengths = run.sum(axis=1)
    padded = bool((run == is_filler).all() and (lengths > 1).mean() >= 0.25 and len(np.unique(lengths)) >= 3)
    inside = run & np.roll(run, 1, axis=1) & np.roll(run, -1, axis=1)  # not the first, which may mean "end of text"
    inside[:, [0, -1]] = False
    return padded and bool(inside.any()) and bool((compared[inside] == filler).mean() > 0.99)
