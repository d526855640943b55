"""Who named a bug, with several seeds: what the page says, and what its filters leave of it."""

import json
import re
import shutil
import subprocess
from importlib.resources import files
from pathlib import Path

import pytest
from bugbench.scoring import UNJUDGED
from stored_cases import built, record, store

SCRIPT = (files("bugbench.report") / "templates" / "filters.js").read_text(encoding="utf-8")
NODE = shutil.which("node")
# the page's own function on a page of these places alone; says what they show under each pair of filters in turn
HARNESS = """
const [places, tiers, turns] = JSON.parse(require("fs").readFileSync(0, "utf8"));
const value = { tier: "", origin: "" };
const byId = (id) => ({ value: value[id] });
const about = new Map(Object.entries(tiers).map(([name, tier]) => [name, { tier, origin: "" }]));
const fits = ({ tier, origin }) => (!value.tier || tier === value.tier) && (!value.origin || origin === value.origin);
const elements = places.map(([textContent, names]) => (
  { textContent, dataset: names === null ? {} : { names }, parentNode: { tagName: "TR" } }));
const document = { querySelectorAll: () => elements };
%s
console.log(JSON.stringify(turns.map((tier) => {
  value.tier = tier;
  showNames();
  return elements.map((place) => place.textContent);
})));
"""
PLACE = re.compile(r'<td class="apart names"(?: data-names="([^"]*)")?>([^<]*)</td>')


def places(text: str) -> list[tuple[str, str | None]]:
    """Return what each of the page's places for names shows, and its attribute."""
    return [(shown, names or None) for names, shown in PLACE.findall(text)]


def filtered(found: list[tuple[str, str | None]], tiers: dict[str, str], turns: list[str]) -> list[list[str]]:
    """Return what the places show when the filter by access has each of these values in turn."""
    own = SCRIPT[SCRIPT.index("const lists = ") : SCRIPT.index("function show() {")]
    asked = json.dumps([found, tiers, turns])
    done = subprocess.run([str(NODE), "-e", HARNESS % own], input=asked, capture_output=True, text=True, check=True)
    return json.loads(done.stdout)


@pytest.fixture
def page(tmp_path: Path) -> str:
    """Three seeds, of which `once` was asked about one, and `absent` about none."""
    for seed in range(3):
        alpha = {"alpha": "softmax_dim", "beta": "softmax_dim" if seed == 1 else None}
        store(tmp_path, record(seed=seed), alpha | ({"once": "softmax_dim"} if seed == 0 else {}))
        store(tmp_path, record("reseeded", "none", seed=seed), {"alpha": None, "beta": "softmax_dim"})
    return built(tmp_path)[0]


def test_names_are_counted_over_the_seeds_that_each_was_judged_on(page):
    assert places(page) == [
        ("alpha 3/3, once 1/1, beta 1/3", "alpha, once, beta"),  # of equals who comes up first
        ("beta 3/3", "beta"),
    ]


@pytest.mark.parametrize("status", UNJUDGED)
def test_seeds_on_which_nobody_was_judged_do_not_count(tmp_path, status):
    store(tmp_path, record(seed=0), {"x": "softmax_dim"})
    store(tmp_path, record(seed=1), {"x": None}, status=status, reason="no")
    store(tmp_path, record(seed=2), {"x": None}, status="crashed", reason="no")  # which counts as silence
    assert places(built(tmp_path)[0]) == [("x 1/2", "x")]


def test_a_single_seed_is_not_counted(tmp_path):
    store(tmp_path, record(), {"x": "softmax_dim", "y": None})
    store(tmp_path, record("reseeded", "none"), {"x": None})
    assert places(built(tmp_path)[0]) == [("x", None), ("nobody", None)]


@pytest.mark.skipif(NODE is None, reason="the page's script is run by node, which is not installed")
def test_filters_leave_the_names_that_fit_with_their_counts(page):
    tiers = {"alpha": "data", "beta": "curves", "once": "data"}
    shown = filtered([*places(page), ("alpha, beta", None)], tiers, ["", "data", "curves", "rerun", ""])
    everything = ["alpha 3/3, once 1/1, beta 1/3", "beta 3/3", "alpha, beta"]
    assert shown == [
        everything,
        ["alpha 3/3, once 1/1", "nobody", "alpha"],
        ["beta 1/3", "beta 3/3", "beta"],
        ["nobody"] * 3,
        everything,
    ]
