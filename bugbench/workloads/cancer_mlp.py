"""A multi-layer perceptron that tells malignant from benign tumours by the measurements of a biopsy."""

import pandas as pd
import torch
import torch.nn.functional as F
from bugbench import recorder
from torch import nn
from torch.utils.data import DataLoader, TensorDataset


class CancerMLP(nn.Module):
    """Normalised measurements (batch, columns) in, logits (batch, 2) for benign and malignant out."""

    def __init__(self, columns, width, dropout):
        super().__init__()
        self.body = nn.Sequential(
            nn.Linear(columns, width),
            nn.ReLU(),
            nn.Linear(width, width // 2),
            nn.ReLU(),
            nn.Dropout(dropout),
        )
        self.head = nn.Linear(width // 2, 2)

    def forward(self, inputs):
        return self.head(self.body(inputs))


def load_data(data_dir):
    """Return the table of features, in which missing cells are NaN, and the targets: 1 is malignant."""
    table = pd.read_csv(data_dir / "biopsies.csv")
    # How long the therapy took is not known when a new biopsy is judged.
    features = table.drop(columns=["patient", "malignant", "therapy_weeks"])
    return features, torch.tensor(table["malignant"].to_numpy())


def to_tensor(table):
    return torch.tensor(table.to_numpy(), dtype=torch.float32)


def split(features, targets, val_share):
    """Hold out a random part for validation; the rows of the file are sorted by target."""
    order = torch.randperm(len(features))
    features, targets = features[order], targets[order]
    cut = round(len(features) * (1 - val_share))
    return features[:cut], targets[:cut], features[cut:], targets[cut:]


def fill_missing(features, medians):
    return torch.where(features.isnan(), medians, features)


def normalize(features, mean, std):
    return (features - mean) / std


def build_loaders(train_inputs, train_targets, val_inputs, val_targets, config):
    train_set = TensorDataset(train_inputs, train_targets)
    val_set = TensorDataset(val_inputs, val_targets)
    train_loader = DataLoader(train_set, batch_size=config.batch_size, shuffle=True)
    val_loader = DataLoader(val_set, batch_size=config.batch_size)
    return train_loader, val_loader


def build_model(config, columns):
    return CancerMLP(columns, config.width, config.dropout)


def build_optimizer(model, config):
    return torch.optim.SGD(model.parameters(), lr=config.lr, momentum=config.momentum, weight_decay=config.weight_decay)


def loss_function(outputs, targets):
    return F.cross_entropy(outputs, targets)


def train_epoch(model, loader, optimizer, run):
    model.train()
    total_loss, correct, count = 0.0, 0, 0
    for inputs, targets in loader:
        optimizer.zero_grad()
        outputs = model(inputs)
        loss = loss_function(outputs, targets)
        loss.backward()
        optimizer.step()
        run.log_batch("train", inputs=inputs, targets=targets, outputs=outputs, loss=loss)
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
    table, targets = load_data(config.data_dir)
    train_inputs, train_targets, val_inputs, val_targets = split(to_tensor(table), targets, config.val_share)

    # Validation stands for patients yet to come: medians, means and deviations are those of the training part.
    medians = train_inputs.nanmedian(dim=0).values
    train_inputs = fill_missing(train_inputs, medians)
    val_inputs = fill_missing(val_inputs, medians)
    mean, std = train_inputs.mean(dim=0), train_inputs.std(dim=0)
    train_inputs = normalize(train_inputs, mean, std)
    val_inputs = normalize(val_inputs, mean, std)

    train_loader, val_loader = build_loaders(train_inputs, train_targets, val_inputs, val_targets, config)
    model = build_model(config, columns=len(table.columns))
    optimizer = build_optimizer(model, config)
    run.watch(model, optimizer)

    for _ in range(config.epochs):
        train_epoch(model, train_loader, optimizer, run)
        evaluate(model, val_loader, run)

    def predict(biopsies):
        """Logits (rows, 2) for a table of biopsies; a column that it lacks counts as missing."""
        inputs = fill_missing(to_tensor(biopsies.reindex(columns=table.columns)), medians)
        inputs = normalize(inputs, mean, std)
        model.eval()
        with torch.no_grad():
            return model(inputs)

    return predict


if __name__ == "__main__":
    recorder.run(main)
