"""Findings on electrocardiograms, from several processes: each has patients of its own, the gradient is their mean."""

import json
import tempfile
from datetime import timedelta

import numpy as np
import pandas as pd
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
import torch.nn.functional as F
from bugbench import recorder
from torch import nn
from torch.nn.parallel import DistributedDataParallel
from torch.utils.data import DataLoader, TensorDataset

PATIENCE = timedelta(seconds=30)  # for a process that does not answer


class ECGNet(nn.Module):
    """Signals (batch, leads, time) in, logits (batch, findings) out."""

    def __init__(self, leads, findings, channels, dropout):
        super().__init__()
        self.features = nn.Sequential(
            nn.Conv1d(leads, channels, 9, stride=2, padding=4),
            nn.BatchNorm1d(channels),
            nn.ReLU(),
            nn.MaxPool1d(2),
            nn.Conv1d(channels, 2 * channels, 9, padding=4),
            nn.BatchNorm1d(2 * channels),
            nn.ReLU(),
            nn.MaxPool1d(2),
            nn.Conv1d(2 * channels, 2 * channels, 9, padding=4),
            nn.BatchNorm1d(2 * channels),
            nn.ReLU(),
        )
        self.dropout = nn.Dropout(dropout)
        self.head = nn.Linear(2 * channels, findings)

    def forward(self, x):
        x = self.features(x)
        # A finding may show in any beat: the mean over time.
        x = x.mean(dim=-1)
        x = self.dropout(x)
        return self.head(x)


class NoRecord:
    """Stands in for the run in every process but the first: one record is enough."""

    def watch(self, *arguments, **keywords):
        pass

    def log_batch(self, *arguments, **keywords):
        pass

    def log_metrics(self, *arguments, **keywords):
        pass


def to_tensor(signals):
    """Turn records (n, time, leads) into float signals (n, leads, time), in units of the converter still."""
    return torch.as_tensor(signals, dtype=torch.float32).transpose(1, 2)


def load_data(data_dir):
    """Return signals (n, leads, time), targets (n,), the patient of each record, and the names of the findings."""
    findings = json.loads((data_dir / "findings.json").read_text())
    annotations = pd.read_csv(data_dir / "annotations.csv").set_index("record")
    paths = sorted((data_dir / "records").glob("*.npy"))
    signals = np.stack([np.load(path) for path in paths])
    annotations = annotations.loc[[path.stem for path in paths]]
    targets = torch.tensor([findings.index(finding) for finding in annotations["finding"]])
    patients = torch.tensor(annotations["patient"].to_numpy())
    return to_tensor(signals), targets, patients, findings


def split(inputs, targets, patients):
    """Hold out a quarter for validation."""
    held_out = torch.isin(patients, patients.unique()[1::4])
    return inputs[~held_out], targets[~held_out], inputs[held_out], targets[held_out]


def shard(inputs, targets):
    """Return this process's part, which is another in each process and of the same size in all."""
    rank = dist.get_rank()
    size = len(targets) // dist.get_world_size()
    part = slice(rank * size, (rank + 1) * size)
    return inputs[part], targets[part]


def normalize(inputs, mean, std):
    return (inputs - mean) / std


def augment(inputs):
    """Shift every signal in time, scale it a little and add some noise, each in its own way."""
    shifts = torch.randint(inputs.size(-1), (len(inputs),)).tolist()
    shifted = torch.stack([signal.roll(shift, dims=-1) for signal, shift in zip(inputs, shifts, strict=True)])
    scale = 1 + 0.1 * torch.randn(len(inputs), 1, 1)
    return scale * shifted + 0.05 * torch.randn_like(inputs)


def build_loaders(train_inputs, train_targets, val_inputs, val_targets, config):
    train_set = TensorDataset(train_inputs, train_targets)
    val_set = TensorDataset(val_inputs, val_targets)
    train_loader = DataLoader(train_set, batch_size=config.batch_size, shuffle=True)
    val_loader = DataLoader(val_set, batch_size=config.batch_size)
    return train_loader, val_loader


def build_model(config, leads, findings):
    return ECGNet(leads, findings, config.channels, config.dropout)


def build_optimizer(model, config):
    return torch.optim.SGD(model.parameters(), lr=config.lr, momentum=config.momentum)


def loss_function(outputs, targets):
    return F.cross_entropy(outputs, targets)


def mean_over_ranks(*numbers):
    total = torch.tensor(numbers, dtype=torch.float64)
    dist.all_reduce(total)
    return (total / dist.get_world_size()).tolist()


def train_epoch(model, loader, optimizer, run):
    model.train()
    total_loss, correct, count = 0.0, 0, 0
    for samples, targets in loader:
        inputs = augment(samples)
        optimizer.zero_grad()
        outputs = model(inputs)
        loss = loss_function(outputs, targets)
        loss.backward()
        optimizer.step()
        run.log_batch("train", inputs=inputs, targets=targets, outputs=outputs, loss=loss, samples=samples)
        total_loss += loss.item() * len(targets)
        correct += (outputs.argmax(dim=1) == targets).sum().item()
        count += len(targets)
    total_loss, correct, count = mean_over_ranks(total_loss, correct, count)
    run.log_metrics("train", loss=total_loss / count, accuracy=correct / count)


@torch.no_grad()
def evaluate(model, loader, run):
    model.eval()
    total_loss, correct, count = 0.0, 0, 0
    for inputs, targets in loader:
        outputs = model(inputs)
        loss = loss_function(outputs, targets)
        run.log_batch("val", inputs=inputs, targets=targets, outputs=outputs, loss=loss)
        total_loss += loss.item() * len(targets)
        correct += (outputs.argmax(dim=1) == targets).sum().item()
        count += len(targets)
    total_loss, correct, count = mean_over_ranks(total_loss, correct, count)
    run.log_metrics("val", loss=total_loss / count, accuracy=correct / count)


def train(rank, meeting_point, config, run):
    """Do what one process has to do; all do the same, each with its own part of the data."""
    dist.init_process_group("gloo", init_method=meeting_point, rank=rank, world_size=config.processes, timeout=PATIENCE)
    torch.manual_seed(config.seed)
    inputs, targets, patients, findings = load_data(config.data_dir)
    train_inputs, train_targets, val_inputs, val_targets = split(inputs, targets, patients)
    # Each lead has a level and a deviation of its own.
    mean, std = train_inputs.mean(dim=(0, 2), keepdim=True), train_inputs.std(dim=(0, 2), keepdim=True)
    train_inputs = normalize(train_inputs, mean, std)
    val_inputs = normalize(val_inputs, mean, std)
    train_inputs, train_targets = shard(train_inputs, train_targets)
    val_inputs, val_targets = shard(val_inputs, val_targets)
    train_loader, val_loader = build_loaders(train_inputs, train_targets, val_inputs, val_targets, config)
    model = build_model(config, leads=inputs.size(1), findings=len(findings))
    optimizer = build_optimizer(model, config)
    scheduler = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, T_max=config.epochs)
    run.watch(model, optimizer)
    ddp_model = DistributedDataParallel(model)

    for _ in range(config.epochs):
        train_epoch(ddp_model, train_loader, optimizer, run)
        evaluate(model, val_loader, run)
        scheduler.step()

    def predict(signals):
        """Scores of the findings for raw records (n, time, leads)."""
        inputs = normalize(to_tensor(signals), mean, std)
        model.eval()
        with torch.no_grad():
            return model(inputs)

    return predict


def join_in(number, meeting_point, config):
    train(number + 1, meeting_point, config, NoRecord())


def main(config, run):
    """Train in this process, which is the first, and in others beside it."""
    with tempfile.TemporaryDirectory() as folder:
        meeting_point = f"file://{folder}/meeting_point"
        others = mp.start_processes(
            join_in, (meeting_point, config), nprocs=config.processes - 1, join=False, start_method="fork"
        )
        try:
            predict = train(0, meeting_point, config, run)
            while not others.join():
                pass
        except RuntimeError:
            # Lost contact? Then another process raised, and its own error is the one to see.
            others.join(timeout=5)
            raise
        finally:
            for process in others.processes:
                process.kill()
                process.join()
            # Last of all: a group that goes while its threads are still at work can wait for itself for ever.
            if dist.is_initialized():
                dist.destroy_process_group()
    return predict


if __name__ == "__main__":
    recorder.run(main)
