"""What a bug does, measured: matched runs of the bug and of its healthy twin in, one row per bug and workload out.

A run is measured twice. The *oracle metric* says how good the model is on a hidden test set; the *report* is what the
program said of itself. From these follow an effect (degraded or none) and a misreport (inflated or understated).
"""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import pandas as pd
from bugbench.statistics import Floats, sign_flip_test

SIGNIFICANT = 0.05
ENOUGH_SEEDS = 5  # the fewest matched seeds that can be significant: 1 / 2^5 = 0.031, but 1 / 2^4 = 0.063
STATES = ("crashed", "degraded", "inflated", "understated", "latent")
RUN_COLUMNS = [
    *("bug", "workload", "seed", "oracle_bug", "oracle_twin", "reported_bug", "reported_twin"),
    *("crashed_bug", "onset", "key"),
]
IMPACT_COLUMNS = [
    *("bug", "workload", "seeds", "oracle_bug", "oracle_twin", "reported_bug", "reported_twin"),
    *("effect", "p", "onset", "state"),
    *("effect_share", "report_shift", "report_p", "crashed", "provisional", "key"),
]


@dataclass(frozen=True)
class Oracle:
    """How a workload's oracle metric is read; the report is in the same unit.

    Attributes:
        metric: its name.
        direction: whether more of it is better ("maximize") or less ("minimize").
        bounds: least and greatest value that counts; what lies beyond is clipped, what is not finite is the worse one.
        floor: the smallest change that matters to a practitioner, in the metric's unit.
    """

    metric: str
    direction: Literal["maximize", "minimize"]
    bounds: Sequence[float]
    floor: float

    def __post_init__(self) -> None:
        """Reject settings under which an impact would make no sense."""
        if self.direction not in ("maximize", "minimize"):
            raise ValueError(f"oracle direction is {self.direction!r}: maximize or minimize")
        if len(self.bounds) != 2 or not np.isfinite(self.bounds).all() or self.bounds[0] >= self.bounds[1]:
            raise ValueError(f"oracle bounds are {list(self.bounds)}: two finite numbers, the smaller first")
        if not 0 < self.floor <= self.bounds[1] - self.bounds[0]:
            raise ValueError(f"oracle floor is {self.floor}: above 0 and within the bounds {list(self.bounds)}")

    @property
    def sign(self) -> float:
        """1 where more is better, -1 where less is."""
        return 1.0 if self.direction == "maximize" else -1.0

    def counted(self, values: pd.Series) -> Floats:
        """Return the values as they count: clipped to the bounds, the worse bound for a missing or infinite one."""
        low, high = self.bounds
        worst = low if self.direction == "maximize" else high
        numbers = pd.to_numeric(values).to_numpy(dtype=np.float64, na_value=np.nan)
        return np.where(np.isfinite(numbers), np.clip(numbers, low, high), worst)


def is_harmful(state: str) -> bool:
    """Tell whether a bug in this state does harm; a control passes its test where this is False."""
    parts = state.split("+")
    if unknown := [part for part in parts if part not in STATES]:
        raise ValueError(f"unknown state {unknown[0]!r} in {state!r}: {', '.join(STATES)}")
    return parts != ["latent"]


def measure_impact(runs: pd.DataFrame, oracles: Mapping[str, Oracle]) -> pd.DataFrame:
    """Return one row per bug and workload that says what the bug does there.

    Args:
        runs: one row per bug, workload and seed: ``oracle_bug, oracle_twin, reported_bug, reported_twin`` (NaN where
            there is none), ``crashed_bug`` (bool), ``onset`` (first step at which the traces differ, NaN if none)
            and ``key`` (hash of what was run).
        oracles: the settings of each workload.

    Returns:
        Columns :data:`IMPACT_COLUMNS`, sorted by bug and workload:

        * ``seeds``: number of matched runs; ``crashed``: share of them in which the bug crashed.
        * ``oracle_bug``, …, ``reported_twin``: means of the values as they count (see :meth:`Oracle.counted`).
        * ``effect``: mean fall of the oracle metric from twin to bug in its own unit, positive = worse; ``p``: of
          "worse", one-sided; ``effect_share``: effect by the width of the bounds, to compare workloads.
        * ``report_shift``: how much rosier the bug makes the report, given the oracle metric; ``report_p``: of a
          shift in the direction that it has, one-sided. As either direction counts, chance alone passes twice as
          often as ``p`` says, 6 % with five seeds; what keeps it out is the floor.
        * ``onset``: median over the seeds whose traces differ, NaN where none does.
        * ``state``: ``crashed`` if more than half of the runs did (where fewer did, those count as the worst model,
          which made no claim); else ``degraded``, ``inflated`` or ``understated``, joined by ``+`` where two hold;
          else ``latent``. Each asks for a mean of at least the floor and p <= 0.05. An improvement is not degraded.
        * ``provisional``: fewer than five seeds, where no p can be 0.05: the floor alone has decided.
        * ``key``: the runs' key, or a hash of their keys in the order of the seeds where they differ.

    Raises:
        ValueError: a column or a workload's settings are missing, or a seed comes twice.
    """
    if missing := [column for column in RUN_COLUMNS if column not in runs.columns]:
        raise ValueError(f"runs lack the columns {', '.join(missing)}")
    if unknown := sorted(set(runs["workload"]) - set(oracles)):
        raise ValueError(f"no oracle settings for workload {unknown[0]!r}; known: {', '.join(sorted(oracles))}")
    repeated = runs[runs.duplicated(["bug", "workload", "seed"])]
    if len(repeated):
        raise ValueError(f"run given twice: {repeated.iloc[0][['bug', 'workload', 'seed']].to_dict()}")
    ordered = runs.sort_values(["bug", "workload", "seed"])
    rows = [
        {"bug": bug, "workload": workload, **_impact(group, oracles[str(workload)])}
        for (bug, workload), group in ordered.groupby(["bug", "workload"])
    ]
    return pd.DataFrame(rows, columns=IMPACT_COLUMNS)


def _impact(runs: pd.DataFrame, oracle: Oracle) -> dict[str, Any]:
    """Return the row of one bug on one workload from its runs in the order of their seeds."""
    crashed = runs["crashed_bug"].astype(bool)
    values = {
        "oracle_bug": oracle.counted(runs["oracle_bug"].mask(crashed)),
        "oracle_twin": oracle.counted(runs["oracle_twin"]),
        "reported_bug": oracle.counted(runs["reported_bug"].mask(crashed)),
        "reported_twin": oracle.counted(runs["reported_twin"]),
    }
    falls = oracle.sign * (values["oracle_twin"] - values["oracle_bug"])
    optimism_bug = oracle.sign * (values["reported_bug"] - values["oracle_bug"])
    optimism_twin = oracle.sign * (values["reported_twin"] - values["oracle_twin"])
    shifts = optimism_bug - optimism_twin

    provisional = len(runs) < ENOUGH_SEEDS
    effect, shift = float(falls.mean()), float(shifts.mean())
    p = sign_flip_test(falls, "greater")
    report_p = sign_flip_test(shifts, "greater" if shift >= 0 else "less")

    def matters(size: float, p: float) -> bool:
        # 0.98 - 0.96 falls short of 0.02 by a rounding error
        large = size >= oracle.floor or bool(np.isclose(size, oracle.floor, rtol=1e-9, atol=0))
        return large and (provisional or p <= SIGNIFICANT)

    states = []
    if crashed.mean() > 0.5:
        states.append("crashed")
    else:
        if matters(effect, p):
            states.append("degraded")
        if matters(abs(shift), report_p):
            states.append("inflated" if shift > 0 else "understated")
    low, high = oracle.bounds
    return {
        "seeds": len(runs),
        **{name: float(value.mean()) for name, value in values.items()},
        "effect": effect,
        "p": p,
        "onset": float(pd.to_numeric(runs["onset"]).median()),
        "state": "+".join(states) or "latent",
        "effect_share": effect / (high - low),
        "report_shift": shift,
        "report_p": report_p,
        "crashed": float(crashed.mean()),
        "provisional": provisional,
        "key": _common_key(list(runs["key"])),
    }


def _common_key(keys: list[str]) -> str:
    """Return the key that all runs share, or a hash of all of them."""
    if len(set(keys)) == 1:
        return keys[0]
    return hashlib.sha256("\n".join(keys).encode()).hexdigest()[:16]
