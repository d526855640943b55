"""Batches hashed together leave the fingerprints of each by itself."""

import numpy as np
import torch
from bugbench.sample_log import PENDING_BYTES, SampleLog
from bugbench.tensor_summary import fingerprint


def test_samples_in_the_order_seen_whatever_their_kind():
    batches = [
        (torch.randn(3, 4), torch.tensor([0, 1, 2])),
        (torch.randn(2, 4), torch.tensor([2, 1])),
        (torch.randn(2, 5), torch.tensor([0, 0])),  # another width
        (torch.randint(0, 9, (2, 5)), torch.tensor([[1, 2], [3, 4]])),  # sequences have no single label
        (torch.randn(PENDING_BYTES, 1), torch.zeros(PENDING_BYTES)),  # more than waits
        (torch.randn(0, 4), torch.zeros(0)),
        (torch.randn(1, 4), torch.tensor([0.5])),
    ]
    log = SampleLog()
    for step, (samples, targets) in enumerate(batches):
        log.add("train" if step < 4 else "val", 0, step, samples, targets)
    table = log.table()
    assert table.counts == [3, 2, 2, 2, PENDING_BYTES, 0, 1]
    assert table.steps == list(range(7))
    assert table.splits == ["train"] * 4 + ["val"] * 3
    expected = np.concatenate([fingerprint(samples).numpy() for samples, _ in batches])
    assert np.array_equal(table.fingerprints, expected)
    assert table.labels[:7].tolist() == [0, 1, 2, 2, 1, 0, 0]
    assert np.isnan(table.labels[7:9]).all()
    assert table.labels[-1] == 0.5


def test_a_batch_that_is_overwritten_afterwards_keeps_its_fingerprints():
    samples, targets = torch.ones(2, 3), torch.tensor([1, 2])
    expected = fingerprint(samples)
    log = SampleLog()
    log.add("train", 0, 0, samples, targets)
    samples.zero_()
    targets.zero_()
    table = log.table()
    assert table.fingerprints.tolist() == expected.tolist()
    assert table.labels.tolist() == [1, 2]


def test_nothing_seen():
    table = SampleLog().table()
    assert len(table.fingerprints) == len(table.labels) == len(table.counts) == 0
