"""Gaps in the Python documentation: which of eight small words stood there?

A cloze test (Taylor, Cloze procedure, Journalism Quarterly 30(4), 1953) on the text of ``pydoc_data.topics``: in a
sentence one of ``is, the, of, to, and, be, by, not`` is replaced by ``___``, and up to six words on either side are
left to tell which it was. The words around a gap tell much, their order tells more, and now and then several words
would do. A sentence that occurs in several topics is kept once.

``gaps.csv`` has the columns ``sentence`` (a number), ``text`` and ``word``, one word after the other, as a query with
ORDER BY exports it; ``words.json`` lists the words in the order of a model's outputs. A sentence with several gaps
makes several rows, all of them on the same side: a quarter of the sentences is hidden, by a checksum. The text differs
a little between Python versions; the side that a sentence is on does not.
"""

import json
import re
import zlib
from functools import cache
from pathlib import Path
from pydoc_data.topics import topics

import numpy as np
import pandas as pd
from sklearn.metrics import accuracy_score

ORIGIN = "pydoc_data"

WORDS = ["is", "the", "of", "to", "and", "be", "by", "not"]
GAP = "___"
CONTEXT = 6  # words on either side, at most
SHORTEST, LONGEST = 5, 40  # words of a sentence; what is longer is a table
MOST = 900  # examples of one word, so that "the" does not outnumber all others
SAMPLE_SIZE = 64


def _sentences() -> list[str]:
    """Return the sentences of all topics, each once; code and grammar are left out."""
    paragraphs = [text for name in sorted(topics) for text in topics[name].split("\n\n")]
    prose = [" ".join(text.split()) for text in paragraphs if ">>>" not in text and "::=" not in text]
    sentences = [sentence for text in prose for sentence in re.split(r"(?<=[.:;?!])\s+", text)]
    return [s for s in dict.fromkeys(sentences) if SHORTEST <= len(s.split()) <= LONGEST]


@cache
def _gaps() -> pd.DataFrame:
    """Return all gaps with the columns ``sentence``, ``text``, ``word`` and ``hidden``."""
    rows = []
    for number, sentence in enumerate(_sentences()):
        words = sentence.split()
        hidden = zlib.crc32(sentence.encode()) % 4 == 0
        for i, word in enumerate(words):
            if word.lower() in WORDS:
                context = [*words[max(0, i - CONTEXT) : i], GAP, *words[i + 1 : i + 1 + CONTEXT]]
                rows.append({"sentence": number, "text": " ".join(context), "word": word.lower(), "hidden": hidden})
    table = pd.DataFrame(rows).drop_duplicates(["text", "word"])
    order = table["text"].map(lambda text: zlib.crc32(text.encode()))
    chosen = table.assign(order=order).sort_values(["order", "text"]).groupby("word").head(MOST)
    return chosen.sort_values(["word", "sentence", "order"]).drop(columns="order").reset_index(drop=True)


def _part(hidden: bool) -> pd.DataFrame:
    table = _gaps()
    return table[table["hidden"] == hidden].drop(columns="hidden").reset_index(drop=True)


def _examples(table: pd.DataFrame) -> tuple[list[str], np.ndarray]:
    return table["text"].to_list(), table["word"].map(WORDS.index).to_numpy(dtype=np.int64)


def write_training_data(folder: Path) -> None:
    """Write ``gaps.csv`` and ``words.json``."""
    _part(hidden=False).to_csv(Path(folder) / "gaps.csv", index=False)
    (Path(folder) / "words.json").write_text(json.dumps(WORDS))


def training_sample() -> tuple[list[str], np.ndarray]:
    """Return 64 texts with a gap from ``gaps.csv`` and the indices (64,) of the words that stood there."""
    table = _part(hidden=False)
    return _examples(table.iloc[np.linspace(0, len(table) - 1, SAMPLE_SIZE).astype(int)])


def hidden_test() -> tuple[list[str], np.ndarray]:
    """Return the texts of the sentences that no program sees, about 1100, and the indices of the words."""
    return _examples(_part(hidden=True))


def oracle_metric(outputs: np.ndarray, targets: np.ndarray) -> float:
    """Return the accuracy of scores (N, 8) against indices (N,); a row with NaN or infinity is wrong."""
    finite = np.isfinite(outputs).all(axis=1)
    predicted = np.where(finite, np.nan_to_num(outputs).argmax(axis=1), -1)
    return float(accuracy_score(targets, predicted))
