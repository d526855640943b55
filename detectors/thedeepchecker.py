"""TheDeepChecker's property checks before, in and after training, with their published defaults."""

from dataclasses import dataclass
from itertools import chain

from bugbench.after_training import trained_rules
from bugbench.checked_program import rerun_checked
from bugbench.cold_start import cold_start_rules
from bugbench.detector import Detector, Diagnosis, Trace
from bugbench.rule_table import answer
from bugbench.single_batch import single_batch_rules

# Check: the faults it points at, the likeliest first; families for a symptom alone. Checks further up come first.
RULES = {
    **dict.fromkeys((f"{x} not finite" for x in ("loss", "weight", "bias", "gradient", "activation")), ("numerics",)),
    **{"constant weights": ("zero_init",), "large initial weights": ("large_init",)},
    "summed loss": ("loss_reduction_sum",),
    "unbalanced labels": ("class_imbalance", "missing_class_weights"),
    "features unnormalized": ("missing_normalization", "wrong_statistics"),
    **{"targets unnormalized": ("unscaled_targets",), "targets constant": ("constant_labels",)},
    **dict.fromkeys(("outputs never negative", "outputs never large"), ("activation_on_logits",)),
    "wrong gradient": ("detached_features", "model", "loss"),
    "weights untrained": ("optimizer_partial_params", "frozen_layers", "optimizer_wrong_params"),
    "penalty outweighs the loss": ("excess_weight_decay", "regulariser_dominates"),
    **{"saturated layer": ("saturating_activation",), "dead layer": ("dead_relu",)},
    **dict.fromkeys(("updates too large", "diverging loss", "diverging weights"), ("lr_too_high",)),
    **{"updates too small": ("lr_too_low",), "corrupted labels": ("label_noise", "misaligned_labels")},
    **{"loss goes to zero": ("overfit_capacity",), "features constant": ("data",)},
    **dict.fromkeys(("poor initial loss", "loss not representative"), ("loss", "model")),
    **dict.fromkeys(("stagnating loss", "fluctuating loss"), ("optimizer", "model", "loss")),
    **dict.fromkeys(("inputs not used", "vanishing gradient", "exploding gradient"), ("model", "optimizer", "loss")),
    "batch not learnt": ("loss", "optimizer", "model"),  # Full Stack Deep Learning, "Overfit a single batch"
    **dict.fromkeys(("constant outputs", "dead weights", "negative weights"), ("model", "optimizer")),
    **{"unstable activation": ("model", "preprocessing"), "no bias": ("model",), "small initial weights": ("model",)},
    **dict.fromkeys(("activations differ between modes", "loss differs between modes"), ("model",)),
}


@dataclass
class Thedeepchecker(Detector):
    """Checks the properties of TheDeepChecker in its three phases; ``RULES`` says which faults a failed check means.

    Source: Ben Braiek and Khomh, "Testing Feedforward Neural Networks Training Programs", TOSEM 2022; deep_checker/
    config/settings.yaml (limits) and code of github.com/thedeepchecker/thedeepchecker at d0a2b3a. Changed for PyTorch:

    * *Before*, on the first epoch's data: labels are weighed where a sample has one; the initial loss is the first
      batch's (of 128 balanced samples there). PyTorch draws smaller weights than any known initialization, which is
      accepted too (``torch_initialization``), and random biases: they need not be zero, nor the last one fit unbalanced
      labels or targets that hardly vary. The gradient check, off as there, is in double precision.
    * *In training*, on a copy of model and optimizer with ``loss_function``: the 16 samples to be learnt are also the
      monitored batch (50 there); ``work`` bounds the steps of large models. Kernels of recurrent and transposed
      layers are not watched. A regression's error is in ranges of the batch's targets (there the user's metric); the
      penalty is weight decay, unless decoupled; outputs are raw and need not be probabilities. Whether the inputs are
      used is asked of a batch that is not learnt, as in the paper; the code asks only where a loss is not finite.
    * *After* ``mode_batches`` and an evaluation: the modes of a copy of the model, if it has two (there the user says);
      corrupted labels from the trace, if it has ``label_epochs``, of the program's own batches (32 there). Left out:
      trainings with and without augmentation (two whole ones), operations that a user names, what a model refuses.
    """

    access = {"rerun"}
    origin = "published"
    labels_perplexity: float = 0.5
    f_test_alpha: float = 0.1
    torch_initialization: bool = True
    initial_loss: float = 1.0  # of the expected loss
    gradient_check: bool = False
    gradient_warmup: int = 10  # steps
    gradient_batch: int = 32  # of each
    gradient_samples: int = 3
    gradient_share: float = 0.1
    gradient_dimensions: int = 20  # at most, of each weight
    gradient_delta: float = 1e-4
    gradient_error: float = 0.01
    batch: int = 16
    iterations: int = 1000
    work: float = 3e8  # elements of activations in a fit: some seconds
    batch_errors: float = 0.05
    batch_mean_error: float = 0.001
    zero_loss: float = 1e-8
    small_loss: float = 1e-5
    smooth: float = 0.95
    compared_losses: int = 100
    start: int = 10
    period: int = 10
    fit_patience: int = 5
    watched_iterations: int = 200
    window: int = 5
    growth: float = 2.0
    patience: int = 5
    dead_activation: float = 1e-5
    percentile: float = 95.0
    dead_neurons: float = 0.5  # or saturated ones
    saturation: float = 0.85
    activation_low: float = 0.5
    activation_high: float = 2.0
    dead_weight: float = 1e-5
    dead_weights: float = 0.95
    negative_weights: float = 0.95
    diverging: float = 1e8
    vanishing: float = 1e-6
    vanishing_rate: float = 0.5
    exploding: float = 1e6
    update_low: float = -4.0
    update_high: float = -1.0
    loss_fall: float = 0.05
    smoothness: float = 0.5
    correlation: float = 0.5
    label_epochs: int = 50  # a shorter run is not asked
    label_warmup: int = 5
    label_patience: int = 5
    label_gain: float = 0.1
    mode_batches: int = 250
    mode_samples: int = 1024
    mode_similarity: float = 0.75
    mode_loss: float = 0.5

    def diagnose(self, trace: Trace) -> Diagnosis:
        program = rerun_checked(trace, self.mode_batches, 38400, self.mode_samples)  # 300 times 128, as in metadata.py
        before = cold_start_rules(program, trace.meta.get("task") or "", trace.meta.get("classes") or 0, self)
        return answer(RULES, chain(before, single_batch_rules(program, self), trained_rules(program, trace, self)))
