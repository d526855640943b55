"""A recurrent network that tells which small word is missing from a sentence."""

import json
import re
from collections import Counter

import pandas as pd
import torch
import torch.nn.functional as F
from bugbench import recorder
from torch import nn
from torch.nn.utils.rnn import pad_sequence
from torch.utils.data import DataLoader

PADDING, UNKNOWN = 0, 1


class GapGRU(nn.Module):
    """Token indices (batch, length), each row filled up with PADDING at its end, in; logits (batch, words) out."""

    def __init__(self, vocabulary_size, words, width, dropout):
        super().__init__()
        self.embedding = nn.Embedding(vocabulary_size, width, padding_idx=PADDING)
        self.gru = nn.GRU(width, width, batch_first=True)
        self.dropout = nn.Dropout(dropout)
        self.head = nn.Linear(width, words)

    def forward(self, tokens):
        mask = tokens != PADDING
        x = self.dropout(self.embedding(tokens))
        states, _ = self.gru(x)
        states = states.masked_fill(~mask.unsqueeze(-1), float("-inf"))
        pooled = states.amax(dim=1)
        return self.head(self.dropout(pooled))


def load_data(data_dir):
    """Return the texts, the targets (n,), the sentence that each is from, and the words in the order of the outputs."""
    table = pd.read_csv(data_dir / "gaps.csv")
    words = json.loads((data_dir / "words.json").read_text())
    targets = torch.tensor([words.index(word) for word in table["word"]])
    sentences = torch.tensor(table["sentence"].to_numpy())
    return table["text"].to_list(), targets, sentences, words


def split(texts, targets, sentences):
    """Hold out a sixth for validation."""
    held_out = torch.isin(sentences, sentences.unique()[5::6])
    train_rows, val_rows = (~held_out).nonzero().flatten(), held_out.nonzero().flatten()
    train_texts, val_texts = [texts[i] for i in train_rows], [texts[i] for i in val_rows]
    return train_texts, targets[train_rows], val_texts, targets[val_rows]


def tokenize(text):
    """Return words and punctuation marks; the gap is a word too."""
    return re.findall(r"\w+|[^\w\s]", text.lower())


def build_vocabulary(texts, min_count):
    """Number the tokens by how frequent they are, after PADDING and UNKNOWN; rare ones have no number."""
    counts = Counter(token for text in texts for token in tokenize(text))
    tokens = [token for token, count in counts.most_common() if count >= min_count]
    return {token: i for i, token in enumerate(tokens, start=2)}


def encode(text, vocabulary):
    return torch.tensor([vocabulary.get(token, UNKNOWN) for token in tokenize(text)])


def collate(batch):
    """Fill the sequences of a batch up to the length of its longest."""
    sequences, targets = zip(*batch, strict=True)
    return pad_sequence(sequences, batch_first=True, padding_value=PADDING), torch.stack(targets)


def build_loaders(train_texts, train_targets, val_texts, val_targets, vocabulary, config):
    train_set = list(zip([encode(text, vocabulary) for text in train_texts], train_targets, strict=True))
    val_set = list(zip([encode(text, vocabulary) for text in val_texts], val_targets, strict=True))
    train_loader = DataLoader(train_set, batch_size=config.batch_size, shuffle=True, collate_fn=collate)
    val_loader = DataLoader(val_set, batch_size=config.batch_size, collate_fn=collate)
    return train_loader, val_loader


def build_model(config, vocabulary, words):
    return GapGRU(len(vocabulary) + 2, len(words), config.width, config.dropout)


def build_optimizer(model, config):
    return torch.optim.AdamW(model.parameters(), lr=config.lr, weight_decay=config.weight_decay)


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
    texts, targets, sentences, words = load_data(config.data_dir)
    train_texts, train_targets, val_texts, val_targets = split(texts, targets, sentences)
    # Of the training part only: new sentences will have new words.
    vocabulary = build_vocabulary(train_texts, config.min_count)
    train_loader, val_loader = build_loaders(train_texts, train_targets, val_texts, val_targets, vocabulary, config)
    model = build_model(config, vocabulary, words)
    optimizer = build_optimizer(model, config)
    scheduler = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, T_max=config.epochs)
    run.watch(model, optimizer)

    for _ in range(config.epochs):
        train_epoch(model, train_loader, optimizer, run)
        evaluate(model, val_loader, run)
        scheduler.step()

    def predict(texts):
        """Scores of the words for texts with a gap."""
        inputs = pad_sequence([encode(text, vocabulary) for text in texts], batch_first=True, padding_value=PADDING)
        model.eval()
        with torch.no_grad():
            return model(inputs)

    return predict


if __name__ == "__main__":
    recorder.run(main)
