"""A small training program, recorded, every habit of which can be broken."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from bugbench.detector import Trace
from bugbench.recorder import Recorder
from torch import nn


@dataclass
class Program:
    """A small training program, every habit of which can be broken."""

    order: str = "zero_grad forward backward step"
    train_mode: bool = True
    eval_mode: bool = False
    frozen: bool = False
    reported: Callable[[float], float] = lambda mean: mean
    batches: Callable[[int], Iterator[torch.Tensor]] = lambda epoch: torch.randperm(40).split(10)
    rate: Callable[[int, int], float] = lambda epoch, step: 0.1
    val: torch.Tensor = field(default_factory=lambda: torch.arange(40, 60))
    inputs: Callable[[torch.Tensor], torch.Tensor] = lambda x: x
    epochs: int = 3

    def run(self, folder: Path, task: str = "classification") -> Trace:
        torch.manual_seed(0)
        x = torch.randn(60, 4)
        y = (x[:, 0] > 0).long()
        x = self.inputs(x)
        model = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Dropout(0.1), nn.Linear(8, 2))
        if self.frozen:
            model[0].requires_grad_(False)
        optimizer = torch.optim.SGD([p for p in model.parameters() if p.requires_grad], lr=0.1)
        recorder = Recorder(folder, task=task, classes=2)
        recorder.watch(model, optimizer)
        for epoch in range(self.epochs):
            model.train(self.train_mode)
            losses = []
            for step, chosen in enumerate(self.batches(epoch)):
                optimizer.param_groups[0]["lr"] = self.rate(epoch, step)
                calls: dict[str, Callable[[], Any]] = {"zero_grad": optimizer.zero_grad, "step": optimizer.step}
                for call in self.order.split():
                    if call == "forward":
                        outputs = model(x[chosen])
                        loss = nn.functional.cross_entropy(outputs, y[chosen])
                    elif call == "backward":
                        loss.backward()
                    else:
                        calls[call]()
                recorder.log_batch("train", inputs=x[chosen], targets=y[chosen], outputs=outputs, loss=loss)
                losses.append(loss.item())
            recorder.log_metrics("train", loss=self.reported(float(np.mean(losses))), accuracy=0.5)
            model.train(self.eval_mode)
            with torch.no_grad():
                outputs = model(x[self.val])
                loss = nn.functional.cross_entropy(outputs, y[self.val])
            recorder.log_batch("val", inputs=x[self.val], targets=y[self.val], outputs=outputs, loss=loss)
            recorder.log_metrics("val", loss=loss.item(), accuracy=0.5 + 0.1 * epoch)
        recorder.finish()
        return Trace(folder)
