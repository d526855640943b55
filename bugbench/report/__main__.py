"""Draw all tables and the page anew from stored verdicts: ``python -m bugbench.report [--results FOLDER]``.

Cases that are damaged are named and left out; the exit status is then 1.
"""

import argparse
import sys
from pathlib import Path

from bugbench.catalogue import catalogue_of, search_path_of
from bugbench.integrity import warn
from bugbench.records import Records, results_folder
from bugbench.report import leaderboard
from rich.console import Console


def main(arguments: list[str]) -> None:
    parser = argparse.ArgumentParser(prog="python -m bugbench.report", description=__doc__)
    parser.add_argument("--results", type=Path, default=Path("results"), help="the results folder (default: results)")
    parser.add_argument("--search-path", nargs="+", default=search_path_of([]), metavar="FOLDER")
    options = parser.parse_args(arguments)
    records = Records(options.results)
    try:
        results_folder(options.results)
        cases = records.read()
        catalogue = catalogue_of(tuple(options.search_path))
        for problem in records.damage(cases, catalogue.folders):
            warn(problem)
        board, _ = leaderboard.build(options.results, cases, catalogue)
    except (LookupError, ValueError, OSError) as error:
        sys.exit(f"bugbench: {error}")
    leaderboard.show(board, Console())
    leaderboard.show_failures(cases.verdicts, Console())
    Console().print(leaderboard.wrote(options.results), highlight=False, soft_wrap=True)
    if cases.damaged:
        sys.exit(1)


if __name__ == "__main__":
    main(sys.argv[1:])
