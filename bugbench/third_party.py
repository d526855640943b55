"""What the adapters of third-party tools share: import one, follow a run, translate what it says.

The samples of a run come as tables from :mod:`bugbench.sample_tables`.

An adapter says nothing of its own. The tool judges with its published defaults; a table in the adapter's file maps the
tool's rules to faults, and the evidence is the tool's message. Where a message names causes, they are the suspects in
the order in which it names them; where it names a symptom only, the suspect is a family; what is no fault stands in the
table with none, and what does not stand there is an error.
"""

import importlib.metadata
import math
import os
import re
import sys
import traceback
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import torch
from bugbench.detector import Diagnosis, NotApplicable, NotInstalled, Suspect, Trace
from bugbench.rerun import Probe, StopRun, load_program
from bugbench.vision_operators import declare_vision_operators
from torch.utils._pytree import tree_map

INSTALL = "pip install -c constraints.txt -e '.[tools]'"
PINS = {  # module: the distribution it is of, as in the extra "tools"; another version has other rules
    **{"cleanlab": "cleanlab==2.9.0", "leakcheck": "leakcheck-ml==0.3.0", "leaklens": "leaklens==1.3.0"},
    **{"lightning": "lightning==2.6.6", "mldoctor": "mldoct==1.0.0", "ruff": "ruff==0.17.5"},
    **{"torch_audit": "torch-audit==0.3.0", "torchdiag": "torchdiag==0.1.0", "torchfix": "torchfix==0.7.0"},
    **{"torchmortem": "torchmortem==0.1.1", "torchtest2": "torchtest2==0.1.0", "trainproof": "trainproof==0.22.0"},
    "weightwatcher": "weightwatcher==0.7.7",
}
UNWATCHED = "the program watches no model"
OFFLINE = {  # some tools call home when they are imported; a judging process has no network
    **{"HF_HUB_OFFLINE": "1", "HF_DATASETS_OFFLINE": "1", "HF_HUB_DISABLE_TELEMETRY": "1", "DO_NOT_TRACK": "1"},
    "DISABLE_DEEPCHECKS_ANONYMOUS_TELEMETRY": "1",
    **{"TQDM_DISABLE": "1", "NO_COLOR": "1"},
}


def tool(module: str) -> ModuleType:
    """Import a module of a third-party tool.

    Raises:
        NotInstalled: it, or something that it needs, is missing, or it is there in another version than is pinned.
    """
    os.environ |= OFFLINE
    try:
        declare_vision_operators()  # several tools import torchvision
        imported = importlib.import_module(module)
    except ModuleNotFoundError as error:
        raise NotInstalled(f"{INSTALL} ({error})") from error
    name, _, pinned = PINS.get(module.partition(".")[0], "").partition("==")
    if name and (found := _version(name)) != pinned:
        raise NotInstalled(f"{INSTALL} (installed is {name} {found}; what its rules mean is known for {pinned})")
    return imported


def _version(distribution: str) -> str:
    try:
        return importlib.metadata.version(distribution)
    except importlib.metadata.PackageNotFoundError:
        return "of no known version"


def own_interpreter(name: str, python: str, packages: str) -> Path:
    """Return the Python of the environment that a tool has for itself: ``python``, or the one at its usual place.

    The usual place is ``envs/<name>`` below this Python's own prefix, which a judging process may read.

    Raises:
        NotInstalled: there is none; the text says how to make it.
    """
    folder = Path(sys.prefix) / "envs" / name
    path = Path(python) if python else folder / "bin" / "python"
    if not path.exists():
        make = f"{sys.executable} -m venv {folder} && {folder}/bin/pip install {packages}"
        raise NotInstalled(f"no interpreter at {path}: {make}")
    return path


@dataclass(frozen=True)
class Message:
    """What a tool said: the id of its rule, its words, and the layer or line it names."""

    rule: str
    text: str
    layer: str | None = None
    line: int | None = None


def translate(messages: Iterable[Message], faults: Mapping[str, Sequence[str]]) -> Diagnosis:
    """Return the suspects of messages, most important first, as ``faults`` says.

    A key of ``faults`` is a rule, or a rule and words of its message: "loss: not connected". The first key that fits
    is taken; a message that is no fault has a key without suspects. A fault is suspected once, by its first message.

    Raises:
        KeyError: no key fits a message; the text holds it.
    """
    suspects: dict[str, Suspect] = {}
    for message in messages:
        for fault in _meaning(message, faults):
            if fault not in suspects:
                confidence, evidence = 0.9 / (len(suspects) + 1), f"{message.rule}: {message.text}"
                suspects[fault] = Suspect(fault, confidence, evidence, message.line, message.layer)
    return Diagnosis(suspects.values())


def _meaning(message: Message, faults: Mapping[str, Sequence[str]]) -> Sequence[str]:
    for key, meant in faults.items():
        rule, _, words = key.partition(": ")
        if rule == message.rule and words in message.text:
            return meant
    raise KeyError(f"not in the table of what the tool may say: {message.rule}: {message.text}")


class Following(Probe):
    """A probe that ends a rerun where the trace ends, so that no alarm is dated before its evidence."""

    def __init__(self, trace: Trace) -> None:
        self.steps = len(trace.train_steps())
        self.seen = 0
        self.watched: list[tuple[Any, Any]] = []

    def watch(self, model: Any, optimizer: Any = None, name: str = "") -> None:
        self.watched.append((model, optimizer))
        self.on_watch(model, optimizer)

    def log_batch(self, split: str, **tensors: Any) -> None:
        self.on_batch(split, tensors)
        if split == "train":
            self.seen += 1
            if self.seen == self.steps:
                raise StopRun

    def on_watch(self, model: Any, optimizer: Any) -> None:
        """Receive a model with its optimizer before training."""

    def on_batch(self, split: str, tensors: Mapping[str, Any]) -> None:
        """Receive what the program logs of a batch."""


def follow(trace: Trace, probe: Any) -> None:
    """Run the program of ``trace`` again under a probe. An error other than the recorded run's is the tool's own.

    Raises:
        NotApplicable: the program watches no model, which a :class:`Following` waits for; or it raises before it has
            trained on a batch, or in a process that it started: a judging process may have no sockets for them.
    """
    try:
        trace.rerun(probe)
    except Exception as error:
        last = ": ".join([type(error).__name__, *str(error).strip().splitlines()[-1:]])
        if type(error).__name__ == "ProcessRaisedException":  # torch's, of a process that the program started
            raise NotApplicable(f"the program's own processes cannot be followed here: {last}") from error
        if not _is_recorded(error, trace.error or ""):
            raise
        if not probe.seen:
            raise NotApplicable(f"the program raises before it has trained on a batch: {last}") from error
    if not getattr(probe, "watched", True):
        raise NotApplicable(UNWATCHED)


def _is_recorded(error: Exception, recorded: str) -> bool:
    """Tell whether a recorded traceback ends in the type and the last line of ``error``, places and addresses aside."""
    said = "".join(traceback.format_exception_only(error)).strip().splitlines()
    kind, last = _placeless(said[0]).partition(":")[0], _placeless(said[-1])
    known = [_placeless(line) for line in recorded.strip().splitlines()]
    return known[-1:] == [last] and kind in {line.partition(":")[0] for line in known}


def _placeless(line: str) -> str:
    line = re.sub(r"0x[0-9a-f]+|/?(?:[^\s/'\":]+/)+", "", line)
    return re.sub(r"^(?:\w+\.)+(?=\w+(?::|$))", "", line)  # the module of an exception's type


def only_model(probe: Following) -> tuple[Any, Any]:
    """Return the watched model and its optimizer.

    Raises:
        NotApplicable: there are several, or none, or no optimizer.
    """
    watched = [(model, optimizer) for model, optimizer in probe.watched if optimizer is not None]
    if not watched or len({id(model) for model, _ in probe.watched}) != 1:
        raise NotApplicable(f"the tool checks one model with its optimizer; the program watches {len(probe.watched)}")
    return watched[-1]


def loss_of(trace: Trace, outputs: Any, targets: Any, logged: Any) -> Any:
    """Return the program's own ``loss_function(outputs, targets)``, or None if that is not what it trains on.

    They are of a batch that the program has trained on, and ``logged`` is the loss that it logged for that batch. So an
    error, no ``loss_function``, no single number, or another number than ``logged`` says that it computes its loss in
    another way, which no tool can be given: with a penalty, of altered targets, averaged by the step, divided for the
    accumulation of gradients. Equal is what differs by less than 1e-5 of the greater, about what float32 leaves of a
    mean; outputs in half precision may be taken as they are or as float32, as many programs do with those of autocast.
    A program that logs no loss (None) is known by an error alone.
    """
    own: Any = getattr(load_program(trace.folder / "program.py"), "loss_function", None)
    try:
        values = [own(tree_map(graph, outputs), detached(targets)) for graph in (_in_a_graph, _in_a_float32_graph)]
        known = logged is None or any(_equal(float(value), float(logged)) for value in detached(values))
    except Exception:  # any, for the reason above
        return None
    return own if known else None


def _equal(value: float, logged: float) -> bool:
    return math.isclose(value, logged, rel_tol=1e-5) or (math.isnan(value) and math.isnan(logged))


def _in_a_graph(value: Any) -> Any:
    differentiable = isinstance(value, torch.Tensor) and value.is_floating_point()
    return value.detach().requires_grad_().clone() if differentiable else value


def _in_a_float32_graph(value: Any) -> Any:
    half = isinstance(value, torch.Tensor) and value.dtype in (torch.float16, torch.bfloat16)
    return _in_a_graph(value.float() if half else value)


def detached(values: Any) -> Any:
    """Return what holds tensors with copies of them, out of the graph they were computed in."""
    return tree_map(lambda v: v.detach().clone() if isinstance(v, torch.Tensor) else v, values)
