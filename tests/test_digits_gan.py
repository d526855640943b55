"""The coverage that the GAN is judged by: against an example worked out by hand, and on images good and bad."""

import numpy as np
import pytest
import torch
from bugbench.datasets import digits_images
from bugbench.workloads import digits_gan

LINE = np.array([0.0, 1.0, 2.0, 3.0, 4.0, 5.0, 100.0])[:, None]  # real "images" of one pixel
# Their fifth-nearest neighbours are 5, 4, 3, 3, 4, 5 and 99 away.


def _both(drawn, real):
    """Return the coverage as the harness computes it and as the program does."""
    drawn, real = np.asarray(drawn, np.float64), np.asarray(real, np.float64)
    return (
        digits_images.oracle_metric(drawn, real),
        digits_gan.coverage(torch.as_tensor(drawn), torch.as_tensor(real)),
    )


@pytest.mark.parametrize(
    ("drawn", "covered"),
    [
        ([[0.0]], 3),  # 0, 1 and 2; the image at 3 is 3 away, which is not nearer
        ([[-1.0]], 2),
        ([[-1.0], [-1.0], [-1.5]], 2),  # many of a kind cover no more
        ([[100.0]], 1),
        ([[-1.0], [100.0]], 3),
        ([[1000.0], [-50.0]], 0),
    ],
)
def test_coverage_is_that_worked_out_by_hand(drawn, covered):
    assert _both(drawn, LINE) == (pytest.approx(covered / 7), pytest.approx(covered / 7))


def test_drawings_that_are_not_finite_are_none():
    drawn = np.array([[0.0], [np.nan], [np.inf]])
    assert digits_images.oracle_metric(drawn, LINE) == pytest.approx(3 / 7)
    assert digits_images.oracle_metric(np.full((3, 1), np.nan), LINE) == 0.0


def test_real_images_score_high_and_a_collapse_and_noise_do_not():
    _, hidden = digits_images.hidden_test()
    _, real = digits_images.training_sample()
    rng = np.random.default_rng(0)
    few = digits_images.oracle_metric(real, hidden)
    collapsed = digits_images.oracle_metric(np.repeat(real[:1], 540, axis=0) + rng.normal(0, 0.5, (540, 8, 8)), hidden)
    noise = digits_images.oracle_metric(rng.uniform(0, 16, (540, 8, 8)), hidden)
    assert digits_images.oracle_metric(hidden, hidden) == 1.0
    assert few > 0.4
    assert collapsed < 0.05
    assert noise == 0.0


def test_noise_is_the_same_each_time_and_as_long_as_the_program_takes_it():
    (first, _), (again, images) = digits_images.hidden_test(), digits_images.hidden_test()
    assert np.array_equal(first, again)
    assert first.shape == (len(images), digits_images.NOISE_SIZE)
    sample, _ = digits_images.training_sample()
    assert not np.array_equal(sample, first[: len(sample)])
