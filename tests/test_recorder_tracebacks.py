"""The traceback of a program as the recorder keeps it: it names no place and no bug."""

from textwrap import dedent
from types import SimpleNamespace

from bugbench.recorder import program_traceback
from bugbench.rerun import Probe, load_program


def failure(path, source, **config):
    path.write_text(dedent(source))
    try:
        load_program(path).main(SimpleNamespace(**config), Probe())
    except Exception as error:
        return program_traceback(error, path)
    raise AssertionError("the program did not fail")


def test_traceback_begins_in_the_program_and_has_no_absolute_path(tmp_path):
    text = failure(
        tmp_path / "secret_bug.py",
        """\
        import torch


        def train_epoch(model):
            model(torch.zeros(2, 5))


        def main(config, run):
            train_epoch(torch.nn.Linear(4, 3))
        """,
    )
    lines = text.splitlines()
    assert lines[0] == "Traceback (most recent call last):"
    assert lines[1] == '  File "program.py", line 9, in main'
    assert lines[3] == '  File "program.py", line 5, in train_epoch'
    assert lines[-1].startswith("RuntimeError: mat1 and mat2 shapes cannot be multiplied (2x5 and 4x3)")
    assert 'File "torch/nn/' in text
    assert 'File "/' not in text
    assert "secret_bug" not in text
    assert str(tmp_path) not in text


def test_traceback_of_a_program_that_does_not_parse(tmp_path):
    text = failure(tmp_path / "secret_bug.py", "def main(config, run):\n    return (\n")
    assert 'File "program.py", line 2' in text
    assert text.splitlines()[-1] == "SyntaxError: '(' was never closed"
    assert "secret_bug" not in text
    assert 'File "/' not in text
