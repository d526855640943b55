"""A small causal transformer that learns to continue the Python documentation, character by character."""

import json
import math
from itertools import islice

import torch
import torch.nn.functional as F
from bugbench import recorder
from torch import nn
from torch.utils.data import DataLoader, TensorDataset


class CausalSelfAttention(nn.Module):
    """Every position looks at itself and at what came before it."""

    def __init__(self, width, heads, context):
        super().__init__()
        self.heads = heads
        self.qkv = nn.Linear(width, 3 * width)
        self.project = nn.Linear(width, width)
        self.register_buffer("mask", torch.tril(torch.ones(context, context, dtype=torch.bool)))

    def forward(self, x):
        length = x.size(1)
        parts = self.qkv(x).chunk(3, dim=-1)
        # Each (batch, heads, length, width / heads); the scores are (batch, heads, length, length).
        q, k, v = (part.unflatten(2, (self.heads, -1)).transpose(1, 2) for part in parts)
        scores = q @ k.transpose(-2, -1) / math.sqrt(q.size(-1))
        scores = scores.masked_fill(~self.mask[:length, :length], float("-inf"))
        weights = F.softmax(scores, dim=-1)
        mixed = (weights @ v).transpose(1, 2).flatten(2)
        return self.project(mixed)


class Block(nn.Module):
    def __init__(self, width, heads, context, dropout):
        super().__init__()
        self.norm1 = nn.LayerNorm(width)
        self.attention = CausalSelfAttention(width, heads, context)
        self.norm2 = nn.LayerNorm(width)
        self.mlp = nn.Sequential(nn.Linear(width, 4 * width), nn.GELU(), nn.Linear(4 * width, width))
        self.dropout = nn.Dropout(dropout)

    def forward(self, x):
        x = x + self.dropout(self.attention(self.norm1(x)))
        x = x + self.dropout(self.mlp(self.norm2(x)))
        return x


class CharTransformer(nn.Module):
    """Token indices (batch, length) in, logits (batch, length, vocabulary) for each next token out."""

    def __init__(self, vocabulary_size, context, width, heads, depth, dropout):
        super().__init__()
        self.token_embedding = nn.Embedding(vocabulary_size, width)
        self.position_embedding = nn.Embedding(context, width)
        self.dropout = nn.Dropout(dropout)
        self.blocks = nn.Sequential(*[Block(width, heads, context, dropout) for _ in range(depth)])
        self.norm = nn.LayerNorm(width)
        self.head = nn.Linear(width, vocabulary_size)

    def forward(self, tokens):
        positions = torch.arange(tokens.size(1))
        x = self.token_embedding(tokens) + self.position_embedding(positions)
        x = self.blocks(self.dropout(x))
        return self.head(self.norm(x))


def load_data(data_dir):
    text = (data_dir / "train.txt").read_text()
    vocabulary = json.loads((data_dir / "vocabulary.json").read_text())
    return text, vocabulary


def encode(text, vocabulary):
    index = {character: i for i, character in enumerate(vocabulary)}
    return torch.tensor([index[character] for character in text])


def split(tokens):
    """Hold out the last twentieth of the text."""
    cut = len(tokens) * 19 // 20
    return tokens[:cut], tokens[cut:]


def make_windows(tokens, context):
    """Cut the text into windows; the target of every token is the one after it."""
    windows = tokens.unfold(0, context + 1, context)
    inputs = windows[:, :-1]
    targets = windows[:, 1:]
    return TensorDataset(inputs, targets)


def build_loaders(train_tokens, val_tokens, config):
    train_set = make_windows(train_tokens, config.context)
    val_set = make_windows(val_tokens, config.context)
    train_loader = DataLoader(train_set, batch_size=config.batch_size, shuffle=True)
    val_loader = DataLoader(val_set, batch_size=config.batch_size)
    return train_loader, val_loader


def build_model(config, vocabulary):
    size = len(vocabulary)
    return CharTransformer(size, config.context, config.width, config.heads, config.depth, config.dropout)


def build_optimizer(model, config):
    return torch.optim.AdamW(model.parameters(), lr=config.lr, weight_decay=config.weight_decay)


def loss_function(outputs, targets):
    return F.cross_entropy(outputs.flatten(0, 1), targets.flatten())


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
        total_loss += loss.item() * targets.numel()
        correct += (outputs.argmax(dim=-1) == targets).sum().item()
        count += targets.numel()
    run.log_metrics("train", loss=total_loss / count, accuracy=correct / count)


@torch.no_grad()
def evaluate(model, loader, run):
    model.eval()
    total_loss, correct, count = 0.0, 0, 0
    for inputs, targets in loader:
        outputs = model(inputs)
        loss = loss_function(outputs, targets)
        run.log_batch("val", inputs=inputs, targets=targets, outputs=outputs, loss=loss)
        total_loss += loss.item() * targets.numel()
        correct += (outputs.argmax(dim=-1) == targets).sum().item()
        count += targets.numel()
    run.log_metrics("val", loss=total_loss / count, accuracy=correct / count)


def main(config, run):
    torch.manual_seed(config.seed)
    text, vocabulary = load_data(config.data_dir)
    train_tokens, val_tokens = split(encode(text, vocabulary))
    train_loader, val_loader = build_loaders(train_tokens, val_tokens, config)
    model = build_model(config, vocabulary)
    optimizer = build_optimizer(model, config)
    scheduler = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, T_max=config.epochs)
    run.watch(model, optimizer)

    for _ in range(config.epochs):
        # Another part of the text each time.
        batches = islice(train_loader, config.steps_per_epoch)
        train_epoch(model, batches, optimizer, run)
        evaluate(model, val_loader, run)
        scheduler.step()

    def predict(prefixes):
        """Logits for the character after each prefix; all prefixes are equally long."""
        inputs = torch.stack([encode(prefix, vocabulary) for prefix in prefixes])
        model.eval()
        with torch.no_grad():
            return model(inputs)[:, -1]

    return predict


if __name__ == "__main__":
    recorder.run(main)
