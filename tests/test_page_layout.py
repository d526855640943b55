"""The page's parts fit each other: columns, filters, colours and size."""

import re
from pathlib import Path

from bugbench.records import Records
from bugbench.report import page
from stored_cases import built, record, store, write_trace


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
