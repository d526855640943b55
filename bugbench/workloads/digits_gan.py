"""A generative adversarial network that draws handwritten digits of 8x8 pixels."""

import numpy as np
import torch
import torch.nn.functional as F
from bugbench import recorder
from torch import nn
from torch.utils.data import DataLoader, TensorDataset


class Generator(nn.Module):
    """Noise (batch, noise_size) in, images (batch, 1, 8, 8) out, values -1 to 1."""

    def __init__(self, noise_size, width):
        super().__init__()
        self.body = nn.Sequential(
            nn.Linear(noise_size, width),
            nn.BatchNorm1d(width),
            nn.ReLU(),
            nn.Linear(width, width),
            nn.BatchNorm1d(width),
            nn.ReLU(),
        )
        self.head = nn.Linear(width, 64)

    def forward(self, x):
        x = torch.tanh(self.head(self.body(x)))
        return x.view(-1, 1, 8, 8)


class Discriminator(nn.Module):
    """Images (batch, 1, 8, 8) in, logits (batch,) out: above 0 where an image is taken for a real one."""

    def __init__(self, width):
        super().__init__()
        self.body = nn.Sequential(
            nn.Linear(64, width),
            nn.LeakyReLU(0.2),
            nn.Linear(width, width),
            nn.LeakyReLU(0.2),
        )
        self.head = nn.Linear(width, 1)

    def forward(self, x):
        x = torch.flatten(x, 1)
        return self.head(self.body(x)).squeeze(1)


def load_data(data_dir):
    """Return the images (n, 1, 8, 8), values 0 to 16; which digits they show is of no interest here."""
    archive = np.load(data_dir / "train.npz")
    return torch.as_tensor(archive["images"], dtype=torch.float32).unsqueeze(1)


def split(images):
    """Hold out every fifth image for validation."""
    held_out = torch.arange(len(images)) % 5 == 4
    return images[~held_out], images[held_out]


def normalize(images):
    """Bring pixels from 0 to 16 into the range of the generator, -1 to 1."""
    return images / 8 - 1


def denormalize(images):
    return (images + 1) * 8


def build_loader(train_images, config):
    return DataLoader(TensorDataset(train_images), batch_size=config.batch_size, shuffle=True)


def build_generator(config):
    return Generator(config.noise_size, config.width)


def build_discriminator(config):
    return Discriminator(config.width)


def build_optimizer(model, config):
    return torch.optim.Adam(model.parameters(), lr=config.lr, betas=(0.5, 0.999))


def loss_function(outputs, targets):
    return F.binary_cross_entropy_with_logits(outputs, targets)


def coverage(fakes, images, neighbours=5):
    """The share of the real images with a generated one nearer than their fifth-nearest real neighbour."""
    fakes, images = fakes.flatten(1), images.flatten(1)
    # The nearest of all is the image itself.
    radii = torch.cdist(images, images).sort(dim=1).values[:, : neighbours + 1].amax(dim=1)
    return (torch.cdist(images, fakes).min(dim=1).values < radii).float().mean().item()


def train_epoch(generator, discriminator, loader, g_optimizer, d_optimizer, config, run):
    generator.train()
    discriminator.train()
    total_d_loss, total_g_loss, count = 0.0, 0.0, 0
    for (images,) in loader:
        real_labels, fake_labels = torch.ones(len(images)), torch.zeros(len(images))
        noise = torch.randn(len(images), config.noise_size)
        fakes = generator(noise)

        # The discriminator learns to tell real images from generated ones.
        d_optimizer.zero_grad()
        real_outputs = discriminator(images)
        fake_outputs = discriminator(fakes.detach())
        d_loss = loss_function(real_outputs, real_labels) + loss_function(fake_outputs, fake_labels)
        d_loss.backward()
        d_optimizer.step()

        # The generator learns to have its images taken for real.
        g_optimizer.zero_grad()
        g_loss = loss_function(discriminator(fakes), real_labels)
        g_loss.backward()
        g_optimizer.step()

        inputs = torch.cat([images, fakes])
        targets = torch.cat([real_labels, fake_labels])
        outputs = torch.cat([real_outputs, fake_outputs])
        run.log_batch("train", inputs=inputs, targets=targets, outputs=outputs, loss=d_loss, samples=images)
        total_d_loss += d_loss.item() * len(images)
        total_g_loss += g_loss.item() * len(images)
        count += len(images)
    run.log_metrics("train", loss=total_d_loss / count, generator_loss=total_g_loss / count)


@torch.no_grad()
def evaluate(generator, discriminator, noise, images, run):
    generator.eval()
    discriminator.eval()
    fakes = generator(noise)
    inputs = torch.cat([images, fakes])
    targets = torch.cat([torch.ones(len(images)), torch.zeros(len(fakes))])
    outputs = discriminator(inputs)
    loss = loss_function(outputs, targets)
    run.log_batch("val", inputs=inputs, targets=targets, outputs=outputs, loss=loss, samples=images)
    run.log_metrics("val", loss=loss.item(), coverage=coverage(fakes, images))


def main(config, run):
    torch.manual_seed(config.seed)
    images = normalize(load_data(config.data_dir))
    train_images, val_images = split(images)
    loader = build_loader(train_images, config)
    generator = build_generator(config)
    discriminator = build_discriminator(config)
    g_optimizer = build_optimizer(generator, config)
    d_optimizer = build_optimizer(discriminator, config)
    run.watch(generator, g_optimizer, "generator")
    run.watch(discriminator, d_optimizer, "discriminator")
    # The same noise after each epoch, so that what changes is the generator.
    fixed_noise = torch.randn(len(val_images), config.noise_size)

    for _ in range(config.epochs):
        train_epoch(generator, discriminator, loader, g_optimizer, d_optimizer, config, run)
        evaluate(generator, discriminator, fixed_noise, val_images, run)

    def predict(noise):
        """The images (n, 8, 8) that noise (n, noise_size) is turned into; values 0 to 16."""
        generator.eval()
        with torch.no_grad():
            return denormalize(generator(torch.as_tensor(noise, dtype=torch.float32))).squeeze(1)

    return predict


if __name__ == "__main__":
    recorder.run(main)
