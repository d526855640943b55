"""TorchFix: a linter for code that uses PyTorch."""

import ast
from dataclasses import dataclass

from bugbench.detector import Detector, Diagnosis, Trace
from bugbench.third_party import Message, tool, translate

FAULTS = {"TOR001": ["crash"]}  # a function that torch has removed


@dataclass
class Torchfix(Detector):
    """TorchFix 0.7.0 (PyPI, torchfix), the rules that are on by default: functions that are deprecated or removed.

    None of them is about a fault of training, but for a removed function, which raises. An empty row is its true
    result.
    """

    access = {"source"}
    origin = "tool"

    def diagnose(self, trace: Trace) -> Diagnosis:
        checker = tool("torchfix.torchfix").TorchChecker
        source = trace.source
        messages = []
        for line, _, text, _ in checker(ast.parse(source), source.splitlines(keepends=True)).run():
            rule, _, words = text.partition(" ")
            messages.append(Message(rule, words, line=line))
        return translate(messages, FAULTS)
