"""Statistics worked out for many tensors at once are those of each by itself."""

import numpy as np
import pytest
import torch
from bugbench.statistics_log import BLOCK_BYTES, BLOCK_ROWS, StatisticsLog
from bugbench.tensor_summary import summarize, summarize_rows


def rows(table):
    return list(zip(table.moments.tolist(), table.names, table.kinds, table.sizes.tolist(), strict=True))


def test_rows_are_ordered_by_moment_and_then_by_first_sight():
    log = StatisticsLog()
    for moment in (3, 5):
        log.put("activation", ("b",), (torch.ones(2) * moment,))
        log.put("weight", ("b", "a"), (torch.zeros(1), torch.ones(3)))
        log.commit(moment)
    table = log.table()
    one = [("b", "activation", 2), ("b", "weight", 1), ("a", "weight", 3)]
    assert rows(table) == [(moment, *row) for moment in (3, 5) for row in one]
    assert table.values[:, 0].tolist() == [3, 0, 1, 5, 0, 1]
    assert log.moments == [3, 5]


def test_what_is_put_twice_counts_as_the_last_and_what_is_discarded_not_at_all():
    log = StatisticsLog()
    for value in (1.0, 2.0):
        log.put("activation", ("a",), (torch.full((2,), value),))
    log.put("activation", ("a",), (torch.full((5,), 3.0),))
    log.commit(0)
    log.put("activation", ("a",), (torch.full((2,), 4.0),))
    log.discard()
    log.commit(1)
    assert rows(log.table()) == [(0, "a", "activation", 5)]
    assert log.moments == [0, 1]


def test_a_tensor_is_taken_as_it_is_when_put():
    log, tensor = StatisticsLog(), torch.ones(4)
    log.put("weight", ("a",), (tensor,))
    tensor.zero_()
    log.commit(0)
    assert log.table().values[0].tolist() == [1, 0, 1, 1, 0, 0]


@pytest.mark.parametrize("size", [1, 3, 700, 5000, BLOCK_BYTES // 8, BLOCK_BYTES])
def test_blocks_give_the_statistics_of_each_tensor(size):
    """Full blocks, a last one that is not full, and tensors that no block holds."""
    generator = torch.Generator().manual_seed(size)
    tensors = [torch.randn(size, generator=generator) for _ in range(BLOCK_ROWS + 3)]
    tensors[1][0], tensors[2][0] = torch.nan, 0.0
    log = StatisticsLog()
    for moment, tensor in enumerate(tensors):
        log.put("weight", ("a",), (tensor,))
        log.commit(moment)
    expected = torch.stack([summarize(tensor) for tensor in tensors])
    np.testing.assert_allclose(log.table().values, expected, rtol=1e-4, atol=1e-6)


def test_statistics_do_not_depend_to_the_last_bit_on_what_comes_after():
    """Or a run and its healthy twin, one of which ends early, would seem to differ before they do."""
    generator = torch.Generator().manual_seed(0)
    tensors = [torch.randn(333, generator=generator) for _ in range(BLOCK_ROWS)]
    tables = []
    for count in (5, BLOCK_ROWS):
        log = StatisticsLog()
        for moment, tensor in enumerate(tensors[:count]):
            log.put("weight", ("a",), (tensor,))
            log.commit(moment)
        tables.append(log.table().values)
    assert np.array_equal(tables[0], tables[1][:5])


@pytest.mark.parametrize(
    "dtype", [torch.float64, torch.bfloat16, torch.bool, torch.uint8, torch.int64, torch.complex64]
)
def test_other_number_types(dtype):
    tensor = torch.tensor([[0, 1], [1, 0]]).to(dtype)
    log = StatisticsLog()
    log.put("input", ("",), (tensor.T,))
    log.commit(0)
    assert log.table().values[0].tolist() == summarize(tensor).tolist()


def test_empty_tensors_and_empty_logs():
    log = StatisticsLog()
    assert log.table().values.shape == (0, 6)
    log.put("input", ("",), (torch.zeros(0, 3),))
    log.commit(0)
    assert np.isnan(log.table().values).all()


def test_norm_of_all_tensors_of_a_kind():
    """(3, 0) and (0, 4) are 5 together; (1, -1, 1, 1) alone is 2."""
    log = StatisticsLog()
    log.put("gradient", ("a", "b"), (torch.tensor([3.0, 0.0]), torch.tensor([0.0, 4.0])))
    log.put("weight", ("a",), (torch.ones(1),))
    log.commit(10)
    log.put("gradient", ("a",), (torch.tensor([1.0, -1.0, 1.0, 1.0]),))
    log.commit(20)
    moments, norms = log.table().norms("gradient")
    assert moments.tolist() == [10, 20]
    assert norms.tolist() == pytest.approx([5, 2])
    assert log.table().norms("update")[0].tolist() == []


def test_a_block_made_in_inference_mode_serves_outside_of_it():
    log = StatisticsLog()
    with torch.inference_mode():
        log.put("input", ("",), (torch.ones(2),))
        log.commit(0)
    log.put("input", ("",), (torch.zeros(2),))
    log.commit(1)
    assert log.table().values[:, 0].tolist() == [1, 0]


def test_rows_of_a_matrix_long_and_short():
    for width in (10, 5000):
        values = torch.zeros(3, width)
        values[0, 0], values[1, :2] = torch.nan, torch.tensor([torch.inf, 1.0])
        statistics = summarize_rows(values)
        assert statistics[:, 5].tolist() == [1, 1, 0]
        assert statistics[:, 4].tolist() == pytest.approx([1 - 1 / width, 1 - 2 / width, 1])
