"""Lightning's EarlyStopping: does the monitored metric stay finite?"""

import logging
import tempfile
import warnings
from dataclasses import dataclass
from typing import Any

import torch
from bugbench.detector import Detector, Diagnosis, NotApplicable, Trace
from bugbench.sample_tables import evaluation_split
from bugbench.third_party import Message, tool, translate

FAULTS = {"NON_FINITE_METRIC": ["numerics"], "NOT_STOPPED": ()}


@dataclass
class LightningEarlyStopping(Detector):
    """Lightning 2.6.6, the callback ``EarlyStopping(check_finite=True)`` on the recorded losses.

    Lightning's ``Trainer`` plays the run's losses to the callback, epoch by epoch: the mean of the training batches,
    and the loss that the program reports of an evaluation. A loss that is not finite is the one fault that it tells of.
    That the metric no longer improves is how training is meant to end, so no fault; ``patience`` is the length of the
    run, since the callback looks at nothing after it has stopped.
    """

    access = {"curves"}
    origin = "tool"

    def diagnose(self, trace: Trace) -> Diagnosis:
        lightning, callbacks = tool("lightning.pytorch"), tool("lightning.pytorch.callbacks")
        steps = trace.train_steps()
        if steps.empty:
            raise NotApplicable("the program logs no training batch")
        curves = {"train_loss": [float(loss.mean(skipna=False)) for _, loss in steps.groupby("epoch")["loss"]]}
        reported = trace.metrics[trace.metrics["name"] == "loss"]
        if split := evaluation_split(reported["split"]):
            curves[f"{split}_loss"] = [float(v) for v in trace.metric(split, "loss")]
        messages = []
        for name, values in curves.items():
            callback = callbacks.EarlyStopping(name, patience=len(values), check_finite=True)
            _play(lightning, callback, name, values)
            messages.append(Message(callback.stopping_reason.name, callback.stopping_reason_message or ""))
        return translate(messages, FAULTS)


def _play(lightning: Any, callback: Any, name: str, values: list[float]) -> None:
    class Recorded(lightning.LightningModule):  # type: ignore[name-defined,misc]
        def __init__(self) -> None:
            super().__init__()
            self.weight = torch.nn.Parameter(torch.zeros(()))

        def training_step(self, batch: Any, number: int) -> Any:
            return self.weight

        def on_train_epoch_end(self) -> None:
            self.log(name, torch.tensor(values[self.current_epoch]))

        def configure_optimizers(self) -> Any:
            return torch.optim.SGD(self.parameters(), lr=0.0)

    quiet: dict[str, Any] = dict.fromkeys(
        ("logger", "enable_checkpointing", "enable_progress_bar", "enable_model_summary"), False
    )
    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
    with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        quiet |= {"accelerator": "cpu", "devices": 1, "default_root_dir": folder, "callbacks": [callback]}
        trainer = lightning.Trainer(max_epochs=len(values), **quiet)
        trainer.fit(Recorded(), torch.utils.data.DataLoader([0]))  # type: ignore[arg-type]
