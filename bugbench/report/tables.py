"""Every table of the report, made from stored verdicts when first asked for, and written as CSV."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

import pandas as pd
from bugbench import atomic, breakdown
from bugbench.catalogue import vocabulary
from bugbench.scoring import leaderboard, tier, with_harm

SLICE_RESAMPLES = 1000  # for the intervals of a single workload or family, of which there may be two hundred
NAMED = 2  # detectors that are named where no more are better, worse or not told apart; else they are counted
EVERYTHING = ("", "")


@dataclass(frozen=True)
class Tables:
    """The report's tables.

    Attributes:
        verdicts, impact: see :func:`bugbench.scoring.leaderboard`.
        lengths: ``bug, workload, seed, steps`` of every run, see :func:`bugbench.breakdown.alarm_times`.
        origins: by detector, one of :data:`bugbench.detector.ORIGINS`, with ", fitted" after it if the detector learns.
    """

    verdicts: pd.DataFrame
    impact: pd.DataFrame
    lengths: pd.DataFrame
    origins: Mapping[str, str] = field(default_factory=dict)

    @cached_property
    def cases(self) -> pd.DataFrame:
        return with_harm(self.verdicts, self.impact)

    @cached_property
    def board(self) -> pd.DataFrame:
        board = leaderboard(self.verdicts, self.impact)
        board.insert(2, "origin", [self.origins.get(name, "") for name in board["detector"]])
        return board

    @cached_property
    def contestants(self) -> list[str]:
        """The detectors in the leaderboard's order, without the oracle, which reads the truth."""
        tiers = self.board["access"].map(tier)
        return list(self.board.loc[tiers != "truth", "detector"])

    @cached_property
    def absent(self) -> dict[str, str]:
        """By detector whose tool is not installed, how to install it."""
        rows = self.verdicts[self.verdicts["status"] == "not_installed"]
        return {str(name): str(reason) for name, reason in rows.groupby("detector")["reason"].first().items()}

    @cached_property
    def by_fault(self) -> pd.DataFrame:
        return breakdown.by_fault(self.cases)

    @cached_property
    def distinct(self) -> pd.DataFrame:
        """A row of :attr:`cases` for each case that any detector was judged on."""
        return self.cases.drop_duplicates(breakdown.CASE)

    @cached_property
    def harmful_faults(self) -> list[str]:
        return sorted(str(fault) for fault in self.by_fault["fault"].unique())

    @cached_property
    def unnamed(self) -> list[str]:
        """The faults that no detector but the oracle and the baselines ever puts first."""
        guessing = {name for name, origin in self.origins.items() if origin == "baseline"}
        rows = self.by_fault[self.by_fault["detector"].isin(set(self.contestants) - guessing)]
        return sorted(set(self.harmful_faults) - set(rows.loc[rows["right"] > 0, "fault"]))

    @cached_property
    def by_family(self) -> pd.DataFrame:
        return breakdown.by_family(self.cases)

    @cached_property
    def by_control(self) -> pd.DataFrame:
        return breakdown.by_control(self.cases)

    @cached_property
    def confusion(self) -> pd.DataFrame:
        return breakdown.confusion(self.cases)

    @cached_property
    def answers(self) -> pd.DataFrame:
        return breakdown.answers(self.cases, vocabulary()[1])

    @cached_property
    def alarm_times(self) -> breakdown.AlarmTimes:
        return breakdown.alarm_times(self.cases, self.lengths)

    @cached_property
    def comparisons(self) -> pd.DataFrame:
        return breakdown.comparisons(self.cases, self.contestants)

    @cached_property
    def ranking(self) -> breakdown.Ranking:
        return breakdown.ranking(self.cases, self.contestants)

    @cached_property
    def slices(self) -> dict[tuple[str, str], pd.DataFrame]:
        """The leaderboard by workload and family of the bugs ("" = all); controls belong to every family."""
        control, family, workload = (self.verdicts[c] for c in ("control", "family", "workload"))
        families = sorted(family[~control].unique())
        boards = {EVERYTHING: self.board}
        for place in ["", *sorted(workload.unique())]:
            here = (workload == place) | (place == "")
            for group in ["", *families]:
                bugs = here & ~control & ((family == group) | (group == ""))
                if (place, group) != EVERYTHING and bugs.any():
                    boards[place, group] = leaderboard(
                        self.verdicts[bugs | here & control], self.impact, SLICE_RESAMPLES
                    )
        return boards

    @cached_property
    def compared(self) -> dict[str, Mapping[str, list[str]]]:
        """By detector, the others that it is "better than", "worse than" or "not told apart from" by its J."""
        return {name: self._compared(name) for name in self.contestants}

    def _compared(self, name: str) -> Mapping[str, list[str]]:
        pairs = self.comparisons[self.comparisons["p"].notna()]  # the rest share no case
        ahead, behind = pairs[pairs["detector"] == name], pairs[pairs["other"] == name]
        others = pd.concat([ahead["other"], behind["detector"]])
        difference = pd.concat([ahead["difference"], -behind["difference"]])
        apart = pd.concat([ahead["told_apart"], behind["told_apart"]]).astype(bool)
        kinds = {
            "better than": apart & (difference > 0),
            "worse than": apart & (difference < 0),
            "not told apart from": ~apart,
        }
        return {kind: [str(other) for other in others[chosen]] for kind, chosen in kinds.items()}

    def files(self) -> Mapping[str, pd.DataFrame]:
        """Return the tables that are written beside the leaderboard, by the name of their file."""
        times = self.alarm_times.table.merge(self.answers, on="detector", how="left")
        return {
            "by_fault": self.by_fault,
            "by_family": self.by_family,
            "by_control": self.by_control,
            "confusion": self.confusion,
            "comparisons": self.comparisons,
            "answers_and_times": times,
        }

    def write(self, folder: Path) -> list[str]:
        """Write the tables as CSV; return the names of the files."""
        for name, table in self.files().items():
            atomic.write(folder / f"{name}.csv", csv(table))
        return [f"{name}.csv" for name in self.files()]


def compared_words(found: Mapping[str, list[str]]) -> str:
    """Return in words what :attr:`Tables.compared` holds of a detector: few others by name, more by number."""
    parts = [f"{k} {', '.join(names) if len(names) <= NAMED else len(names)}" for k, names in found.items() if names]
    return ", ".join(parts) or "not compared"


def csv(frame: pd.DataFrame) -> str:
    """Return a table as it stands in results/: six digits, the same bytes on every machine."""
    return frame.to_csv(index=False, float_format="%.6g", lineterminator="\n")
