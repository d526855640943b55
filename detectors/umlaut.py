"""UMLAUT's heuristics: inputs, learning rate, activations, softmax, dropout, over-fitting, validation accuracy."""

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise

import pandas as pd
from bugbench.detector import Detector, Diagnosis, Suspect, Trace
from bugbench.keras_causes import inputs_beyond
from bugbench.keras_view import ACTIVATIONS, WEIGHTED, by_model, called, epoch_logs
from bugbench.program_text import activated, dropout_rates, loss_without_softmax, reached

# umserver/errors.py, ERROR_KEYS: how grave each message calls itself, and the faults that its advice would undo
FAULTS = {
    "nan_input": (0.9, "nan_inputs"),  # Critical
    "no_softmax": (0.9, "nll_on_logits"),
    "missing_activations": (0.9, "missing_nonlinearity"),
    "input_normalization": (0.6, "missing_normalization"),  # Error
    "input_wrong_shape": (0.6, "swapped_axes view_for_permute"),
    "lr_high": (0.3, "lr_too_high"),  # Warning
    "lr_low": (0.3, "lr_too_low"),
    "overfitting": (0.3, "overfit_capacity"),
    "overconfident_val": (0.3, "train_in_validation split"),  # overlap, labels, or other preparation
    "activation_final_layer": (0.3, "activation_on_logits"),
    "high_dropout_rate": (0.3, "excess_dropout"),
}
Message = tuple[str, str, str | None]  # a key of FAULTS, what was seen, the layer


@dataclass
class Umlaut(Detector):
    """UMLAUT (Schoop, Huang & Hartmann, CHI 2021), ported from BerkeleyHCI/umlaut, umlaut/heuristics.py.

    All messages are answers: of 113 healthy models 103 get one in DeepDiagnosis's records (DeepDiagnosis/ICSE2022).
    Before training (run_pretrain_heuristics), and from input_normalization on after each epoch (run_epoch_heuristics):

    - no_softmax: none comes last and the loss applies none; asked of every loss, that of a regression too;
    - missing_activations: a Dense or convolution but the last without an activation; activation_final_layer: the last
      has one other than softmax; high_dropout_rate: above ``dropout``;
    - input_normalization: inputs beyond [-1, 1]; input_wrong_shape: images that are not square; nan_input: NaN in loss
      and inputs; lr_high, lr_low: above 0.01, below 1e-7;
    - overfitting: the validation loss rises within an epoch, the training loss does not;
    - overconfident_val: from epoch 3, validation accuracy above 0.95, or above training accuracy by more than 0.05.

    Changed: the gravest comes first, on UMLAUT's page the latest epoch (umserver/callbacks.py). Inputs are those of all
    training steps looked at; the source has the model's last call, in validation if there is any. An epoch ends when it
    is evaluated. In Keras an activation is an argument; here it is a layer before the model's next Dense, convolution
    or recurrent layer is called, or a call around the layer, its norm, dropout or pooling in the text of ``forward``.
    Where that is given what no layer of the class made, or two classes differ in a layer of one name, rules on
    activations are silent. Projections of attention have none, and are flagged as in Keras. Of softmax the source wants
    a layer, and flags an argument; in PyTorch it is a layer or a call, both taken for a layer whatever the loss. Losses
    asked are PyTorch's own, less those on raw scores (from_logits); a softmax around what they get comes last, too.
    Dropout rates are read in text and settings. Left out: inputs that are no floats, which the source's own callback
    makes floats first, so that its rule never holds. Token indices count as inputs, as there.
    """

    access = {"tensors", "data", "source"}
    origin = "published"
    bound: float = 1.0
    lr_high: float = 0.01
    lr_low: float = 1e-7
    dropout: float = 0.5
    first_epoch: int = 3
    val_accuracy: float = 0.95
    ahead: float = 0.05

    def diagnose(self, trace: Trace) -> Diagnosis:
        found, logs = list(self._model(trace)), epoch_logs(trace)
        found += [*self._inputs(trace), *self._curves(trace, logs)] if len(logs) else []
        messages = {name: (text, layer) for name, text, layer in reversed(found)}  # the first of each kind
        return Diagnosis(
            Suspect(fault, FAULTS[name][0] / (i + 1), f"{name}: {messages[name][0]}", layer=messages[name][1])
            for name in FAULTS
            if name in messages
            for i, fault in enumerate(FAULTS[name][1].split())
        )

    def _model(self, trace: Trace) -> Iterator[Message]:
        models, activating = by_model(trace), activated(trace.source, called(trace))
        ends = any("Softmax" in kind for layers in models for kind in list(layers.values())[-1:])
        if not ends and (loss := loss_without_softmax(trace.source, trace.config)):
            yield "no_softmax", f"{loss} applies no softmax, and none comes last", None
        for layers in models:
            functions = {name: sure for path, sure in activating.items() for name in reached(path, layers)}
            names = [name for name, kind in layers.items() if kind.startswith(WEIGHTED) or kind in ACTIVATIONS]
            for name, after in pairwise(names):
                bare = layers[name].startswith(("Linear", "Conv")) and layers[after] not in ACTIVATIONS
                if bare and name not in functions and "" not in activating:
                    yield "missing_activations", f"no activation between {name} and {after}", name
            for name in [name for name in layers if "Softmax" not in layers[name]][-1:]:
                if layers[name] in ACTIVATIONS or functions.get(name):
                    yield "activation_final_layer", f"an activation comes last, at {name} ({layers[name]})", name
        if rates := [rate for rate in dropout_rates(trace.source, trace.config) if rate > self.dropout]:
            yield "high_dropout_rate", f"a dropout rate is {max(rates):g}", None

    def _inputs(self, trace: Trace) -> Iterator[Message]:
        train = trace.train_steps()
        if answer := inputs_beyond(trace, -self.bound, self.bound):
            yield "input_normalization", answer[1], None
        for batch in trace.batches("train"):
            if batch.inputs.ndim == 4 and batch.inputs.shape[2] != batch.inputs.shape[3]:
                yield "input_wrong_shape", f"images have the shape {batch.inputs.shape[1:]}", None
        holes = train.reindex(columns=["input_nonfinite", "input_min"])
        holes = holes[(holes["input_nonfinite"] > 0) & holes["input_min"].isna()]
        if train["loss"].isna().any() and len(holes):
            yield "nan_input", f"loss and inputs are NaN, the inputs from step {train['step'][holes.index[0]]} on", None

    def _curves(self, trace: Trace, logs: pd.DataFrame) -> Iterator[Message]:
        rates = trace.train_steps().set_index("step")["lr"].reindex(logs["until"] - 1).to_numpy(dtype=float)
        change = logs.reindex(columns=["loss", "val_loss"]).diff().to_numpy()
        accuracy = logs.reindex(columns=["acc", "val_acc"]).to_numpy()
        for epoch, (rate, (loss, val_loss), (acc, val_acc)) in enumerate(zip(rates, change, accuracy, strict=True)):
            if rate > self.lr_high or rate < self.lr_low:
                yield ("lr_high" if rate > self.lr_high else "lr_low"), f"{rate:.3g} at epoch {epoch}", None
            if val_loss > 0 and loss <= 0:
                yield "overfitting", f"at epoch {epoch} losses change by {loss:.2g} and {val_loss:.2g}", None
            if epoch >= self.first_epoch and (val_acc > self.val_accuracy or val_acc - acc > self.ahead):
                text = f"at epoch {epoch} validation accuracy is {val_acc:.3g}, training accuracy {acc:.3g}"
                yield "overconfident_val", text, None
