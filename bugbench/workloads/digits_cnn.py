"""A convolutional network that reads handwritten digits of 8x8 pixels."""

import numpy as np
import torch
import torch.nn.functional as F
from bugbench import recorder
from torch import nn
from torch.utils.data import DataLoader, TensorDataset
from torchvision.transforms import v2


class DigitsCNN(nn.Module):
    """Images (batch, 1, 8, 8) in, logits (batch, 10) out."""

    def __init__(self, channels, dropout):
        super().__init__()
        self.features = nn.Sequential(
            nn.Conv2d(1, channels, 3, padding=1),
            nn.BatchNorm2d(channels),
            nn.ReLU(),
            nn.MaxPool2d(2),
            nn.Conv2d(channels, 2 * channels, 3, padding=1),
            nn.BatchNorm2d(2 * channels),
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


def augment(inputs):
    """Turn and shift every image a little, each in its own way."""
    # Black, whatever normalization made of it.
    background = inputs.min().item()
    transform = v2.Compose(
        [
            v2.RandomAffine(
                degrees=10, translate=(0.1, 0.1), interpolation=v2.InterpolationMode.BILINEAR, fill=background
            )
        ]
    )
    return torch.stack([transform(image) for image in inputs])


def build_loaders(train_inputs, train_targets, val_inputs, val_targets, config):
    train_set = TensorDataset(train_inputs, train_targets)
    val_set = TensorDataset(val_inputs, val_targets)
    train_loader = DataLoader(train_set, batch_size=config.batch_size, shuffle=True)
    val_loader = DataLoader(val_set, batch_size=config.batch_size)
    return train_loader, val_loader


def build_model(config):
    return DigitsCNN(config.channels, config.dropout)


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
    inputs, targets = load_data(config.data_dir)
    train_inputs, train_targets, val_inputs, val_targets = split(inputs, targets)
    mean, std = train_inputs.mean(), train_inputs.std()
    train_inputs = normalize(train_inputs, mean, std)
    val_inputs = normalize(val_inputs, mean, std)
    train_loader, val_loader = build_loaders(train_inputs, train_targets, val_inputs, val_targets, config)
    model = build_model(config)
    optimizer = build_optimizer(model, config)
    scheduler = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, T_max=config.epochs)
    run.watch(model, optimizer)

    for _ in range(config.epochs):
        train_epoch(model, train_loader, optimizer, run)
        evaluate(model, val_loader, run)
        scheduler.step()

    def predict(images):
        """Scores of the ten digits for raw images (n, 8, 8), uint8."""
        inputs = normalize(to_tensor(images), mean, std)
        model.eval()
        with torch.no_grad():
            return model(inputs)

    return predict


if __name__ == "__main__":
    recorder.run(main)
