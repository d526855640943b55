"""What the traceback of a run that raised says."""

import re
from dataclasses import dataclass

from bugbench.detector import HEALTHY, Detector, Diagnosis, Suspect, Trace

# What the message says, and the suspects in order. The first row that is found counts. Messages are those of PyTorch
# 2.0 to 2.13, NumPy and scikit-learn.
MESSAGES: list[tuple[str, list[str]]] = [
    (r"Target -?\d+ is out of bounds|Class values must be|t >= 0 && t < n_classes", ["label_out_of_range"]),
    (
        r"index out of range in self|takes value \d+ which is not in the valid range|srcSelectDimSize",
        ["token_out_of_range"],
    ),
    (r"index \d+ is out of bounds for dimension 1", ["label_out_of_range", "token_out_of_range"]),
    (r"index \d+ is out of bounds for dimension 0", ["token_out_of_range", "label_out_of_range"]),
    (r"contains NaN", ["nan_inputs"]),
    (r"contains infinity", ["inf_inputs"]),
    (r"loading state_dict", ["randomness"]),  # the family of checkpoints
    (r"device-side assert", ["label_out_of_range", "token_out_of_range"]),
    (
        r"same device|on the expected device|meta tensor|FloatTensor\) and weight type|device type tensor",
        ["device_mismatch"],
    ),
    (r"Sizes of tensors must match except|same number of dimensions", ["concat_wrong_dim", "shape_mismatch"]),
    (r"shape '\[(?!1,)\d+,.*is invalid for input", ["hardcoded_batch_size", "shape_mismatch"]),
    (r"Expected hidden.* size", ["hardcoded_batch_size", "hidden_state_carried"]),
    (r"out of memory|[Cc]an't allocate memory|Unable to allocate|MemoryError", ["memory_growth"]),
    (r"multi-target not supported", ["shape_mismatch", "dtype_mismatch"]),
    (
        r"dtype|scalar type|not implemented for '|Input type .* and bias type|can't be cast to|must be Long",
        ["dtype_mismatch"],
    ),
    (r"LongTensor|Expected floating point type|only support floating|can't convert np", ["dtype_mismatch"]),
    (r"cannot be multiplied|batch_size \(\d+\) to match|size mismatch|Size mismatch, ", ["shape_mismatch"]),
    (r"must match the size|existing size|invalid for input of size|to have \d+ channels", ["shape_mismatch"]),
    (r"[Ee]xpected \d\w?\b.* input|[Ee]xpected (input|target|size)|[Tt]arget size|input_size", ["shape_mismatch"]),
    (r"normalized_shape|running_mean|broadcast|equal size|[Kk]ernel size|Output size|attn_mask", ["shape_mismatch"]),
    (r"embedding dimension|Dimension out of range|view size is not compatible", ["shape_mismatch"]),
    (r"more than 1 value per channel", ["batch_size_one"]),
    (r"does not require grad", ["detached_features", "frozen_layers"]),
    (r"empty parameter list", ["unregistered_layers"]),
    (r"through the graph a second time", ["hidden_state_carried", "training_loop"]),
    (r"modified by an inplace operation", ["step_before_backward", "gan_not_detached"]),
    (r"'(Sqrt|Norm|LinalgVectorNorm|Std|Var|Acos|Asin|Pow)\w*Backward\d*' returned nan", ["sqrt_grad_at_zero"]),
    (r"'Log\w*Backward\d*' returned nan", ["log_of_zero"]),
    (r"'(Exp|Softmax)\w*Backward\d*' returned nan", ["exp_overflow"]),
    (r"'Div\w*Backward\d*' returned nan", ["divide_by_zero_std"]),
    (r"(?i)returned nan|\bnan\b|non-?finite|not finite|invalid values", ["numerics"]),
    (r"between 0 and 1|implicitly created only for scalar", ["loss"]),
    (r"Size mismatch between tensors|inconsistent numbers of samples", ["labels"]),
    (r"num_samples should be", ["data"]),
]
FITS_AT_FIRST = {"shape_mismatch", "concat_wrong_dim"}


@dataclass
class TracebackReader(Detector):
    """Reads the message of the error that ended the run; the line is that of the innermost frame in the program.

    The table above maps messages to faults. Three things are read besides the message:

    - A shape that fits the first batches and not a later one depends on their number of samples: once a training batch
      went through, `hardcoded_batch_size` comes before the other explanations of a wrong shape.
    - Two (three) tensors put on top of each other, instead of side by side, make a batch of twice (three times) the
      samples with half (a third) of the features that the next layer wants.
    - Memory that runs out before the third batch was never enough, and does not grow.

    An error with a message unknown to the table is a crash, no more.
    """

    early: int = 3  # batches

    def diagnose(self, trace: Trace) -> Diagnosis:
        if not trace.error:
            return HEALTHY
        frames = re.findall(r'^\s*File "program\.py", line (\d+)', trace.error, flags=re.M)
        parts = re.split(r"^(?=\S)", trace.error, flags=re.M)  # the frames are indented, the message is not
        message = "".join(part for part in parts if not part.startswith("Traceback")).strip()
        steps = len(trace.train_steps())
        faults = next((list(faults) for pattern, faults in MESSAGES if re.search(pattern, message)), ["crash"])
        if FITS_AT_FIRST & set(faults[:1]):
            faults = ["hardcoded_batch_size", *faults] if steps else _stacked(message) + faults
        elif faults == ["memory_growth"] and steps < self.early:
            faults = ["crash"]
        elif faults[0] == "step_before_backward" and not steps:
            faults = ["crash"]  # the first step has nothing to change yet: this is an operation of the model's
        elif faults[0] == "hidden_state_carried" and not _recurrent(trace):
            faults = faults[::-1]
        line = int(frames[-1]) if frames else None
        text = f"after {steps} training batches: {message[:200]}"
        faults = list(dict.fromkeys(faults))
        return Diagnosis(Suspect(fault, 0.9 / (i + 1), text, line=line) for i, fault in enumerate(faults))


def _recurrent(trace: Trace) -> bool:
    return bool({"RNN", "LSTM", "GRU", "RNNCell", "LSTMCell", "GRUCell"} & set(trace.meta.get("layers", {}).values()))


def _stacked(message: str) -> list[str]:
    """Return the suspect of a concatenation along the batch if sizes are each other's double or triple."""
    sizes = re.search(r"\(\d+x(\d+) and (\d+)x\d+\)|batch_size \((\d+)\) to match target batch_size \((\d+)\)", message)
    if sizes is None:
        return []
    small, large = sorted(int(size) for size in sizes.groups() if size is not None)
    return ["concat_wrong_dim"] if small and large in (2 * small, 3 * small) else []
