"""A one-dimensional convolutional network that reads the findings off an electrocardiogram of two leads."""

import json

import numpy as np
import pandas as pd
import torch
import torch.nn.functional as F
from bugbench import recorder
from torch import nn
from torch.utils.data import DataLoader, TensorDataset


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
    run.log_metrics("val", loss=total_loss / count, accuracy=correct / count)


def main(config, run):
    torch.manual_seed(config.seed)
    inputs, targets, patients, findings = load_data(config.data_dir)
    train_inputs, train_targets, val_inputs, val_targets = split(inputs, targets, patients)
    # Each lead has a level and a deviation of its own.
    mean, std = train_inputs.mean(dim=(0, 2), keepdim=True), train_inputs.std(dim=(0, 2), keepdim=True)
    train_inputs = normalize(train_inputs, mean, std)
    val_inputs = normalize(val_inputs, mean, std)
    train_loader, val_loader = build_loaders(train_inputs, train_targets, val_inputs, val_targets, config)
    model = build_model(config, leads=inputs.size(1), findings=len(findings))
    optimizer = build_optimizer(model, config)
    scheduler = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, T_max=config.epochs)
    run.watch(model, optimizer)

    for _ in range(config.epochs):
        train_epoch(model, train_loader, optimizer, run)
        evaluate(model, val_loader, run)
        scheduler.step()

    def predict(signals):
        """Scores of the findings for raw records (n, time, leads)."""
        inputs = normalize(to_tensor(signals), mean, std)
        model.eval()
        with torch.no_grad():
            return model(inputs)

    return predict


if __name__ == "__main__":
    recorder.run(main)
