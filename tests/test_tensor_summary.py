"""Statistics of a tensor by hand, and fingerprints that tell one sample from another."""

import math

import pytest
import torch
from bugbench.tensor_summary import fingerprint, summarize

NAN, INF = math.nan, math.inf
FLOATS = (torch.float16, torch.bfloat16, torch.float32, torch.float64)
DTYPES = (*FLOATS, torch.complex64, torch.complex128, torch.bool, torch.uint8, torch.int8, torch.int16, torch.int64)


@pytest.mark.parametrize("dtype", [*FLOATS, torch.int8, torch.int32, torch.int64])
def test_statistics_over_all_elements(dtype):
    # mean 1, squares (9 + 1 + 1 + 9 + 0 + 4) / 6 = 4
    tensor = torch.tensor([[-2, 0], [0, 4], [1, 3]], dtype=dtype)
    mean, std, low, high, zero_share, nonfinite = summarize(tensor).tolist()
    assert (mean, std, low, high, nonfinite) == (1, 2, -2, 4, 0)
    assert zero_share == pytest.approx(2 / 6)


def test_booleans_count_as_zero_and_one():
    assert summarize(torch.tensor([True, False, True, False])).tolist() == [0.5, 0.5, 0, 1, 0.5, 0]


def test_minus_zero_is_a_zero():
    assert summarize(torch.tensor([-0.0, 0.0, 1.0, 1.0]))[4] == 0.5


def test_nonfinite_values_are_counted_and_shown():
    mean, std, low, high, zero_share, nonfinite = summarize(torch.tensor([0.0, NAN, INF, -INF])).tolist()
    assert nonfinite == 3
    assert zero_share == 0.25
    assert all(math.isnan(value) for value in (mean, std, low, high))
    assert summarize(torch.tensor([0.0, 2.0, INF, INF])).tolist()[2:] == [0, INF, 0.25, 2]


def test_statistics_of_nothing_and_of_one():
    assert all(math.isnan(value) for value in summarize(torch.zeros(0, 3)).tolist())
    assert summarize(torch.tensor(7.0)).tolist() == [7, 0, 7, 7, 0, 0]


def test_complex_numbers_count_with_both_parts():
    assert summarize(torch.tensor([1 + 3j])).tolist() == [2, 1, 1, 3, 0, 0]


def test_summaries_follow_no_gradient():
    weight = torch.ones(3, requires_grad=True)
    assert not summarize(weight * 2).requires_grad
    assert summarize(weight).dtype == torch.float32


# -- fingerprints -------------------------------------------------------------------------------------------------


def rows(dtype):
    """Four rows of 2 x 3: the first and the third are equal."""
    tensor = torch.tensor([[1, 0, 1, 1, 0, 0], [0, 1, 1, 1, 0, 0], [1, 0, 1, 1, 0, 0], [1, 0, 1, 1, 0, 1]])
    return tensor.reshape(4, 2, 3).to(dtype)


@pytest.mark.parametrize("dtype", DTYPES)
def test_equal_rows_are_equal_and_others_differ(dtype):
    one, two, three, four = fingerprint(rows(dtype)).tolist()
    assert one == three
    assert len({one, two, four}) == 3


@pytest.mark.parametrize("dtype", DTYPES)
def test_a_row_has_the_same_fingerprint_in_any_batch(dtype):
    batch = rows(dtype)
    expected = fingerprint(batch)
    assert expected.dtype == torch.int64
    assert torch.equal(fingerprint(batch[2:]), expected[2:])
    assert torch.equal(fingerprint(batch.flip(0)), expected.flip(0))
    strided = torch.stack([batch, batch], dim=1)[:, 0]
    assert not strided.is_contiguous()
    assert torch.equal(fingerprint(strided), expected)


@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize("position", range(4))
def test_one_changed_element_differs(dtype, position):
    """Down to the last bit, up to the sign, and to what is no number."""
    row = torch.tensor([[0.5, 2.0, -3.0, 0.0]], dtype=dtype)
    seen = {fingerprint(row).item()}
    value = row[0, position]
    above = torch.nextafter(value.float(), torch.tensor(INF)).to(dtype) if dtype == torch.float32 else value + 0.25
    for changed in (above, -value, torch.tensor(NAN), torch.tensor(INF), torch.tensor(1e4)):
        other = row.clone()
        other[0, position] = changed
        seen.add(fingerprint(other).item())
    assert len(seen) == 6


@pytest.mark.parametrize("dtype", [torch.int8, torch.int16, torch.int32, torch.int64])
def test_every_small_integer_differs(dtype):
    numbers = torch.arange(-128, 128).to(dtype)
    assert len(set(fingerprint(numbers).tolist())) == 256
    padded = torch.stack([torch.full_like(numbers, 5), numbers], dim=1)
    assert len(set(fingerprint(padded).tolist())) == 256


def test_a_float_and_the_one_with_all_bits_turned_differ():
    one = torch.tensor([[1.0]])
    turned = (~one.view(torch.int32)).view(torch.float32)
    assert fingerprint(one).item() != fingerprint(turned).item()


@pytest.mark.parametrize("dtype", [torch.uint8, torch.float32, torch.int64])
def test_permuted_elements_differ(dtype):
    row = torch.arange(12).to(dtype)
    orders = [row, row.flip(0), row.roll(1), row.reshape(3, 4).T.reshape(-1), row[[1, 0, *range(2, 12)]]]
    assert len(set(fingerprint(torch.stack(orders)).tolist())) == len(orders)


def test_many_random_rows_are_all_different():
    generator = torch.Generator().manual_seed(0)
    images = torch.randint(0, 17, (20_000, 64), generator=generator, dtype=torch.uint8)
    assert len(set(fingerprint(images).tolist())) == 20_000
    # Multiples of 1/16 in float32: the low bits of their bytes are all zero
    assert len(set(fingerprint(images / 16).tolist())) == 20_000


def test_empty_batches_and_empty_rows():
    assert fingerprint(torch.zeros(0, 3)).tolist() == []
    assert fingerprint(torch.zeros(2, 0)).tolist() == [0, 0]
    assert fingerprint(torch.tensor([1.0, 1.0, 2.0])).unique().numel() == 2


def test_no_random_number_is_drawn():
    torch.manual_seed(5)
    before = torch.get_rng_state()
    fingerprint(torch.ones(4, 100))
    summarize(torch.ones(4, 100))
    assert torch.equal(torch.get_rng_state(), before)
    first = fingerprint(torch.ones(1, 7))
    torch.manual_seed(6)
    assert torch.equal(fingerprint(torch.ones(1, 7)), first)
