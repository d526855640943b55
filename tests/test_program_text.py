"""What is read in the text of a program: activations, dropout, losses."""

import pytest
from bugbench.program_text import activated, dropout_rates, reached, takes_raw_scores_for_probabilities


def test_activations_in_the_text_of_forward():
    source = """
def accuracy(outputs):
    return torch.sigmoid(outputs)

class Net:
    def forward(self, x):
        x = F.relu(self.convs.one(x))
        x = self.two(x).tanh()
        x = torch.nn.functional.gelu(self.three(x))
        return self.sigmoid(x)
"""
    assert activated(source) == {"convs.one": True, "two": True, "three": True}
    assert activated("def forward(self, x):\n    return torch.relu(x)") == {"": True}
    assert activated("def forward(self, x):\n    return x.relu()") == {"": True}


@pytest.mark.parametrize(
    ("body", "found"),
    [
        ("return F.relu(self.bn(self.conv(x)))", {"conv"}),
        ("return F.relu(F.max_pool2d(self.conv(x), 2))", {"conv"}),
        ("return F.dropout(self.conv(x)).relu()", {"conv"}),
        ("x = self.conv(x)\n        x = self.bn(\n            x)\n        return F.relu(x)", {"conv"}),
        ("return F.relu(self.fc(self.conv(x)))", {"fc"}),  # which leaves the convolution bare
        ("return F.relu(self.conv(x) + self.fc(x))", {"conv", "fc"}),
        ("return self.fc(self.act(self.bn(self.conv(x))))", {"conv"}),
        ("y = self.fc(x)\n        x = self.conv(x)\n        x += y\n        return F.relu(x)", {"conv", "fc"}),
        (
            "x = self.conv(x)\n" + 60 * "        x = x + self.bn(x)\n" + "        return F.relu(x)",
            {"conv"},
        ),  # not 2 ** 60 ways
        ("return self.fc(self.act(x))", set()),  # the order of the calls says what came before it
        ("return F.relu(self.part(x))", {"part"}),  # a container: of its layers, the last
        ("for f in self.part:\n            x = F.relu(f(x))\n        return x", {""}),
        ("return F.relu(self.encode(x))", {""}),  # a method, which may do anything
    ],
)
def test_calls_are_followed_to_the_layer_that_is_activated(body, found):
    kinds = {"conv": "Conv2d", "bn": "BatchNorm2d", "act": "ReLU", "fc": "Linear"}
    kinds |= {"part.0": "Linear", "part.1": "Linear", "part.2": "Dropout"}
    assert set(activated(f"class Net:\n    def forward(self, x):\n        {body}\n", kinds)) == found
    assert reached("part", kinds) == ["part.1"]


def test_two_classes_that_differ_in_a_layer_of_one_name():
    one, other = (f"class {c}:\n    def forward(self, x):\n        return {v}\n" for c, v in (
        ("One", "torch.tanh(self.head(x))"), ("Other", "self.head(x)")))  # fmt: skip
    assert activated(one) == {"head": True}
    assert activated(one + other) == {"head": False}
    assert reached("head", {"g.head": "Linear", "overhead": "Linear"}) == ["g.head"]


def test_dropout_rates_in_the_text():
    source = "nn.Dropout(0.1), nn.Dropout2d(p=0.2), F.dropout(x, 0.3), self.dropout(x)"
    source += ", nn.Dropout(config.drop), nn.Dropout(rate)"  # of which only the first is a setting
    assert dropout_rates(source, {"drop": 0.4}) == [0.1, 0.2, 0.3, 0.4]


def test_losses_in_the_text():
    assert takes_raw_scores_for_probabilities("criterion = nn.NLLLoss()")
    assert not takes_raw_scores_for_probabilities("criterion = nn.NLLLoss()\nout = x.log_softmax(1)")
    assert not takes_raw_scores_for_probabilities("F.binary_cross_entropy_with_logits(x, y)")
