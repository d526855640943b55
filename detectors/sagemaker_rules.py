"""The built-in rules of Amazon SageMaker Debugger, with their published defaults."""

from dataclasses import dataclass

from bugbench.debugger_rules import activation_rules, curve_rules, data_rules, tensor_rules
from bugbench.detector import Detector, Diagnosis, Trace
from bugbench.rule_table import answer

# Rule: the faults it points at, the likeliest first. A family stands where the rule sees a symptom and no cause.
# Of several rules that fire, those further up are named first: values that cannot be right, then data and layers,
# then weights, then predictions and curves, which many things bend.
RULES = {
    "ExplodingTensor": ("numerics",),
    "ClassImbalance": ("class_imbalance", "missing_class_weights"),
    "CheckInputImages": ("missing_normalization",),
    "DeadRelu": ("dead_relu",),
    "SaturatedActivation": ("saturating_activation",),
    "WeightUpdateRatio.large": ("lr_too_high",),
    "UnchangedTensor": ("optimizer_partial_params", "frozen_layers", "missing_step"),
    "WeightUpdateRatio.small": ("lr_too_low", "optimizer_partial_params", "frozen_layers"),
    "AllZero": ("model",),
    "TensorVariance": ("model",),
    "ClassImbalance.misprediction": ("missing_class_weights", "class_imbalance"),
    "Overfit": ("overfit_capacity",),
    "Overtraining": ("overfit_capacity",),
    "PoorWeightInitialization": ("model",),
    "VanishingGradient": ("model",),
    "LossNotDecreasing": ("optimizer",),
    "NLPSequenceRatio": ("sequence",),
}


@dataclass
class SagemakerRules(Detector):
    """The built-in rules of SageMaker Debugger see symptoms; ``RULES`` says which faults these point at.

    Sources: "List of Debugger built-in rules" in the developer guide (awsdocs/amazon-sagemaker-developer-guide,
    doc_source/debugger-built-in-rules.md) for rules and defaults; smdebug_rulesconfig, rule_config_jsons/
    ruleConfigs.json, and smdebug/pytorch/collection.py for the tensors. The rules' own code is not published.

    All recorded steps are looked at, and layers are found by their kind. SageMaker saves each 500th step by default,
    and looks for activations, inputs and labels by names as in MXNet (``.*relu_output``, ``.*embedding0_input_0``),
    which a PyTorch model has only if its attributes are called so: on most those rules would be silent. The false
    alarms are thus the rules', not those of the service as it comes. Where a trace holds statistics and no elements:

    * *VanishingGradient*: the mean absolute gradient by its upper bound, the root mean square.
    * *DeadRelu*: units count as one; a share of zeros in the layer that proves that many units dead.
    * *SaturatedActivation*: the share beyond the limits is that of a normal distribution; *nodes* are elements.
    * *PoorWeightInitialization*: variance of the inputs of ReLU layers; or 5th to 95th percentile of a gradient, 3.29
      deviations, and the loss no longer falls (how the three are joined is not published).
    * *WeightUpdateRatio*: root mean squares; the weight after the update, so weights that start at 0 are no alarm.
    * *UnchangedTensor*, *AllZero*, *TensorVariance* ask for a choice of tensors: weights; the second gradients too.
      The first compares four statistics. The third has no default limits, and is off until it gets some.
    * *LossNotDecreasing*, *Overfit*, *Overtraining* step from evaluation to evaluation, with mean losses; without one,
      the first goes from epoch to epoch with those of training (the guide's order of modes: EVAL, TRAIN, GLOBAL).
    * *LossNotDecreasing*: ``increase_threshold_percent`` (5) is left out. A loss that rises has not fallen by
      ``diff_percent`` either, so it could only excuse alarms: a rise of 4 %, but not a fall of 0.05 %. If that is the
      least fall, as the guide has it, the deleted official test (awslabs/sagemaker-debugger at bb14a442^,
      tests/analysis/rules/test_loss_not_decreasing.py) contradicts itself: a loss that is the same at steps 0 and 12
      is an alarm where 0 % is asked for and none where 20 % is. Here it is one in both.
    * *Overfit* fires at the first excess: the guide says that ``patience`` of them make a model overfit, and also that
      so many are allowed. *Overtraining* fires on either loss; how the two are joined is not published.
    * *ClassImbalance*, *CheckInputImages*, *NLPSequenceRatio*: the latest samples recorded; colours are not told apart.

    Left out: Confusion (as documented, each class must have 0.9 of all right answers), SimilarAcrossRuns (needs a
    second run), StalledTrainingRule (traces have no clock), and the rules for XGBoost.
    """

    access = {"tensors", "data"}
    origin = "published"
    vanishing: float = 1e-7
    relu_inactivity: float = 1.0  # per cent of the time, below which a ReLU is dead
    relu_layer: float = 50.0  # per cent of a layer's ReLUs
    tanh_low: float = -9.4999
    tanh_high: float = 9.4999
    sigmoid_low: float = -23.0
    sigmoid_high: float = 16.99999
    saturated_layer: float = 50.0  # per cent
    variance_ratio: float = 10.0
    distribution_range: float = 0.001
    initialization_patience: int = 5
    initialization_steps: int = 10
    update_large: float = 10.0
    update_small: float = 1e-8
    imbalance: float = 10.0
    misprediction: float = 0.7
    samples: int = 500  # of labels, and of images, before they are judged
    loss_steps: int = 10
    loss_percent: float = 0.1  # diff_percent of later editions of the guide; the first asked for any decrease
    overfit_ratio: float = 0.1
    overfit_patience: int = 1
    overtraining_train: int = 5
    overtraining_validation: int = 10
    overtraining_delta: float = 0.01  # likewise; the first edition had 0.1
    variance_min: float = 0.0  # no limit, and none above: without limits the rule is silent
    variance_max: float = 1e308
    unchanged_steps: int = 3
    unchanged_rtol: float = 1e-5
    unchanged_atol: float = 1e-8
    image_mean: float = 0.2
    token: int = 0
    token_percent: float = 50.0

    def diagnose(self, trace: Trace) -> Diagnosis:
        rules = (tensor_rules, activation_rules, curve_rules, data_rules)
        return answer(RULES, (finding for rule in rules for finding in rule(trace, self)))
