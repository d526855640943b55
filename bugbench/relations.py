"""Relations within a run that may or may not hold: candidates for invariants.

Kinds of relations as TrainCheck infers them (Jiang et al., OSDI 2025; ``traincheck/invariant/``): which call leads to
which (``lead_relation.py``), which covers which (``cover_relation.py``), what a call contains, such as the change of a
parameter (``contain_relation.py``), and which quantities stay consistent or within bounds (``consistency_relation.py``,
``consistency_transient_vars.py``); here of calls and quantities that a trace holds. Relations of three calls, of calls
in evaluation, of inputs, of the schedule, of epochs, samples and reports are this project's own. None is stated to be
right: which of them hold wherever a program is healthy is for a detector to learn.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from itertools import permutations

import numpy as np
import pandas as pd
from bugbench.trace import Trace

CALLS = ("zero_grad", "forward", "backward", "step")
CLOSE = 1e-3  # relative: a program may sum float32 losses in any order, which is good to 1e-5, or round what it reports


@dataclass(frozen=True)
class Relation:
    """What was found of a relation in a run.

    Attributes:
        name: the relation, in words; the same in all runs.
        holds: whether it holds throughout.
        seen: where it does not, or what was looked at.
    """

    name: str
    holds: bool
    seen: str


Relations = Iterator[Relation]


def relations(trace: Trace, own: bool = True) -> dict[str, Relation]:
    """Return all relations that say something about ``trace``, by name; needs the accesses "tensors" and "data".

    ``own``: also of the kinds that TrainCheck does not have.
    """
    steps = trace.steps
    if "order" not in steps.columns or steps.empty:
        return {}
    parts: list[Callable[[Trace], Relations]] = [_calls, _modes, _finite, _weights]
    parts += [_between, _inputs, _schedule, _epochs, _samples, _reports] if own else []
    return {relation.name: relation for part in parts for relation in part(trace)}


def traits(trace: Trace) -> list[str]:
    """Return what may be the condition under which a relation holds: the task, kinds of layers, several models."""
    kinds = {kind.rstrip("123d") for kind in trace.meta.get("layers", {}).values()}
    models = "one model" if len(trace.meta.get("sizes", {})) < 2 else "several models"
    return sorted([f"task {trace.meta.get('task')}", models, *(f"layers {kind}" for kind in kinds)])


def _always(name: str, steps: pd.DataFrame, holds: np.ndarray | pd.Series, what: str) -> Relations:
    """Yield a relation over rows of ``steps``, if there are any; ``what`` says what is not so where it is violated."""
    holds = np.asarray(holds, dtype=bool)
    if len(holds):
        wrong = np.flatnonzero(~holds)
        where = f"{len(wrong)} of {len(holds)}, first at step {steps['step'].iloc[wrong[0]]}" if len(wrong) else "none"
        yield Relation(name, not len(wrong), f"{what}: {where}")


def _check(trace: Trace, name: str, of: set[str], holds: Callable[[list[str]], bool], what: str) -> Relations:
    """Yield a relation over the calls of a training step that has all ``of`` them, of each model by itself."""
    train = trace.train_steps()
    orders = train["order"].fillna("")
    about = {order: [calls for calls in _by_model(order) if of <= set(calls)] for order in orders.unique()}
    rows = train[orders.map(lambda order: bool(about[order]))]
    yield from _always(name, rows, rows["order"].fillna("").map(lambda order: all(map(holds, about[order]))), what)


def _by_model(order: str) -> list[list[str]]:
    models: dict[str, list[str]] = {}
    for call in order.split():
        prefix, _, name = call.rpartition(".")
        models.setdefault(prefix, []).append(name)
    return list(models.values())


def _calls(trace: Trace) -> Relations:
    """Yield which calls come with and before which in a training step."""
    for a, b in permutations(CALLS, 2):
        name = f"a batch with {a} has {b}"
        yield from _check(trace, name, {a}, partial(_has, b), f"batches with {a} and without {b}")
        name = f"{a} comes before {b}"
        what = f"batches in which the first {b} comes before the first {a}"
        yield from _check(trace, name, {a, b}, partial(_before, a, b), what)


def _between(trace: Trace) -> Relations:
    """Yield what comes between two calls, and which calls there are in evaluation."""
    name = "no zero_grad between backward and step"
    yield from _check(trace, name, {"backward", "step"}, _undisturbed, "batches with a zero_grad there")
    evaluation = trace.steps[trace.steps["split"] != "train"]
    for call in ("zero_grad", "backward", "step"):
        lacks = ~evaluation["order"].fillna("").str.contains(rf"\b{call}\b")
        yield from _always(f"no {call} in evaluation", evaluation, lacks, f"evaluation batches with {call}")


def _has(call: str, calls: list[str]) -> bool:
    return call in calls


def _before(a: str, b: str, calls: list[str]) -> bool:
    return calls.index(a) < calls.index(b)


def _undisturbed(calls: list[str]) -> bool:
    """Tell whether gradients are left alone from the first backward to the last step."""
    last_step = len(calls) - calls[::-1].index("step")
    return "zero_grad" not in calls[calls.index("backward") : last_step]


def _modes(trace: Trace) -> Relations:
    steps = trace.steps[trace.steps["mode"] != "unknown"]
    train, rest = steps[steps["split"] == "train"], steps[steps["split"] != "train"]
    yield from _always("training is in mode train", train, train["mode"] == "train", "training batches not in it")
    yield from _always("evaluation is in mode eval", rest, rest["mode"] == "eval", "evaluation batches not in it")


def _finite(trace: Trace) -> Relations:
    """Yield which numbers are finite."""
    train, layers = trace.train_steps(), trace.layers
    finite = np.isfinite(train["loss"])
    yield from _always("losses are finite", train, finite, "batches whose loss is not")
    for kind, rows in layers.groupby("kind") if len(layers) else ():
        yield from _always(f"each {kind} is finite", rows, rows["nonfinite"] == 0, f"{kind} tensors that are not")


def _inputs(trace: Trace) -> Relations:
    train = trace.train_steps()
    if "input_nonfinite" in train.columns:
        looked = train[train["input_nonfinite"].notna()]
        yield from _always("inputs are finite", looked, looked["input_nonfinite"] == 0, "batches with others")


def _schedule(trace: Trace) -> Relations:
    """Yield how the learning rate and the batches' sizes go on."""
    train = trace.train_steps()
    later = train.iloc[1:]
    rate = train["lr"].to_numpy()
    changed, new = np.diff(rate) != 0, np.diff(train["epoch"]) != 0
    known = np.isfinite(rate[1:]) & np.isfinite(rate[:-1])
    yield from _always("the learning rate stays within an epoch", later[known], (~changed | new)[known], "changes")
    yield from _always("the learning rate never rises", later[known], (np.diff(rate) <= 0)[known], "rises")
    yield from _always("the learning rate is above 0", train[np.isfinite(rate)], rate[np.isfinite(rate)] > 0, "not so")
    last = train.groupby("epoch")["step"].transform("max") == train["step"]
    inner = train[~last]
    same = inner["batch_size"] == (inner["batch_size"].iloc[0] if len(inner) else 0)
    yield from _always("batches within an epoch are of one size", inner, same, "batches of another size")


def _weights(trace: Trace) -> Relations:
    """Yield whether parameters get gradients, and change."""
    layers = trace.layers
    if layers.empty:
        return
    moves = {
        kind: layers[layers["kind"] == kind].assign(moves=lambda rows: (rows["mean"] != 0) | (rows["std"] != 0))
        for kind in ("weight", "gradient", "update")
    }
    names = sorted(set(moves["weight"]["layer"]))
    for kind, name in (("gradient", "every parameter gets a gradient"), ("update", "every parameter changes")):
        ever = moves[kind].groupby("layer")["moves"].any()
        still = [n for n in names if not ever.get(n, False)]
        if names:
            yield Relation(name, not still, f"{len(still)} of {len(names)} never do: {', '.join(still[:3])}")
    by_step = moves["update"].groupby("step")["moves"].any().reset_index()
    yield from _always("weights change in every step", by_step, by_step["moves"], "steps that leave all as they were")


def _complete(trace: Trace) -> list[int]:
    """Return the epochs that have ended: those of which the program has reported an evaluation."""
    return sorted(trace.metrics.loc[trace.metrics["split"] != "train", "epoch"].unique())


def _equal(name: str, values: pd.Series, what: str) -> Relations:
    if len(values) > 1:
        first, other = values.iloc[0], values[values != values.iloc[0]]
        seen = f"{what}: {first} in epoch {values.index[0]}"
        if len(other):
            seen += f", {other.iloc[0]} in epoch {other.index[0]}"
        yield Relation(name, other.empty, seen)


def _epochs(trace: Trace) -> Relations:
    steps = trace.steps[trace.steps["epoch"].isin(_complete(trace))]
    train, rest = steps[steps["split"] == "train"], steps[steps["split"] != "train"]
    counts = train.groupby("epoch").size()
    yield from _equal("epochs have equally many batches", counts, "training batches")
    evaluated = rest.groupby(["split", "epoch"])["batch_size"].sum()
    for split, sizes in evaluated.groupby("split"):
        yield from _equal(f"evaluations on {split} have equally many samples", sizes.droplevel("split"), "samples")
    means = train.groupby("epoch")["loss"].mean()
    if len(means) > 1:
        fallen = bool(means.iloc[-1] < means.iloc[0])
        yield Relation("the loss falls", fallen, f"epoch means from {means.iloc[0]:.3g} to {means.iloc[-1]:.3g}")


def _samples(trace: Trace) -> Relations:
    """Yield how samples come back: within an epoch, from epoch to epoch, and in other splits."""
    samples = trace.samples[trace.samples["epoch"].isin(_complete(trace))]
    train, rest = samples[samples["split"] == "train"], samples[samples["split"] != "train"]
    orders = {int(str(epoch)): rows["fingerprint"].to_numpy() for epoch, rows in train.groupby("epoch")}
    if not orders:
        return
    repeated = {epoch: len(order) - len(np.unique(order)) for epoch, order in orders.items()}
    worst = max(repeated, key=lambda epoch: repeated[epoch])
    seen = f"{repeated[worst]} of {len(orders[worst])} samples of epoch {worst} came before in it"
    yield Relation("no sample comes twice in an epoch", not repeated[worst], seen)
    sets = pd.Series({epoch: hash(np.unique(order).tobytes()) for epoch, order in orders.items()})
    if len(sets) > 1:
        whole = {epoch: hash(order.tobytes()) for epoch, order in orders.items()}
        other = [epoch for epoch, value in sets.items() if value != sets.iloc[0]]
        yield Relation("epochs have the same samples", not other, f"epochs with others than the first: {other[:5]}")
        again = len(whole) - len(set(whole.values()))
        yield Relation("no epoch repeats another's order", not again, f"{again} of {len(whole)} epochs do")
    if len(rest):
        both = np.isin(rest["fingerprint"].unique(), train["fingerprint"].unique()).mean()
        yield Relation("no sample is both trained and evaluated on", not both, f"{both:.1%} of those evaluated on are")
    labelled = samples[samples["label"].notna()]
    if len(labelled):
        labels = labelled.groupby("fingerprint")["label"].nunique()
        several = int((labels > 1).sum())
        yield Relation("a sample keeps its label", not several, f"{several} of {len(labels)} have several")
    if len(labelled) and labelled["split"].nunique() > 1 and trace.meta.get("classes"):
        classes = {split: set(rows["label"]) for split, rows in labelled.groupby("split")}
        missing = set().union(*classes.values()) - set.intersection(*classes.values())
        yield Relation("all splits have the same classes", not missing, f"not in all: {sorted(missing)[:5]}")


def _reports(trace: Trace) -> Relations:
    """Yield whether a reported loss is the mean of the batches' losses."""
    steps = trace.steps[trace.steps["epoch"].isin(_complete(trace))]
    for split, rows in steps.groupby("split"):
        total = (rows["loss"] * rows["batch_size"]).groupby(rows["epoch"]).sum()
        means = total / rows.groupby("epoch")["batch_size"].sum()
        both = pd.concat({"mean": means, "said": trace.metric(str(split), "loss").groupby(level=0).last()}, axis=1)
        both = both.dropna()
        if len(both):
            off = both[~np.isclose(both["said"], both["mean"], rtol=CLOSE, atol=CLOSE * 1e-3)]
            seen = f"{len(off)} of {len(both)} are not"
            if len(off):
                seen += f", as {off['said'].iloc[0]:.4g} for {off['mean'].iloc[0]:.4g} in epoch {off.index[0]}"
            yield Relation(f"the reported {split} loss is the mean of the batches", off.empty, seen)
