"""Numbers that stand for a tensor in a trace: six statistics, and a fingerprint per sample.

Everything here stays on the tensor's device and draws no random number, so recording neither waits for a GPU nor
changes what the program computes.
"""

import math

import torch
from bugbench.trace import STATISTICS


@torch.no_grad()
def summarize(tensor: torch.Tensor) -> torch.Tensor:
    """Return mean, standard deviation (over all elements), min, max, share of exact zeros, non-finite count.

    Shape (6,), float32, on the tensor's device. NaN and inf are not masked out: they show in the first four too.
    """
    values = tensor.detach().reshape(-1)
    if values.is_complex():
        values = torch.view_as_real(values).reshape(-1)
    if values.numel() == 0:
        return torch.full((len(STATISTICS),), math.nan, device=values.device)
    if not values.dtype.is_floating_point or values.dtype in (torch.float16, torch.bfloat16):
        values = values.float()
    std, mean = torch.std_mean(values, correction=0)
    low, high = torch.aminmax(values)
    count = values.numel()
    zero_share = (count - torch.count_nonzero(values)) / count
    # x * 0 is 0 for finite x and NaN otherwise; NaN is the only value that differs from itself
    rest = values * 0
    nonfinite = torch.count_nonzero(rest != rest)
    return torch.stack([mean, std, low, high, zero_share, nonfinite]).float()


def global_norm(tensors: list[torch.Tensor]) -> torch.Tensor:
    """Return the Euclidean norm over all tensors together; 0 for an empty list."""
    if not tensors:
        return torch.zeros(())
    norms = torch._foreach_norm([t.detach() for t in tensors])
    return torch.linalg.vector_norm(torch.stack([n.float() for n in norms]))


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
    # shuffle high bits down first: the multipliers act modulo 2**64, so low bits would never see high ones; the mask
    # keeps the sign out of the shift, or a number and its bitwise complement (0 and -1) would be the same
    integers = (integers ^ ((integers >> 17) & (2**47 - 1))) + 1
    generator = torch.Generator().manual_seed(20261121)
    multipliers = torch.randint(-(2**62), 2**62, (integers.shape[1],), generator=generator) * 2 + 1
    sums = (integers * multipliers.to(integers.device)).sum(dim=1)
    return sums ^ (sums >> 29)
