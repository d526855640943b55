"""The page's parts fit each other: columns, filters, colours and size."""

import re
from importlib.resources import files
from pathlib import Path

import pytest
from bugbench.records import Records
from bugbench.report import drawing, page
from bugbench.report.wording import SHOWN
from bugbench.survival import kaplan_meier
from stored_cases import built, record, store, write_trace

STYLE = (files("bugbench.report") / "templates" / "leaderboard.css").read_text(encoding="utf-8")
FILTERS = {"tier", "origin", "family", "workload"}


def luminance(colour: str) -> float:
    parts = (int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5))
    linear = [v / 12.92 if v <= 0.04045 else ((v + 0.055) / 1.055) ** 2.4 for v in parts]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def contrast(one: str, other: str) -> float:
    """The contrast ratio of WCAG 2."""
    low, high = sorted((luminance(one), luminance(other)))
    return (high + 0.05) / (low + 0.05)


@pytest.mark.parametrize("theme", [0, 1], ids=["light", "dark"])
def test_what_is_read_has_contrast(theme):
    pairs = re.findall(r"--(\w+): light-dark\((#\w{6}), (#\w{6})\)", STYLE)
    colours = {name: shades[theme] for name, *shades in pairs}
    for name in ("text", "soft", "link", "good", "half", "bad"):
        assert min(contrast(colours[name], colours[ground]) for ground in ("page", "surface")) >= 4.5, name
    for name in (f"c{i}" for i in range(page.STANDING_OUT)):
        assert contrast(colours[name], colours["page"]) >= 4.5, name
    for name in ("faint", "twin", "bug"):  # curves
        assert contrast(colours[name], colours["page"]) >= 3, name
    rules = STYLE[STYLE.index("\n}\n") :]
    assert not re.search(r"#[0-9a-f]{3,6}\b(?=[^{]*\})", rules), "a colour that knows one theme only"


def test_columns_and_filters_are_those_of_the_page(tmp_path: Path):
    store(tmp_path, record(), {"right": "softmax_dim", "silent": None})
    store(tmp_path, record("reseeded", "none"), {"right": None, "silent": None})
    write_trace(tmp_path, "softmax_dim-0", "a = 1\n", [1.0, 0.5])
    text, parsed = built(tmp_path)
    board = text[text.index('id="board"') : text.index("</table>", text.index('id="board"'))]
    head, *rows = board.split("<tr")[1:]
    assert len(rows) == 2
    assert {len(re.findall(r"<t[hd][ >]", row)) for row in rows} == {len(re.findall(r"<th[ >]", head))}
    assert set(page.LESSER) <= set(SHOWN)
    assert re.findall(r'aria-sort="(\w+)">([^<]*)', board) == [("descending", "diagnosis J")]

    identities = {a["id"] for _, a in parsed.elements if "id" in a}
    shown_while = [set(a["data-while"].split()) for _, a in parsed.elements if "data-while" in a]
    assert len(shown_while) >= 6 and all(filters <= FILTERS <= identities for filters in shown_while)
    rows = {a["data-detector"] for tag, a in parsed.elements if tag == "tr" and "data-detector" in a and a["data-tier"]}
    curves = {a["data-detector"] for tag, a in parsed.elements if tag == "g"}
    assert curves == rows == {"right", "silent"}
    assert '<td class="apart names">right</td>' in text
    assert 'Said healthy: <span class="names">silent</span>.' in text
    assert not [tag for tag, a in parsed.elements if "tabindex" in a], "what takes the keyboard is a button"


def test_reasons_of_skipped_cases_stand_once(tmp_path: Path):
    store(tmp_path, record(), {"right": "softmax_dim"})
    lost = dict(oracle_bug=None, oracle_twin=None)
    for seed in range(1, 6):
        case = record(seed=seed, **lost, skipped="no disk " + "word " * 100 if seed > 1 else "no data")
        store(tmp_path, case, {"right": None}, status="skipped", reason=case.skipped)
    text, _ = built(tmp_path)
    many, one = re.findall(r"Skipped, because the harness failed, (.*)</p>", text)
    assert re.fullmatch(r"4 cases: no disk (word )*word\.\.\. \(digits/softmax_dim/seed-2, .*seed-4 and 1 more\)", many)
    assert len(many) < 450
    assert one == "1 case: no data (digits/softmax_dim/seed-1)"


def test_curves_go_before_the_page_grows_too_large(tmp_path: Path, monkeypatch, capsys):
    cases = [
        record(),
        record("lr_too_high", "lr_too_high", oracle_bug=0.9, reported_bug=0.9),
        record("reseeded", "none"),
    ]
    for case in cases:
        store(tmp_path, case, {"right": None})
        write_trace(tmp_path, case.trace_key, "a = 1\n", [1.0, 0.5, 0.25] * 30)
    write_trace(tmp_path, "twin-0", "a = 1\n", [1.0, 0.5, 0.25] * 30)

    def left(largest: int) -> tuple[str, list[bool]]:
        monkeypatch.setattr(page, "LARGEST", largest)
        text, _ = built(tmp_path)
        ends = [text.index("</details>", text.index(f'id="bug-{case.bug}"')) for case in cases]
        return text, [
            "<svg" in text[text.index(f'id="bug-{case.bug}"') : end] for case, end in zip(cases, ends, strict=True)
        ]

    text, drawn = left(0)
    assert drawn == [True, False, False], "harmful, latent, control"
    assert re.search(r"leaderboard\.html has 0\.\d MiB, more than 0\.0", capsys.readouterr().err)
    assert text.count("The curves are left out: the page would be too large.") == 2
    smallest = len(text.encode())
    assert left(smallest)[1] == [True, False, False]
    (curves,) = re.findall(r'<div class="figures">.*?</div>', text)
    text, drawn = left(smallest + len(curves) * 3 // 2)
    assert drawn == [True, False, True]
    assert "So that the page does not grow too large, evidence and the curves of latent bugs are left out." in text
    text, drawn = left(10 * smallest)
    assert drawn == [True, True, True] and "does not grow too large" not in text
    assert capsys.readouterr().err == ""
    assert len(Records(tmp_path).read().scored) == len(cases)


def test_names_of_curves_that_end_together_are_a_row_apart():
    same = kaplan_meier([2, 4], [True, False])
    svg = drawing.staircases({"a": same, "b": same, "c": same, "d": same}, 4, ["c", "a", "b"])
    heights = {name: float(y) for y, name in re.findall(r'<text x="[\d.]+" y="([\d.]+)">([abcd])</text>', svg)}
    assert heights["a"] - heights["c"] == heights["b"] - heights["a"] == drawing.LABEL_ROW
    assert heights["d"] == heights["c"], "a name that does not stand out is where its curve ends"
    assert re.findall(r'<g class="([^"]*)" data-detector="(\w)"', svg)[0] == ("stair", "d"), "below the others"
