"""Rebuild leaderboard and impact table from stored verdicts: ``python -m bugbench.report [--results FOLDER]``."""

import argparse
import sys
from pathlib import Path

from bugbench.records import Records
from bugbench.report import leaderboard
from rich.console import Console


def main(arguments: list[str]) -> None:
    parser = argparse.ArgumentParser(prog="python -m bugbench.report", description=__doc__)
    parser.add_argument("--results", type=Path, default=Path("results"), help="the results folder (default: results)")
    options = parser.parse_args(arguments)
    try:
        board, _ = leaderboard.build(options.results, Records(options.results).read())
    except (LookupError, ValueError) as error:
        sys.exit(f"bugbench: {error}")
    leaderboard.show(board, Console())


if __name__ == "__main__":
    main(sys.argv[1:])
