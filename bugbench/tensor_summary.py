"""Numbers that stand for a tensor in a trace: six statistics, and a fingerprint per sample.

Everything here stays on the tensor's device and draws no random number, so recording neither waits for a GPU nor
changes what the program computes.
"""

import math
from functools import lru_cache

import torch
from bugbench.trace import STATISTICS

EXACT_SUM = 2**24  # ones that float32 adds up without rounding


def statistics_dtype(tensor: torch.Tensor) -> torch.dtype:
    """Return the type in which a tensor's statistics are worked out: float64 for doubles, else float32."""
    return torch.float64 if tensor.dtype in (torch.float64, torch.complex128) else torch.float32


@torch.no_grad()
def summarize(tensor: torch.Tensor) -> torch.Tensor:
    """Return mean, standard deviation (over all elements), min, max, share of exact zeros, non-finite count.

    Shape (6,), float32, on the tensor's device. NaN and inf are not masked out: they show in the first four too.
    """
    values = tensor.detach()
    if values.is_complex():
        values = torch.view_as_real(values)
    return summarize_rows(values.reshape(1, -1).to(statistics_dtype(tensor)))[0]


@torch.no_grad()
def summarize_rows(values: torch.Tensor) -> torch.Tensor:
    """Return the six statistics of :func:`summarize` for each row of a matrix of floats; shape (rows, 6), float32.

    The standard deviation is the root of the mean squared distance from the mean, in two passes that vectorise; torch's
    own costs twenty times as much on a CPU. Squares overflow, and it is inf, beyond distances of 1.8e19 in float32.
    """
    count = values.shape[1]
    if count == 0:
        return torch.full((len(values), len(STATISTICS)), math.nan, device=values.device)
    mean = values.mean(dim=1)
    distance = values - mean.unsqueeze(1)
    std = distance.square_().mean(dim=1).sqrt_()
    zero_share = (count - _count_nonzero(values, distance)) / count
    finite = values.is_cpu and bool(mean.isfinite().all())  # then all values are; to ask a GPU would be to wait for it
    # x * 0 is 0 for finite x and else NaN, which is not zero
    nonfinite = torch.zeros_like(mean) if finite else _count_nonzero(values * 0, distance)
    return torch.stack([mean, std, values.amin(dim=1), values.amax(dim=1), zero_share, nonfinite], dim=1).float()


def _count_nonzero(values: torch.Tensor, room: torch.Tensor) -> torch.Tensor:
    """Return the number of elements in each row that are not zero, by way of ones and zeros in ``room``.

    torch's own count branches at each element and takes thirty times as long where zeros come at random.
    """
    if values.shape[1] > EXACT_SUM:
        return torch.count_nonzero(values, dim=1)
    return torch.ne(values, 0, out=room).sum(dim=1)


@lru_cache(maxsize=16)
def _multipliers(width: int, device: torch.device) -> torch.Tensor:
    generator = torch.Generator().manual_seed(20261121)
    drawn = torch.randint(-(2**62), 2**62, (width,), generator=generator, device="cpu")
    return (drawn * 2 + 1).to(device)


def fingerprint(batch: torch.Tensor) -> torch.Tensor:
    """Return one 64-bit integer per row of ``batch`` (first dimension), equal for bit-equal rows.

    A multilinear hash modulo 2**64 of the row's bytes with fixed odd multipliers; shape (len(batch),), int64.
    """
    if batch.numel() == 0:
        return torch.zeros(len(batch), dtype=torch.int64)
    rows = batch.detach().reshape(len(batch), -1).contiguous()
    if rows.is_complex():
        rows = torch.view_as_real(rows).reshape(len(batch), -1)
    if rows.dtype == torch.bool:
        rows = rows.to(torch.uint8)
    words = {1: torch.uint8, 2: torch.int16, 4: torch.int32, 8: torch.int64}[rows.element_size()]
    integers = rows.view(words).to(torch.int64)
    multipliers = _multipliers(integers.shape[1], integers.device)
    # shuffle high bits down first: the multipliers act modulo 2**64, so low bits would never see high ones; the mask
    # keeps the sign out of the shift, or a number and its bitwise complement (0 and -1) would be the same
    mixed = (integers >> 17).bitwise_and_(2**47 - 1).bitwise_xor_(integers).add_(1)
    sums = mixed.mul_(multipliers).sum(dim=1)
    return sums ^ (sums >> 29)
