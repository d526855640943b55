"""A small U-Net that outlines the cells in a micrograph, pixel by pixel."""

import numpy as np
import torch
import torch.nn.functional as F
from bugbench import recorder
from torch import nn
from torch.utils.data import DataLoader, TensorDataset
from torchvision import tv_tensors
from torchvision.transforms import v2


class DoubleConv(nn.Module):
    """Two convolutions, each with batch norm and an activation."""

    def __init__(self, in_channels, out_channels):
        super().__init__()
        self.layers = nn.Sequential(
            nn.Conv2d(in_channels, out_channels, 3, padding=1, bias=False),
            nn.BatchNorm2d(out_channels),
            nn.ReLU(),
            nn.Conv2d(out_channels, out_channels, 3, padding=1, bias=False),
            nn.BatchNorm2d(out_channels),
            nn.ReLU(),
        )

    def forward(self, x):
        return self.layers(x)


class UNet(nn.Module):
    """Images (batch, 1, 32, 32) in, logits (batch, 1, 32, 32) out: above 0 where a cell is."""

    def __init__(self, channels):
        super().__init__()
        self.down1 = DoubleConv(1, channels)
        self.down2 = DoubleConv(channels, 2 * channels)
        self.bottom = DoubleConv(2 * channels, 4 * channels)
        self.up2 = DoubleConv(6 * channels, 2 * channels)
        self.up1 = DoubleConv(3 * channels, channels)
        self.head = nn.Conv2d(channels, 1, 3, padding=1)
        # One pixel in seven belongs to a cell; without a hint the first steps would only teach that cells are rare.
        nn.init.constant_(self.head.bias, -1.8)

    def forward(self, inputs):
        fine = self.down1(inputs)
        coarse = self.down2(F.max_pool2d(fine, 2))
        x = self.bottom(F.max_pool2d(coarse, 2))
        x = F.interpolate(x, scale_factor=2)
        x = self.up2(torch.cat([x, coarse], dim=1))
        x = F.interpolate(x, scale_factor=2)
        x = self.up1(torch.cat([x, fine], dim=1))
        return self.head(x)


def to_tensor(images):
    """Turn uint8 images (n, 32, 32) into float ones with a channel, (n, 1, 32, 32)."""
    return torch.as_tensor(images, dtype=torch.float32).unsqueeze(1)


def load_data(data_dir):
    """Return images, values 0 to 255, and their masks: 1 where a cell is."""
    archive = np.load(data_dir / "train.npz")
    return to_tensor(archive["images"]), to_tensor(archive["masks"])


def split(inputs, targets):
    """Hold out every fifth image for validation."""
    held_out = torch.arange(len(targets)) % 5 == 4
    return inputs[~held_out], targets[~held_out], inputs[held_out], targets[held_out]


def normalize(inputs, mean, std):
    return (inputs - mean) / std


def augment(samples, masks):
    """Mirror every image and its mask together, each pair in its own way."""
    transform = v2.Compose([v2.RandomHorizontalFlip(), v2.RandomVerticalFlip()])
    inputs, targets = [], []
    for image, mask in zip(samples, masks, strict=True):
        image, mask = transform(tv_tensors.Image(image), tv_tensors.Mask(mask))
        inputs.append(image)
        targets.append(mask)
    return torch.stack(inputs), torch.stack(targets)


def build_loaders(train_inputs, train_targets, val_inputs, val_targets, config):
    train_set = TensorDataset(train_inputs, train_targets)
    val_set = TensorDataset(val_inputs, val_targets)
    train_loader = DataLoader(train_set, batch_size=config.batch_size, shuffle=True)
    val_loader = DataLoader(val_set, batch_size=config.batch_size)
    return train_loader, val_loader


def build_model(config):
    return UNet(config.channels)


def build_optimizer(model, config):
    return torch.optim.Adam(model.parameters(), lr=config.lr)


def loss_function(outputs, targets):
    return F.binary_cross_entropy_with_logits(outputs, targets)


def predict_masks(outputs):
    """True where a cell is more likely than not."""
    return outputs > 0


def dice_score(predicted, targets):
    """How much the predicted cells and the true ones overlap: 0 not at all, 1 wholly."""
    predicted, targets = predicted.bool(), targets.bool()
    return 2 * (predicted & targets).sum().item() / (predicted.sum() + targets.sum()).item()


def train_epoch(model, loader, optimizer, run):
    model.train()
    total_loss, all_predicted, all_targets = 0.0, [], []
    for samples, masks in loader:
        inputs, targets = augment(samples, masks)
        optimizer.zero_grad()
        outputs = model(inputs)
        loss = loss_function(outputs, targets)
        loss.backward()
        optimizer.step()
        run.log_batch("train", inputs=inputs, targets=targets, outputs=outputs, loss=loss, samples=samples)
        total_loss += loss.item() * len(targets)
        all_predicted.append(predict_masks(outputs))
        all_targets.append(targets)
    predicted, targets = torch.cat(all_predicted), torch.cat(all_targets)
    run.log_metrics("train", loss=total_loss / len(targets), dice=dice_score(predicted, targets))


@torch.no_grad()
def evaluate(model, loader, run):
    model.eval()
    total_loss, all_predicted, all_targets = 0.0, [], []
    for inputs, targets in loader:
        outputs = model(inputs)
        loss = loss_function(outputs, targets)
        run.log_batch("val", inputs=inputs, targets=targets, outputs=outputs, loss=loss)
        total_loss += loss.item() * len(targets)
        all_predicted.append(predict_masks(outputs))
        all_targets.append(targets)
    predicted, targets = torch.cat(all_predicted), torch.cat(all_targets)
    run.log_metrics("val", loss=total_loss / len(targets), dice=dice_score(predicted, targets))


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
        """The masks of raw images (n, 32, 32), uint8: 1 where a cell is."""
        inputs = normalize(to_tensor(images), mean, std)
        model.eval()
        with torch.no_grad():
            return predict_masks(model(inputs)).squeeze(1).float()

    return predict


if __name__ == "__main__":
    recorder.run(main)
