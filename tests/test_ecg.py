"""The simulated ECG: heart rate and findings come out as asked."""

import numpy as np
import pytest
from bugbench.datasets import ecg
from scipy.signal import find_peaks


def lead(interval: float, seconds: float = 30, **changed: float) -> np.ndarray:
    """Return a noiseless lead II with a constant interval between beats and other amplitudes of some events."""
    amplitudes = ecg.AMPLITUDES.copy()
    for event, value in changed.items():
        amplitudes[getattr(ecg, event)] = value
    return ecg.simulate(np.full(int(seconds * ecg.FINE), interval), amplitudes, ecg.WIDTHS, ecg.ANGLES, breathing=0.0)


@pytest.mark.parametrize("rate", [50, 75, 100])
def test_heart_rate_is_the_one_asked_for(rate: int) -> None:
    peaks, _ = find_peaks(lead(60 / rate), prominence=0.5, distance=0.6 * 60 / rate * ecg.FINE)
    assert 60 * ecg.FINE / np.diff(peaks).mean() == pytest.approx(rate, rel=0.02)


def test_intervals_have_the_mean_and_deviation_asked_for() -> None:
    intervals = ecg.tachogram(np.random.default_rng(0), mean=0.8, deviation=0.03, seconds=300)
    assert intervals.mean() == pytest.approx(0.8, abs=0.01)
    assert intervals.std() == pytest.approx(0.03, rel=0.4)


@pytest.mark.parametrize(("event", "value", "rises"), [("ST", 1.2, True), ("ST", -1.2, False), ("T", -0.75, False)])
def test_event_moves_the_voltage_at_its_angle(event: str, value: float, rises: bool) -> None:
    moved = lead(1.0, **{event: value}) - lead(1.0)
    at_angle = int((0.5 + ecg.ANGLES[getattr(ecg, event)] / (2 * np.pi)) * ecg.FINE) + 20 * ecg.FINE
    assert (moved[at_angle] > 0) == rises
    assert abs(moved[at_angle]) > 0.05


def test_patients_are_on_one_side_only_and_have_one_finding_each() -> None:
    _, training = ecg._training()
    assert (training.groupby("patient")["finding"].nunique() == 1).all()
    assert (training.groupby("patient").size() == ecg.RECORDS).all()
    hidden, _ = ecg.hidden_test()
    signals, _ = ecg._training()
    assert not {s.tobytes() for s in hidden} & {s.tobytes() for s in signals}
