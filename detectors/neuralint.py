"""NeuraLint's rules on the architecture and the training loop, re-stated for PyTorch source."""

from dataclasses import dataclass

from bugbench.detector import Detector, Diagnosis, NotApplicable, Trace
from bugbench.layer_graph import Source
from bugbench.layer_rules import loss_rules, network_rules, program_rules
from bugbench.rule_table import answer

# Rule: the faults it points at, the likeliest first. A family stands where a rule is advice on design and has no fault
# of its own. Of several rules that fire, those further up are named first.
RULES = {
    "f011 missing flatten": ("shape_mismatch",),
    "f022 no main loop": ("missing_step", "training_loop"),
    "f007 initialized again": ("reinit_each_epoch",),
    "f004 constant initialization": ("zero_init",),
    "f015 softmax before the loss": ("redundant_softmax",),
    "f015 activation before the loss": ("activation_on_logits",),
    "f008 missing softmax": ("nll_on_logits",),
    "f012 missing sigmoid": ("nll_on_logits", "loss"),
    "f017 softmax of one output": ("activation_on_logits", "softmax_dim"),  # "wrong last layer activation"
    "f020 wrong activation for the loss": ("nll_on_logits", "activation_on_logits"),
    "f009 missing activation": ("missing_nonlinearity",),
    "f015 width of the loss": ("loss",),
    "f020 width of the loss": ("loss",),
    "f003 double activation": ("model",),
    "f024 bias not zero": ("model",),
    "f005 useless bias": ("model",),
    "f006 dropout before batch norm": ("model",),
    "f018 dropout before pooling": ("model",),
    "f019 widening dense layers": ("model",),
    "f023 fewer filters": ("model",),
    "f016 smaller window": ("model",),
    "f002 lack of pooling": ("model",),
    "f025 too much pooling": ("model",),
    "f027 ineffective pooling": ("model",),
}


@dataclass
class Neuralint(Detector):
    """Asks the source of a program whether its network is built and trained by the rules of NeuraLint.

    Source: Nikanjam, Ben Braiek, Morovati and Khomh, "Automatic Fault Detection for Deep Learning Programs Using Graph
    Transformations", TOSEM 2021; github.com/neuralint/neuralint, grooveParser.py for the codes (the paper's 23 rules
    are 27 there) and DNN-metamodel.gps/check*.gpr for what each graph matches. Changed for PyTorch:

    * The meta-model knows dense and convolutional networks. Others are asked of their initializers and loops alone.
    * Left out: f014 and f026, which the grammar switches off (checkMismatchBatch-1.gpr, checkDisPoolAsymmBlock-2.gpr);
      f001, which compares numbers of axes that both parsers hand on from layer to layer (set_input_size), so that no
      program breaks it; f013 and f021, which need the size of the input.
    * f016, f019, f023: sizes where the source and the settings tell them.
    * view, squeeze and unsqueeze stand for Flatten and Reshape; in f011, permute and a mean over the positions too.
    * f009 asks layers before another that learns; its graph asks all but the very last, which here may be a reshape.
    * Weights and biases are drawn when a layer is built. So f010, no initializer, never holds; f004 and f024 see what
      the program sets by hand; f007 is an initializer called in a training loop that does not build its model.
    * f022, the main loop, needs backward and an optimizer's step in it, the two halves of TensorFlow's train_op.
    * f008, f012, f015, f017 and f020 read which input a loss takes from its name. What is applied to the outputs in
      the functions that call it counts as the last activation. With several networks these rules are silent.
    * f002 asks every convolution what its graph asks those in 2-D: a pooling somewhere after it; a mean over the
      positions is one. The graphs for 1-D and 3-D look for "max_pooling1d", which the Keras parser writes
      "maxpooling1d": there the published rule fires whatever follows.

    Most rules are advice on design and name no fault: these answer with the family, after all that name one.
    """

    access = {"source"}
    origin = "published"
    deep: int = 10  # layers that convolve or pool, from which on a network is a deep one (checkDisPoolTooMuch-2.gpr)

    def diagnose(self, trace: Trace) -> Diagnosis:
        source = Source(trace.source, trace.config)
        networks = source.networks()
        feedforward = [n for n in networks if not any(x.kind == "sequence" for x in n)]
        findings = list(program_rules(source, [layer for n in networks for layer in n]))
        for layers in feedforward:
            findings += network_rules(layers, self.deep)
            if len(networks) == 1:
                findings += loss_rules(source, layers)
        if not findings and not feedforward:
            raise NotApplicable("the program has no network of dense and convolutional layers alone")
        return answer(RULES, findings)
