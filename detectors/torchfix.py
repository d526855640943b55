"""TorchFix: a linter for code that uses PyTorch."""

import ast
from dataclasses import dataclass

from bugbench.detector import Detector, Diagnosis, Trace
from bugbench.third_party import Message, tool, translate

FAULTS = {
    "TOR001": ["crash"],  # a function that torch has removed is called
    "TOR004": ["crash"],  # … or imported
    "TOR002": ["model"],  # "likely typo": what was to be frozen is not, or what was to be unfrozen stays frozen
    # deprecated, not public, unsafe, or written in another way than is advised; none of it changes the training
    **dict.fromkeys(("TOR003", "TOR101", "TOR102", "TOR103", "TOR104", "TOR105", "TOR106", "TOR107"), ()),
    **dict.fromkeys(("TOR201", "TOR202", "TOR203"), ()),
}


@dataclass
class Torchfix(Detector):
    """TorchFix 0.7.0 (PyPI, torchfix), the rules that are on by default.

    Three of them can show a fault: a removed function is called or imported, which raises, and an attribute
    ``require_grad`` is assigned, which torch does not know. The message on it does not say to what, so it is the family
    ``model``. The others are about deprecated names, safety and style.
    """

    access = {"source"}
    origin = "tool"

    def diagnose(self, trace: Trace) -> Diagnosis:
        torchfix, source = tool("torchfix.torchfix"), trace.source
        off = tuple(torchfix.DISABLED_BY_DEFAULT)  # the checker leaves this to who calls it
        messages = []
        for line, _, text, _ in torchfix.TorchChecker(ast.parse(source), source.splitlines(keepends=True)).run():
            rule, _, words = text.partition(" ")
            if not rule.startswith(off):
                messages.append(Message(rule, words, line=line))
        return translate(messages, FAULTS)
