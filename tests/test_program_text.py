"""What is read in the text of a program: activations, dropout, losses."""

import pytest
from bugbench.program_text import activated, dropout_rates, loss_without_softmax, reached


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


@pytest.mark.parametrize(
    ("rate", "found"),
    [
        ("1 - config.drop", [0.75]),
        ("1 - drop", [0.75]),  # nothing in the text gives it a value
        ("config.drop / 2", [0.125]),
        ("(1 - 0.5) * config.drop", [0.125]),
        ("2 * -config.drop + 1", [0.5]),
        ("config.other", []),
        ("min(config.drop, 0.5)", []),  # no arithmetic
        ("KEEP", [0.375]),
        ("1 - p", [0.25, 0.5]),  # 0.75 and the default
        ("1 - self.rate", [0.625]),
        ("summed", []),  # something was added to it
        ("0.125 if wide else q", [0.125, 0.875]),
    ],
)
def test_arithmetic_on_dropout_rates(rate, found):
    source = f"""
KEEP = 0.375

class Block(nn.Module):
    def __init__(self, width, p=0.5, *, q=0.875):
        self.rate = KEEP
        summed = 0.25
        summed += 0.5
        self.drop = nn.Dropout({rate})

class Net(nn.Module):
    def __init__(self, drop_rate):
        self.blocks = nn.Sequential(Block(8, 1 - drop_rate), Block(8))

net = Net(config.drop)
"""
    assert dropout_rates(source, {"drop": 0.25}) == found


def test_a_rate_that_is_doubled_often():
    source = "def build(p):\n" + 60 * "    p = p + p\n" + "    return nn.Dropout(p)\n\nbuild(2**0)\nbuild(1)\n"
    assert dropout_rates(source, {}) == [2.0**60]  # not 2 ** 60 ways; powers are not read


@pytest.mark.parametrize(
    ("source", "name"),
    [
        ("criterion = nn.NLLLoss()", "NLLLoss"),
        ("criterion = nn.NLLLoss()\ncriterion(x, y)", "NLLLoss"),
        ("criterion = nn.NLLLoss()\ncriterion(x.log_softmax(1), y)", ""),
        ("F.nll_loss(x, y)\nshares = F.softmax(x, 1)", "nll_loss"),  # which the loss does not get
        ("x = nn.LogSoftmax(1)(x)\nF.nll_loss(x.flatten(0, 1), y)", ""),
        ("F.nll_loss(torch.log(F.softmax(x, dim=1) + 1e-8)[:, -1], y)", ""),
        ("F.nll_loss(F.softmax(x, dim=1) @ v, y)", "nll_loss"),
        ("F.cross_entropy(x, y)", ""),
        ("F.binary_cross_entropy_with_logits(x, y)", ""),
        ("F.binary_cross_entropy(torch.sigmoid(x), y)", "binary_cross_entropy"),  # a sigmoid is no softmax
        ("nn.MSELoss()(x, y)", "MSELoss"),
        ("F.smooth_l1_loss(input=x, target=y)", "smooth_l1_loss"),
        ("(x - y).square().mean()", ""),  # no loss of PyTorch's
        ("self.l1(x)", ""),
        ("with torch.no_grad():\n    error = F.l1_loss(x, y)", ""),  # nothing is trained by it
    ],
)
def test_losses_in_the_text(source, name):
    assert loss_without_softmax(source, {}) == name


FUNCTIONS = """
def loss_function(outputs, targets):
    return F.nll_loss(outputs, targets)

def train(model, inputs, targets):
    outputs = model(inputs)
    outputs = {change}
    loss_function(outputs, targets).backward()

def shares(scores):
    return F.log_softmax(scores, dim=1)

@torch.no_grad()
def evaluate(model, inputs, targets):
    return loss_function(F.log_softmax(model(inputs), dim=1), targets)
"""


@pytest.mark.parametrize(
    ("change", "name"),
    [
        ("outputs", "nll_loss"),
        ("F.log_softmax(outputs, 1)", ""),
        ("shares(outputs)", ""),
        ("relu(outputs)", "nll_loss"),
    ],
)
def test_the_argument_of_a_loss_is_followed_to_those_who_call(change, name):
    assert loss_without_softmax(FUNCTIONS.format(change=change), {}) == name


NETWORK = """
class Attention(nn.Module):
    def __init__(self):
        self.key = nn.Linear(8, 8)

    def forward(self, x):
        return F.softmax(self.key(x), dim=-1) @ x

class SoftmaxRegression(nn.Module):
    def __init__(self):
        self.attention = Attention()
        self.head = nn.Linear(8, 3)

    def forward(self, x):
        return {end}

model = SoftmaxRegression()
loss = F.nll_loss(model(inputs), targets)
"""


@pytest.mark.parametrize(
    ("end", "name"),
    [
        ("self.head(self.attention(x))", "nll_loss"),
        ("F.log_softmax(self.head(self.attention(x)), dim=1)", ""),
        ("torch.softmax(self.head(self.attention(x)), dim=1).squeeze(-1)", ""),
        ("self.head(F.softmax(self.attention(x), dim=1))", "nll_loss"),
    ],
)
def test_only_the_end_of_a_network_counts(end, name):
    assert loss_without_softmax(NETWORK.format(end=end), {}) == name
