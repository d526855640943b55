"""torch-audit: a linter that audits a model while it trains."""

from dataclasses import dataclass
from typing import Any

from bugbench.detector import Detector, Diagnosis, Trace
from bugbench.third_party import Following, Message, follow, tool, translate

FAULTS = {  # the causes in the rule's title and remediation, in their order
    "TA100": ["lr_too_high", "fp16_overflow", "large_init"],
    "TA102": ["lr_too_high"],
    "TA104": ["step_before_backward", "frozen_layers"],
    "TA105": ["dead_relu", "large_init", "lr_too_high"],
    **{"TA202: split across": ["device_mismatch"], "TA202: entirely on CPU": []},  # the latter is slow, no mistake
    "TA300": ["device_mismatch"],
    "TA301": ["missing_normalization"],
    "TA302": ["zero_inputs"],
    "TA303": ["swapped_axes"],
    "TA304": ["batch_size_one"],
    "TA305": ["token_out_of_range"],
    "TA405": ["zero_init"],
    "TA500": ["model"],
    "TA501": ["shared_module"],
    **{"TA400": [], "TA401": [], "TA402": [], "TA403": []},  # advice on style
}
PERFORMANCE = {"TA200", "TA201", "TA203"}


@dataclass
class TorchAudit(Detector):
    """torch-audit 0.3.0 (PyPI, torch-audit): ``autopatch`` of each watched model, audited every ``every`` steps.

    The tool's default is every thousandth step, which is the first alone in most of these runs; a few have a thousand
    and more. Its hints on performance (TA200, tensor cores; TA201, memory layout; TA203, precision) are switched off by
    the tool's own ``ignore_rules``; without that every program has some. Advice on style (AdamW, weight decay on
    biases, biases before a norm) is no fault, nor is a model on the CPU where there is a GPU (TA202, which is an error
    where a model is split across devices). What it calls information (TA103, a gradient that is zero in one batch;
    TA404, an even kernel) is no alarm. Warnings are, below errors, although a run with warnings alone passes by the
    tool's own exit status. A rule is told once for all models, by its first finding. ``autopatch`` audits every forward
    pass while a step is due, those of an evaluation with them.

    Raises:
        RuntimeError: the tool's own error, TA000.
    """

    access = {"rerun"}
    origin = "tool"
    every: int = 10

    def diagnose(self, trace: Trace) -> Diagnosis:
        run = _Audited(trace, tool("torch_audit").autopatch, self.every)
        follow(trace, run)
        found: dict[str, Any] = {}
        for auditor in run.auditors:
            for finding in auditor.finish(report=False).findings:
                if finding.rule_id == "TA000":
                    raise RuntimeError(f"{finding.rule_id}: {finding.message}")
                if finding.severity.value != "INFO":
                    found.setdefault(finding.rule_id, finding)
            auditor.unpatch()
        ranked = sorted(found.values(), key=lambda f: f.severity, reverse=True)  # stable
        return translate(
            [Message(f.rule_id, f"{f.severity.value} {f.message} (step {f.step})", f.module_path) for f in ranked],
            FAULTS,
        )


class _Audited(Following):
    def __init__(self, trace: Trace, autopatch: Any, every: int) -> None:
        super().__init__(trace)
        self.autopatch, self.every = autopatch, every
        self.auditors: list[Any] = []

    def on_watch(self, model: Any, optimizer: Any) -> None:
        settings = {"every_n_steps": self.every, "reporters": [], "ignore_rules": PERFORMANCE}
        self.auditors.append(self.autopatch(model, optimizer=optimizer, **settings))
