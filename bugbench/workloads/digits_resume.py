"""A network that reads handwritten digits, trained by jobs with a time limit: each goes on from a checkpoint."""

import tempfile
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from bugbench import recorder
from torch import nn
from torch.utils.data import DataLoader, TensorDataset


class DigitsCNN(nn.Module):
    """Images (batch, 1, 8, 8) in, logits (batch, 10) out."""

    def __init__(self, channels, dropout):
        super().__init__()
        self.features = nn.Sequential(
            nn.Conv2d(1, channels, 3, padding=1),
            nn.ReLU(),
            nn.Conv2d(channels, channels, 3, padding=1),
            nn.ReLU(),
            nn.MaxPool2d(2),
            nn.Conv2d(channels, 2 * channels, 3, padding=1),
            nn.ReLU(),
        )
        self.hidden = nn.Linear(2 * channels * 4 * 4, 64)
        self.dropout = nn.Dropout(dropout)
        self.head = nn.Linear(64, 10)

    def forward(self, x):
        x = self.features(x)
        x = torch.flatten(x, 1)
        x = F.relu(self.hidden(x))
        x = self.dropout(x)
        return self.head(x)


def to_tensor(images):
    """Turn uint8 images (n, 8, 8) into float ones with a channel, (n, 1, 8, 8); values stay 0 to 16."""
    return torch.as_tensor(images, dtype=torch.float32).unsqueeze(1)


def load_data(data_dir):
    archive = np.load(data_dir / "train.npz")
    return to_tensor(archive["images"]), torch.as_tensor(archive["labels"])


def split(inputs, targets):
    """Hold out every fifth image for validation."""
    held_out = torch.arange(len(targets)) % 5 == 4
    return inputs[~held_out], targets[~held_out], inputs[held_out], targets[held_out]


def normalize(inputs, mean, std):
    return (inputs - mean) / std


def build_loaders(train_inputs, train_targets, val_inputs, val_targets, config):
    train_set = TensorDataset(train_inputs, train_targets)
    val_set = TensorDataset(val_inputs, val_targets)
    train_loader = DataLoader(train_set, batch_size=config.batch_size, shuffle=True)
    val_loader = DataLoader(val_set, batch_size=config.batch_size)
    return train_loader, val_loader


def build_model(config):
    return DigitsCNN(config.channels, config.dropout)


def build_optimizer(model, config):
    return torch.optim.Adam(model.parameters(), lr=config.lr)


def build_scheduler(optimizer, config):
    return torch.optim.lr_scheduler.LambdaLR(optimizer, lambda epoch: config.decay**epoch)


def loss_function(outputs, targets):
    return F.cross_entropy(outputs, targets)


def save_checkpoint(path, model, optimizer, scheduler, epoch):
    checkpoint = {
        "model": model.state_dict(),
        "optimizer": optimizer.state_dict(),
        "scheduler": scheduler.state_dict(),
        "epoch": epoch,
        "random_state": torch.get_rng_state(),
    }
    torch.save(checkpoint, path)


def load_checkpoint(path, model, optimizer, scheduler):
    """Put everything back to where it was when the checkpoint was saved; return the number of epochs until then."""
    checkpoint = torch.load(path)
    model.load_state_dict(checkpoint["model"])
    optimizer.load_state_dict(checkpoint["optimizer"])
    scheduler.load_state_dict(checkpoint["scheduler"])
    torch.set_rng_state(checkpoint["random_state"])
    return checkpoint["epoch"]


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


def train_job(path, train_loader, val_loader, config, run):
    """One job: start, or go on from the checkpoint if there is one, until the time is up or training is over."""
    model = build_model(config)
    optimizer = build_optimizer(model, config)
    scheduler = build_scheduler(optimizer, config)
    start = load_checkpoint(path, model, optimizer, scheduler) if path.exists() else 0
    run.watch(model, optimizer)
    for epoch in range(start, min(start + config.epochs_per_job, config.epochs)):
        train_epoch(model, train_loader, optimizer, run)
        evaluate(model, val_loader, run)
        scheduler.step()
        save_checkpoint(path, model, optimizer, scheduler, epoch + 1)
    return model


def main(config, run):
    torch.manual_seed(config.seed)
    inputs, targets = load_data(config.data_dir)
    train_inputs, train_targets, val_inputs, val_targets = split(inputs, targets)
    mean, std = train_inputs.mean(), train_inputs.std()
    train_inputs = normalize(train_inputs, mean, std)
    val_inputs = normalize(val_inputs, mean, std)
    train_loader, val_loader = build_loaders(train_inputs, train_targets, val_inputs, val_targets, config)

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "checkpoint.pt"
        for _ in range(0, config.epochs, config.epochs_per_job):
            model = train_job(path, train_loader, val_loader, config, run)

    def predict(images):
        """Scores of the ten digits for raw images (n, 8, 8), uint8."""
        inputs = normalize(to_tensor(images), mean, std)
        model.eval()
        with torch.no_grad():
            return model(inputs)

    return predict


if __name__ == "__main__":
    recorder.run(main)
