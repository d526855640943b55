"""What a table is about, in words."""

import pandas as pd
import pytest
from bugbench.report.extent import extent, fewer_words, judged_on, other_accesses, seeds_words


def cases(*rows):
    columns = ["detector", "access", "bug", "workload", "seed", "control", "harmful"]
    return pd.DataFrame(rows, columns=columns)


def of(detector, access="curves", bugs=("a", "b"), workloads=("digits",), seeds=(1, 1)):
    """Return the cases of a detector: bugs, and as many controls, with so many seeds each."""
    return [
        (detector, access, name, workload, seed, number == 1, number == 0)
        for number in (0, 1)
        for name in (bugs, [f"control_{b}" for b in bugs])[number]
        for workload in workloads
        for seed in range(seeds[number])
    ]


def test_extent():
    table = cases(*of("d", bugs=("a", "b"), workloads=("digits", "wine"), seeds=(5, 12)))
    text = "2 harmful bugs on 2 workloads, 5 seeds each and 2 controls on 2 workloads, 12 seeds each"
    assert extent(table) == text
    latent = table.assign(harmful=table["harmful"] & (table["bug"] != "b"))
    assert extent(latent).startswith("1 harmful bug on 2 workloads, 5 seeds each and 2 controls")


def test_extent_of_what_is_not_everywhere():
    table = cases(
        *of("d", bugs=("a",), seeds=(1, 1)), *of("d", bugs=("b",), workloads=("digits", "wine"), seeds=(2, 1))
    )
    assert extent(table).startswith(
        "2 harmful bugs on 2 workloads (3 pairs of bug and workload), 1 to 2 seeds each and 2 controls"
    )
    assert extent(table[:0]) == "nothing"


@pytest.mark.parametrize(
    ("fewer", "words"),
    [
        (
            [of("x", "curves+rerun"), of("y", "rerun")],
            ["2 detectors that run the program again were judged on fewer: "],
        ),
        ([of("x", "rerun")], ["1 detector that runs the program again was judged on fewer: "]),
        ([of("x", "rerun"), of("y", "data")], ["x, y were judged on fewer: "]),
        ([of(name) for name in "uvwx"], ["4 detectors (u, v, w …) were judged on fewer: "]),
        ([], []),
    ],
)
def test_who_was_judged_on_fewer(fewer, words):
    table = cases(*of("all", seeds=(3, 3)), *(row for rows in fewer for row in rows))
    what = "2 harmful bugs on 1 workload, 1 seed each and 2 controls on 1 workload, 1 seed each."
    assert fewer_words(table) == [word + what for word in words]
    assert fewer_words(table[:0]) == []


def test_detectors_judged_on_different_cases_are_told_apart_by_them():
    one, two = of("x", bugs=("a",)), of("y", bugs=("b",))
    what = "1 harmful bug on 1 workload, 1 seed each and 1 control on 1 workload, 1 seed each."
    both = cases(*one, *two)
    assert judged_on(both) == "2 harmful bug cases, 2 control cases"
    assert fewer_words(both) == [f"x was judged on a part: {what}", f"y was judged on others: {what}"]
    twice = cases(*one, *two, *of("z"))
    assert fewer_words(twice) == [f"x was judged on fewer: {what}", f"y was judged on fewer: {what}"]
    wider = cases(*of("w"), *of("y", bugs=("c",)))
    most = "2 harmful bugs on 1 workload, 1 seed each and 2 controls on 1 workload, 1 seed each."
    assert fewer_words(wider) == [f"w was judged on a part: {most}", f"y was judged on fewer, and on others: {what}"]


def test_as_many_cases_need_not_be_the_same():
    table = cases(
        ("x", "data", "a", "digits", 0, False, True),
        ("x", "data", "a", "wine", 0, False, True),
        ("y", "data", "b", "digits", 0, False, True),
        ("y", "data", "c", "digits", 0, False, True),
        *((name, "data", "fine", "digits", 0, True, False) for name in "xy"),
    )
    control = "1 control on 1 workload, 1 seed each."
    assert fewer_words(table) == [
        f"x was judged on a part: 1 harmful bug on 2 workloads, 1 seed each and {control}",
        f"y was judged on others: 2 harmful bugs on 1 workload, 1 seed each and {control}",
    ]


def test_latent_cases_make_no_difference():
    table = cases(*of("x"), *of("y"), ("x", "curves", "mild", "digits", 0, False, False))
    assert fewer_words(table) == []
    assert judged_on(table.drop_duplicates(["bug", "workload", "seed"])) == "2 harmful bug cases, 2 control cases"


def test_detectors_with_more_than_one_access_are_named():
    table = cases(*of("same"), *of("wider", "data"), *of("wider", "data+source", bugs=("c",)))
    assert other_accesses(table) == " **Verdicts with more than one access, of which the widest is shown, of wider.**"
    assert other_accesses(table[table["detector"] == "same"]) == other_accesses(table[:0]) == ""


def marked(*rows):
    columns = ["detector", "bug", "workload", "seed", "control", "harmful", "exact", "alarm"]
    return pd.DataFrame(rows, columns=columns)


def test_what_seeds_add():
    table = marked(
        *[("d", "a", "digits", seed, False, True, 1.0, 1.0) for seed in range(2)],
        *[("d", "b", "digits", seed, False, True, float(seed), 1.0) for seed in range(2)],
        *[
            ("d", "c", "digits", seed, False, True, 0.0, 1.0) for seed in range(2)
        ],  # the wrong fault, an alarm each time
        *[("d", "fine", "digits", seed, True, False, 0.0, 0.0) for seed in range(2)],
        *[("d", "calm", "digits", seed, True, False, 0.0, 1.0) for seed in range(2)],
        ("d", "once", "digits", 0, False, True, 1.0, 1.0),
        *[("d", "latent", "digits", seed, False, False, float(seed), 0.0) for seed in range(2)],
    )
    # bugs 1 1, 0 1, 0 0 about 1/2: between 1, within 1/2; controls 0 0, 1 1: between 1, within 0. Mean squares 2 / 3
    # and 1 / 10, so (20 - 3) / (20 + 3) = 0.74, of which the square root is 0.86
    assert seeds_words(table) == (
        " Where a bug or control ran on a workload with several seeds, a detector got the same mark with each in 80% "
        "of 5 times (intraclass correlation 0.74): further seeds, however many, would narrow an interval from one "
        "seed by an estimated 14% at most."
    )
    # controls alone say nothing of the other half of J
    assert seeds_words(table[table["control"]]) == (
        " Where a control ran on a workload with several seeds, a detector got the same mark with each in 100% of 2 "
        "times (intraclass correlation 1.00)."
    )
    assert seeds_words(table[table["seed"] == 0]) == ""
    assert seeds_words(table[table["bug"] == "a"]) == ""
