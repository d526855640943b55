"""leaderboard.html: all tables, diagrams and bugs on one page that needs no network and runs no code but its own."""

import base64
import hashlib
import html
import json
import math
from collections.abc import Mapping, Sequence
from functools import cache
from importlib.resources import files
from typing import Any

import pandas as pd
from bugbench.catalogue import Catalogue, vocabulary
from bugbench.detector import ORIGINS
from bugbench.integrity import warn
from bugbench.records import Cases, Record
from bugbench.report import drawing
from bugbench.report.bug_sections import Section, sections
from bugbench.report.stored_runs import StoredRuns
from bugbench.report.tables import Tables, compared_words
from bugbench.report.wording import (
    ANSWERS,
    EXPLANATION,
    SHOWN,
    TIER_TITLES,
    WORDS,
    cells,
    counted,
    failures,
    friedman_words,
    number,
    times_words,
    unnamed_words,
)
from bugbench.scoring import STATUSES, tier
from jinja2 import Environment, FunctionLoader, StrictUndefined
from markupsafe import Markup

LARGEST = 10 * 2**20  # bytes; above that the evidence is cut shorter, and then curves are left out
SCRIPTS = ("leaderboard.js", "filters.js")  # one script on the page, in this order
EVIDENCE_LENGTHS = (400, 120, 0)  # characters of a detector's evidence, tried in this order
STANDING_OUT = 6  # detectors whose curves are coloured: of those shown, the best by diagnosis J
# columns that are shown on demand: the first on screens of any width, the others on narrow ones only
LESSER = dict.fromkeys(["family_rate", "top3_rate", "median_delay", "median_seconds"], "lesser")
LESSER |= dict.fromkeys(["detection_j", "exact_rate", "precision", "judged"], "wide")
SAME_FAMILY = {"family": "same family"}  # the answer, which is not the rate of that name
NAMED_CASES = 3  # skipped cases that are named for each reason; the others are counted
ANSWER_TITLES = {
    "cause": "the cause",
    "symptom": "the symptom: the right family by name",
    "family": "another fault of the right family",
    "wrong": "something else",
    "silent": "nothing",
}


def render(tables: Tables, cases: Cases, summary: str, runs: StoredRuns, catalogue: Catalogue | None = None) -> str:
    """Return the page.

    Args:
        tables: what it shows.
        cases: what they were made from.
        summary: in a few sentences, what the tables are about.
        runs: for diffs and curves; what is no longer stored is left out.
        catalogue: for the bugs' titles and the metric that a workload reports.
    """
    faults, families = vocabulary()
    board = tables.board
    tiers = {name: tier(access) for name, access in zip(board["detector"], board["access"], strict=True)}
    bugs = sections(cases.scored, cases.verdicts, tables.impact, runs, catalogue, faults)
    used = sorted({bug.family for bug in bugs if not bug.record.control})
    context = {
        "summary": _plain(summary),
        "explanation": _plain(EXPLANATION),
        "answers_note": _plain(ANSWERS),
        "times_note": _plain(times_words(tables.alarm_times)),
        "words": ", ".join(list(SHOWN.values())[1:WORDS]),
        "numbers": dict(list(SHOWN.items())[WORDS:]),
        "lesser": LESSER,
        "board": _board(tables),
        "tiers": tiers,
        "tier_titles": {name: TIER_TITLES[name] for name in TIER_TITLES if name in tiers.values()},
        "origins": {name: text.partition(",")[0] for name, text in tables.origins.items()},
        "origin_titles": {name: title for name, title in ORIGINS.items() if board["origin"].str.startswith(name).any()},
        "absent": tables.absent,
        "families": {family: families.get(family, "") for family in used},
        "workloads": sorted({r.workload for r in cases.scored}),
        "answers": _answers(tables),
        "unnamed": _plain(unnamed_words(tables.unnamed, len(tables.harmful_faults))),
        "answer_titles": ANSWER_TITLES,
        "answer_words": {kind: SAME_FAMILY.get(kind, kind) for kind in ANSWER_TITLES},
        "friedman": friedman_words(tables.ranking),
        "diagram": _diagram(tables),
        "comparisons": int(tables.comparisons["p"].notna().sum()),
        "times": _times(tables),
        "curves": _staircases(tables),
        "unknown_times": tables.alarm_times.unknown,
        "troubled": _troubled(board),
        "failures": failures(tables.verdicts),
        "damaged": [str(problem) for problem in cases.damaged],
        "skipped": _skipped(cases.records),
        "bugs": bugs,
        "data": _data(tables, families, faults),
    }
    return _fitting(context, bugs)


def _fitting(context: Mapping[str, Any], bugs: Sequence[Section]) -> str:
    """Return the page with as much of the evidence and the curves as keeps it below :data:`LARGEST`."""
    latent = {bug.label for bug in bugs if not bug.harmful and not bug.record.control}
    controls = {bug.label for bug in bugs if bug.record.control}
    whole, *shorter, none = EVIDENCE_LENGTHS
    cuts: list[tuple[int, set[str], str]] = [
        (whole, set(), ""),
        *((length, set(), f"evidence is cut at {length} characters") for length in shorter),
        (none, set(), "evidence is left out"),
        (none, latent, "evidence and the curves of latent bugs are left out"),
        (none, latent | controls, "evidence and the curves of latent bugs and of controls are left out"),
    ]
    page = ""
    for length, undrawn, words in cuts:
        page = _template().render({**context, "evidence_length": length, "undrawn": undrawn, "cut": words})
        if len(page.encode()) <= LARGEST:
            return page
    megabytes = len(page.encode()) / 2**20
    warn(
        f"leaderboard.html has {megabytes:.1f} MiB, more than {LARGEST / 2**20:.1f}, although {words}: it loads slowly"
    )
    return page


@cache
def _template() -> Any:
    """Return the template; the only code that the page's policy lets run is its own script, known by its hash."""
    folder = files("bugbench.report") / "templates"
    environment = Environment(
        loader=FunctionLoader(lambda name: (folder / name).read_text(encoding="utf-8")),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=StrictUndefined,
    )
    script = "\n".join((folder / name).read_text(encoding="utf-8") for name in SCRIPTS)
    style = (folder / "leaderboard.css").read_text(encoding="utf-8")
    seal = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    environment.globals |= {"script": Markup(script), "style": Markup(style), "script_hash": f"sha256-{seal}"}
    environment.filters["code"] = lambda text: _plain(text, CODE)  # a card may multiply by asterisks
    return environment.get_template("leaderboard.html")


CODE = {"`": "code"}
MARKS = {"**": "strong", "*": "em", **CODE}


def _plain(text: str, marks: Mapping[str, str] = MARKS) -> Markup:
    """Return a sentence of Markdown as HTML: only the emphasis and the code marks that the wording uses."""
    escaped = html.escape(" ".join(text.split()))
    for mark, tag in marks.items():
        pieces = escaped.split(mark)
        if len(pieces) % 2:
            escaped = "".join(p if i % 2 == 0 else f"<{tag}>{p}</{tag}>" for i, p in enumerate(pieces))
    return Markup(escaped)


def _board(tables: Tables) -> list[tuple[str, str, dict[str, str], str, str]]:
    """Return the leaderboard's rows: detector, what is said of it, its numbers, how it compares, and to whom."""
    rows = []
    for _, row in tables.board.iterrows():
        name, texts = row["detector"], cells(row)
        words = ", ".join(text for text in texts[1:WORDS] if text)
        numbers = dict(zip(list(SHOWN)[WORDS:], texts[WORDS:], strict=True))
        found = tables.compared.get(name)
        others = "" if found is None else "; ".join(f"{kind} {', '.join(own)}" for kind, own in found.items() if own)
        rows.append((name, words, numbers, "–" if found is None else compared_words(found), others))
    return rows


def _skipped(records: Sequence[Record]) -> list[tuple[str, str, str]]:
    """Return each reason why cases were skipped, how many, and the first of them; the most frequent reason first."""
    folders: dict[str, list[str]] = {}
    for record in records:
        if record.skipped:
            folders.setdefault(record.skipped, []).append(str(record.folder))
    return [
        (
            reason,
            counted(len(own), "case"),
            ", ".join(own[:NAMED_CASES]) + (f" and {len(own) - NAMED_CASES} more" if len(own) > NAMED_CASES else ""),
        )
        for reason, own in sorted(folders.items(), key=lambda item: (-len(item[1]), item[0]))
    ]


def _answers(tables: Tables) -> list[tuple[str, dict[str, float]]]:
    """Return what share of the harmful bugs each detector answered how, in the leaderboard's order."""
    table = tables.answers.set_index("detector")
    rows = [(name, table.loc[name].to_dict()) for name in tables.board["detector"] if name in table.index]
    return [(name, shares) for name, shares in rows if not math.isnan(sum(shares.values()))]


def _diagram(tables: Tables) -> Markup | None:
    ranking = tables.ranking
    return drawing.critical_difference_diagram(ranking.detectors, ranking.ranks) if ranking.ranks else None


def _times(tables: Tables) -> list[list[str]]:
    table = tables.alarm_times.table.sort_values(["restricted_mean", "detector"])
    flagged = tables.board.set_index("detector")["false_alarm_rate"]
    decimals = {"restricted_mean": 1, "median": 0, "median_seconds": 3, "p95_seconds": 3}
    return [
        [
            *(row["detector"], str(row["cases"]), str(row["alarms"]), number(flagged[row["detector"]], 2)),
            *(number(row[c], d) for c, d in decimals.items()),
        ]
        for row in table.to_dict("records")
    ]


def _staircases(tables: Tables) -> Markup | None:
    times = tables.alarm_times
    if not times.curves or math.isnan(times.horizon):
        return None
    spoke = set(times.table.loc[times.table["alarms"] > 0, "detector"])
    chosen = [name for name in tables.contestants if name in spoke]
    return drawing.staircases(times.curves, times.horizon, chosen[:STANDING_OUT])


def _troubled(board: pd.DataFrame) -> dict[str, Any]:
    statuses = [status for status in STATUSES if status != "ok" and board[status].any()]
    rows = board[board[statuses].any(axis=1)] if statuses else board.iloc[:0]
    asked = rows[list(STATUSES)].sum(axis=1)
    counts = [
        (row["detector"], [total, *(row[s] for s in statuses)])
        for (_, row), total in zip(rows.iterrows(), asked, strict=True)
    ]
    return {"statuses": ["asked", *statuses], "rows": counts}


def _data(tables: Tables, families: Mapping[str, str], faults: Mapping[str, Mapping[str, str]]) -> Markup:
    """Return what the page's script needs, as JSON that cannot end the element it stands in."""
    detectors = list(tables.board["detector"])
    boards = {
        "|".join(key): {row["detector"]: cells(row)[WORDS:] for _, row in board.iterrows()}
        for key, board in tables.slices.items()
    }
    family_of = {fault: entry["family"] for fault, entry in faults.items()}
    titles = {**families, **{fault: entry["title"] for fault, entry in faults.items()}}
    confusion = tables.confusion
    data = {
        "detectors": detectors,
        "boards": boards,
        "heat": {
            "family": _heat(tables.by_family, "family", ["right", "detected", "family_right"], detectors),
            "fault": _heat(tables.by_fault, "fault", ["right", "detected", "family_right"], detectors),
            "control": _heat(tables.by_control, "control", ["flagged"], detectors),
        },
        "titles": titles,
        "family_of": family_of,
        "confusion": {
            str(name): rows[["truth", "answer", "cases", "right"]].astype({"right": int}).to_numpy().tolist()
            for name, rows in confusion.groupby("detector")
        },
    }
    text = json.dumps(data, ensure_ascii=False, separators=(",", ":"), allow_nan=False)
    return Markup(text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026"))


def _heat(table: pd.DataFrame, subject: str, measures: Sequence[str], detectors: Sequence[str]) -> dict[str, Any]:
    """Return the rows' names and, for each measure, the percentages by row and detector; None where none is known."""
    names = sorted(table[subject].unique())
    if subject == "fault":
        family = dict(zip(table["fault"], table["family"], strict=True))
        names = sorted(names, key=lambda name: (family[name], name))
    values = {}
    for measure in measures:
        wide = table.pivot(index=subject, columns="detector", values=measure).reindex(
            index=names, columns=list(detectors)
        )
        values[measure] = [[None if pd.isna(v) else round(100 * v) for v in row] for row in wide.to_numpy(dtype=float)]
    most = table.groupby(subject)["cases"].max().reindex(names)
    return {"names": names, "values": values, "cases": [int(count) for count in most]}
