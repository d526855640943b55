"""Simulated electrocardiograms: two leads, five seconds, six findings, several records of every patient.

The signal is that of McSharry, Clifford, Tarassenko and Smith, A dynamical model for generating synthetic
electrocardiogram signals, IEEE Transactions on Biomedical Engineering 50(3), 2003: a point goes round the unit circle,
once for each heartbeat, and five events on it (P, Q, R, S, T) push the voltage up or down. Taken from there are

- the angles, amplitudes and widths of the events (table I), and their change with the heart rate;
- the intervals between beats, drawn from a spectrum with two peaks: Mayer waves at 0.1 Hz, respiration at 0.25 Hz;
- the baseline that follows respiration.

The trajectory is followed on its limit cycle, where the phase is the integral of the angular velocity and the voltage
a linear filter of the events' push, so nothing has to be integrated step by step. What the paper does not have:

- a second lead, V1 beside II, which sees the same events with other amplitudes;
- a sixth event, the ST segment; atrial fibrillation (no P, f-waves instead, random intervals); premature ventricular
  beats (early, wide, without P, a pause after them);
- patients: every one has a heart rate and amplitudes, widths and angles of their own, a finding, and six records.
  A finding is more marked in one patient than in another, and some are hard to tell from a healthy one;
- noise: slow drift of the electrodes and muscle noise, in 200 units to the millivolt about 1024, as in many archives.

``records/<record>.npy`` holds a record, int16 (320, 2): time first, then lead. ``annotations.csv`` has the columns
``record``, ``patient`` and ``finding``, in the order in which the findings were confirmed; ``findings.json`` lists the
findings in the order of a model's outputs. The hidden test has other patients.
"""

import json
from functools import cache
from pathlib import Path

import numpy as np
import pandas as pd
from scipy.signal import lfilter
from sklearn.metrics import accuracy_score

FINDINGS = ["normal", "atrial_fibrillation", "premature_beats", "st_elevation", "st_depression", "inverted_t"]
LEADS = ["II", "V1"]
RATE = 64  # samples a second
SECONDS = 5
RECORDS = 6  # of every patient
TRAINING_PATIENTS = 120
HIDDEN_PATIENTS = 90
SAMPLE_SIZE = 60

# P, Q, R, S, T of McSharry et al. (2003), table I, and the ST segment, flat in a healthy heart
ANGLES = np.pi * np.array([-1 / 3, -1 / 12, 0, 1 / 12, 1 / 2, 0.27])
AMPLITUDES = np.array([1.2, -5.0, 30.0, -7.5, 0.75, 0.0])
WIDTHS = np.array([0.25, 0.1, 0.1, 0.1, 0.4, 0.25])
P, Q, R, S, T, ST = range(6)
SECOND_LEAD = np.array([0.5, 0.3, 0.3, 2.5, -0.3, -0.6])  # what V1 sees of each: a deep S, and ST the other way round

FINE = 256  # samples a second of the simulation
WARM_UP = 4  # seconds that the filter needs to forget where it began
GAIN = 30.0  # from the model's unit to mV: an R wave of about 1.2 mV, as in the paper
UNITS = 200  # to the mV


def tachogram(rng: np.random.Generator, mean: float, deviation: float, seconds: float) -> np.ndarray:
    """Return the interval between beats, in seconds, at each of ``seconds * FINE`` instants (section III of the paper).

    Its spectrum has two peaks, one of half the power of the other; the phases are random.
    """
    count = int(seconds * FINE)
    frequencies = np.fft.rfftfreq(4 * count, 1 / FINE)
    power = 0.5 * np.exp(-((frequencies - 0.1) ** 2) / (2 * 0.01**2)) + np.exp(
        -((frequencies - 0.25) ** 2) / (2 * 0.01**2)
    )
    phases = rng.uniform(0, 2 * np.pi, len(frequencies))
    series = np.fft.irfft(np.sqrt(power) * np.exp(1j * phases))
    return mean + deviation * (series / series.std())[:count]


def beat_intervals(rng: np.random.Generator, finding: str, mean: float, seconds: float) -> np.ndarray:
    """Return the interval between beats at each instant, as the finding has it."""
    if finding == "atrial_fibrillation":
        return _held(mean * rng.uniform(0.65, 1.35, int(4 * seconds)), seconds)
    regular = tachogram(rng, mean, 0.03 * mean, seconds)
    if finding == "premature_beats":
        return regular * _held(mean * _turns(np.arange(int(4 * seconds))), seconds) / mean
    return regular


def _turns(beats: np.ndarray) -> np.ndarray:
    """Return the length of each turn: every third beat comes a fifth of an interval early, a pause makes up for it."""
    return np.select([beats % 3 == 1, beats % 3 == 2], [0.6, 1.4], 1.0)


def _held(intervals: np.ndarray, seconds: float) -> np.ndarray:
    """Return at each instant the interval in which it lies."""
    instants = np.arange(int(seconds * FINE)) / FINE
    return intervals[np.searchsorted(np.cumsum(intervals), instants, side="right")]


def simulate(
    intervals: np.ndarray, amplitudes: np.ndarray, widths: np.ndarray, angles: np.ndarray, breathing: float
) -> np.ndarray:
    """Return the voltage of one lead, in mV, at each instant, for a point that starts half a turn before an R wave.

    Args:
        intervals: time between beats at each instant.
        amplitudes: of the events at each instant, shape (instants, events), as are the widths.
        widths: of the events, in radians at 60 beats a minute.
        angles: of the events, shape (events,), at 60 beats a minute.
        breathing: angle of the respiration at the start.
    """
    step = 1 / FINE
    turned = 2 * np.pi * np.cumsum(step / intervals)
    phase = turned % (2 * np.pi) - np.pi
    faster = np.sqrt(1 / intervals.mean())  # the paper's correction for the heart rate, after Bazett
    spread = np.array([np.sqrt(faster), faster, 1, faster, np.sqrt(faster), faster])
    distance = (phase[:, None] - spread * angles + np.pi) % (2 * np.pi) - np.pi
    push = -(amplitudes * distance * np.exp(-(distance**2) / (2 * (widths * faster) ** 2))).sum(axis=1)
    # dz/dt = push - (z - z0), z0 of 0.15 mV at 0.25 Hz
    baseline = 0.15 / GAIN * np.sin(2 * np.pi * 0.25 * np.arange(len(phase)) * step + breathing)
    return GAIN * lfilter([1 - np.exp(-step)], [1, -np.exp(-step)], push + baseline)


def _patient(rng: np.random.Generator, finding: str) -> dict[str, np.ndarray | float]:
    """Draw what all records of a patient share: heart rate, shape of the beats, strength of the finding."""
    amplitudes = AMPLITUDES * np.exp(rng.normal(0, [0.3, 0.4, 0.25, 0.4, 0.45, 0]))
    amplitudes[ST] = rng.normal(0, 0.25)
    strength = np.exp(rng.normal(0, 0.4))
    if finding == "atrial_fibrillation":
        amplitudes[P] = 0
    if finding in ("st_elevation", "st_depression"):
        amplitudes[ST] += strength * (1.2 if finding == "st_elevation" else -1.2)
    if finding == "inverted_t":
        amplitudes[T] *= -0.7 * strength
    return {
        "interval": 60 / rng.uniform(55, 95),
        "amplitudes": amplitudes,
        "second": SECOND_LEAD * np.exp(rng.normal(0, 0.3, 6)),
        "widths": WIDTHS * np.exp(rng.normal(0, 0.1, 6)),
        "angles": ANGLES + rng.normal(0, 0.04, 6),
        "f_waves": rng.uniform(0.02, 0.08) if finding == "atrial_fibrillation" else 0.0,
        "noise": rng.uniform(0.02, 0.06),
    }


def _record(rng: np.random.Generator, patient: dict, finding: str) -> np.ndarray:
    """Return one record of a patient, (320, 2), int16."""
    seconds = WARM_UP + SECONDS
    intervals = beat_intervals(rng, finding, patient["interval"] * rng.uniform(0.93, 1.07), seconds)
    instants = np.arange(len(intervals)) / FINE
    beat = np.cumsum(1 / FINE / intervals).astype(int)
    early = (beat % 3 == 1) & (finding == "premature_beats")
    widths = np.where(early[:, None], patient["widths"] * [1, 1, 2.2, 2.2, 1, 1], patient["widths"])
    ectopic = np.array([0, 0, 0.35, 0.35, -1.5, 1])  # no P; as wide a QRS, as high; T the other way round
    breathing, flutter = rng.uniform(0, 2 * np.pi, 2)
    leads = []
    for weights in (np.ones(6), patient["second"]):
        amplitudes = patient["amplitudes"] * weights
        amplitudes = np.where(early[:, None], amplitudes * ectopic, amplitudes)
        voltage = simulate(intervals, amplitudes, widths, patient["angles"], breathing)
        f_waves = patient["f_waves"] * np.sin(2 * np.pi * 6 * instants + np.sin(instants) + flutter)
        drift = lfilter([0.02], [1, -0.995], rng.normal(0, 1, len(instants)))
        leads.append(voltage + f_waves + 0.4 * drift + rng.normal(0, patient["noise"], len(instants)))
    start = WARM_UP * FINE - rng.integers(FINE)
    window = np.stack(leads, axis=1)[start : start + SECONDS * FINE]
    return np.rint(1024 + UNITS * window.reshape(SECONDS * RATE, -1, len(LEADS)).mean(axis=1)).astype(np.int16)


def _cohort(seed: int, patients: int) -> tuple[np.ndarray, pd.DataFrame]:
    """Return records (n, 320, 2) and their annotations, patient by patient; the findings take turns."""
    rng = np.random.default_rng(seed)
    numbers = 1000 + rng.permutation(9000)[:patients]
    signals, rows = [], []
    for i, number in enumerate(numbers):
        finding = FINDINGS[i % len(FINDINGS)]
        patient = _patient(rng, finding)
        for k in range(RECORDS):
            signals.append(_record(rng, patient, finding))
            rows.append({"record": f"{number}_{k + 1}", "patient": number, "finding": finding})
    return np.stack(signals), pd.DataFrame(rows)


@cache
def _training() -> tuple[np.ndarray, pd.DataFrame]:
    return _cohort(1, TRAINING_PATIENTS)


def _targets(table: pd.DataFrame) -> np.ndarray:
    return table["finding"].map(FINDINGS.index).to_numpy(dtype=np.int64)


def write_training_data(folder: Path) -> None:
    """Write 720 records, ``annotations.csv``, in another order, and ``findings.json``."""
    signals, table = _training()
    records = Path(folder) / "records"
    records.mkdir()
    for name, signal in zip(table["record"], signals, strict=True):
        np.save(records / f"{name}.npy", signal)
    table.sample(frac=1, random_state=0).to_csv(Path(folder) / "annotations.csv", index=False)
    (Path(folder) / "findings.json").write_text(json.dumps(FINDINGS))


def training_sample() -> tuple[np.ndarray, np.ndarray]:
    """Return one record of each of 60 training patients, (60, 320, 2), int16, with their targets (60,)."""
    signals, table = _training()
    rows = np.arange(SAMPLE_SIZE) * RECORDS
    return signals[rows], _targets(table)[rows]


def hidden_test() -> tuple[np.ndarray, np.ndarray]:
    """Return the 540 records (540, 320, 2), int16, of 90 other patients, with their targets (540,)."""
    signals, table = _cohort(2, HIDDEN_PATIENTS)
    return signals, _targets(table)


def oracle_metric(outputs: np.ndarray, targets: np.ndarray) -> float:
    """Return the accuracy of scores (N, 6) against targets (N,); a row with NaN or infinity is wrong."""
    finite = np.isfinite(outputs).all(axis=1)
    predicted = np.where(finite, np.nan_to_num(outputs).argmax(axis=1), -1)
    return float(accuracy_score(targets, predicted))
