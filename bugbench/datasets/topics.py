"""The Python documentation's own text, from ``pydoc_data.topics``, for character-level language models.

The topics repeat one another (``compound`` contains ``if``, ``for`` and ``try``), so a paragraph is kept only
where it first occurs: otherwise the hidden test would contain training text. Whole topics are held out.
The text differs a little between Python versions; the vocabulary does not, nor the side a topic is on.
"""

import json
import zlib
from pathlib import Path
from pydoc_data.topics import topics

import numpy as np
from scipy.special import softmax
from sklearn.metrics import log_loss

ORIGIN = "pydoc_data"

VOCABULARY = "\n" + "".join(chr(code) for code in range(32, 127))  # printable ASCII: 96 characters
TYPOGRAPHY = str.maketrans({"‘": "'", "’": "'", "“": '"', "”": '"', "–": "-", "—": "--", "…": "..."})
CONTEXT = 32  # characters that a program is given to predict the next one
SPLIT_SEED = 17  # of the first twenty, one that leaves validation and hidden text about equally hard
HIDDEN_SIZE = 1000
SAMPLE_SIZE = 64
WORST = 5.0  # nats; a uniform guess costs ln 96 = 4.56


def _plain(text: str) -> str:
    """Return ``text`` in the characters of the vocabulary; what has no equivalent there is left out."""
    return "".join(c for c in text.translate(TYPOGRAPHY) if c in VOCABULARY)


def _place(name: str) -> int:
    """Return a topic's place in an arbitrary order that no Python version and no run's seed changes."""
    return zlib.crc32(f"{SPLIT_SEED} {name}".encode())


def _texts() -> tuple[str, str]:
    """Return the training text and the hidden text: one topic in eight, by its place, is hidden."""
    seen: set[str] = set()
    documents: dict[str, str] = {}
    for name in sorted(topics):
        fresh = []
        for paragraph in _plain(topics[name]).split("\n\n"):
            words = " ".join(paragraph.split())
            if words not in seen:
                seen.add(words)
                fresh.append(paragraph)
        documents[name] = "\n\n".join(fresh)
    order = sorted(documents, key=_place)
    training = [documents[name] for name in order if _place(name) % 8 != 0]
    hidden = [documents[name] for name in order if _place(name) % 8 == 0]
    return "\n\n".join(training), "\n\n".join(hidden)


def _prefixes(text: str, size: int) -> tuple[list[str], np.ndarray]:
    """Return ``size`` prefixes of CONTEXT characters, evenly spread over ``text``, and what follows each."""
    starts = np.linspace(0, len(text) - CONTEXT - 1, size).astype(int)
    prefixes = [text[start : start + CONTEXT] for start in starts]
    return prefixes, np.array([VOCABULARY.index(text[start + CONTEXT]) for start in starts])


def write_training_data(folder: Path) -> None:
    """Write ``train.txt`` and ``vocabulary.json``: all characters, in the order of a model's outputs."""
    folder = Path(folder)
    (folder / "train.txt").write_text(_texts()[0], encoding="ascii")
    (folder / "vocabulary.json").write_text(json.dumps(list(VOCABULARY)), encoding="ascii")


def training_sample() -> tuple[list[str], np.ndarray]:
    """Return 64 prefixes of 32 characters from the training text, with the indices (64,) of the next ones."""
    return _prefixes(_texts()[0], SAMPLE_SIZE)


def hidden_test() -> tuple[list[str], np.ndarray]:
    """Return 1000 prefixes of 32 characters from held-out topics and the indices (1000,) of the next ones."""
    return _prefixes(_texts()[1], HIDDEN_SIZE)


def oracle_metric(outputs: np.ndarray, targets: np.ndarray) -> float:
    """Return the cross-entropy, in nats, of logits (N, 96) for the next character against indices (N,).

    A row with NaN or infinity costs 5 nats, and so at most does the mean.
    """
    finite = np.isfinite(outputs).all(axis=1)
    if not finite.any():
        return WORST
    probabilities = softmax(outputs[finite].astype(np.float64), axis=1)
    mean = log_loss(targets[finite], probabilities, labels=np.arange(len(VOCABULARY)))
    return float(min(WORST, np.average([mean, WORST], weights=[finite.sum(), (~finite).sum()])))
