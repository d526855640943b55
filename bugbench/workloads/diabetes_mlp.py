"""A multi-layer perceptron that foretells how far a patient's diabetes will have progressed in a year."""

import pandas as pd
import torch
import torch.nn.functional as F
from bugbench import recorder
from torch import nn
from torch.utils.data import DataLoader, TensorDataset


class DiabetesMLP(nn.Module):
    """Normalised measurements (batch, columns) in, standardised progression (batch,) out."""

    def __init__(self, columns, width, dropout):
        super().__init__()
        self.body = nn.Sequential(
            nn.Linear(columns, width),
            nn.ReLU(),
            nn.Linear(width, width // 2),
            nn.ReLU(),
            nn.Dropout(dropout),
        )
        self.head = nn.Linear(width // 2, 1)

    def forward(self, inputs):
        return self.head(self.body(inputs)).squeeze(-1)


def load_data(data_dir):
    """Return the table of features, in which missing cells are NaN, and the targets, 25 to 346."""
    table = pd.read_csv(data_dir / "patients.csv")
    # The visits of the year to come are not known when a patient is first seen.
    features = table.drop(columns=["patient", "progression", "followup_visits"])
    return features, torch.tensor(table["progression"].to_numpy(), dtype=torch.float32)


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


def scale_targets(targets, center, scale):
    return (targets - center) / scale


def build_loaders(train_inputs, train_targets, val_inputs, val_targets, config):
    train_set = TensorDataset(train_inputs, train_targets)
    val_set = TensorDataset(val_inputs, val_targets)
    train_loader = DataLoader(train_set, batch_size=config.batch_size, shuffle=True)
    val_loader = DataLoader(val_set, batch_size=config.batch_size)
    return train_loader, val_loader


def build_model(config, columns):
    return DiabetesMLP(columns, config.width, config.dropout)


def build_optimizer(model, config):
    return torch.optim.Adam(model.parameters(), lr=config.lr, weight_decay=config.weight_decay)


def loss_function(outputs, targets):
    return F.mse_loss(outputs, targets)


def r2_score(outputs, targets):
    """The share of the targets' variance that the outputs account for."""
    return 1 - ((outputs - targets).square().mean() / targets.var(correction=0)).item()


def train_epoch(model, loader, optimizer, run):
    model.train()
    total_loss, count = 0.0, 0
    for inputs, targets in loader:
        optimizer.zero_grad()
        outputs = model(inputs)
        loss = loss_function(outputs, targets)
        loss.backward()
        optimizer.step()
        run.log_batch("train", inputs=inputs, targets=targets, outputs=outputs, loss=loss)
        total_loss += loss.item() * len(targets)
        count += len(targets)
    run.log_metrics("train", loss=total_loss / count)


@torch.no_grad()
def evaluate(model, loader, run):
    model.eval()
    total_loss, all_outputs, all_targets = 0.0, [], []
    for inputs, targets in loader:
        outputs = model(inputs)
        loss = loss_function(outputs, targets)
        run.log_batch("val", inputs=inputs, targets=targets, outputs=outputs, loss=loss)
        total_loss += loss.item() * len(targets)
        all_outputs.append(outputs)
        all_targets.append(targets)
    outputs, targets = torch.cat(all_outputs), torch.cat(all_targets)
    run.log_metrics("val", loss=total_loss / len(targets), r2=r2_score(outputs, targets))


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
    center, scale = train_targets.mean(), train_targets.std()
    train_targets = scale_targets(train_targets, center, scale)
    val_targets = scale_targets(val_targets, center, scale)

    train_loader, val_loader = build_loaders(train_inputs, train_targets, val_inputs, val_targets, config)
    model = build_model(config, columns=len(table.columns))
    optimizer = build_optimizer(model, config)
    run.watch(model, optimizer)

    for _ in range(config.epochs):
        train_epoch(model, train_loader, optimizer, run)
        evaluate(model, val_loader, run)

    def predict(patients):
        """Progression (rows,) for a table of patients; a column that it lacks counts as missing."""
        inputs = fill_missing(to_tensor(patients.reindex(columns=table.columns)), medians)
        inputs = normalize(inputs, mean, std)
        model.eval()
        with torch.no_grad():
            return model(inputs) * scale + center

    return predict


if __name__ == "__main__":
    recorder.run(main)
