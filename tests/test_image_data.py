"""MNIST, FashionMNIST and CIFAR-10 from small files of their formats, made here of scikit-learn's digits."""

import gzip
import os
import pickle
import struct
import subprocess
import sys
from pathlib import Path
from types import ModuleType
from urllib.error import URLError

import numpy as np
import pytest
from bugbench import image_files
from bugbench.catalogue import Catalogue
from bugbench.datasets import cifar10, fashion_mnist, mnist
from bugbench.pools import secrets
from bugbench.records import Records
from bugbench.runner import prepare
from bugbench.training import handle, write_data
from bugbench.vision_operators import declare_vision_operators
from bugbench.worker import _environment
from sklearn.datasets import load_digits

declare_vision_operators()
import torchvision.datasets  # noqa: E402

ROOT = Path(__file__).resolve().parent.parent


def digits(first: int, count: int, size: int) -> tuple[np.ndarray, np.ndarray]:
    """Return scans as images of other sizes, uint8 from 0 to 255, and their labels."""
    images, labels = load_digits(return_X_y=True)
    chosen = slice(first, first + count)
    large = np.kron(images[chosen].reshape(-1, 8, 8), np.ones((size // 8, size // 8))) * 15
    margin = (size - large.shape[1]) // 2
    return np.pad(large, [(0, 0), (margin, margin), (margin, margin)]).astype(np.uint8), labels[chosen]


def write_idx(folder: Path, train: int = 200, test: int = 100, packed: bool = False) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for part, first, count in (("train", 0, train), ("t10k", 1000, test)):
        images, labels = digits(first, count, 28)
        files = {
            f"{part}-images-idx3-ubyte": struct.pack(">4I", 0x803, count, 28, 28) + images.tobytes(),
            f"{part}-labels-idx1-ubyte": struct.pack(">2I", 0x801, count) + labels.astype(np.uint8).tobytes(),
        }
        for name, content in files.items():
            path = folder / (f"{name}.gz" if packed else name)
            path.write_bytes(gzip.compress(content) if packed else content)


def write_cifar(folder: Path, train: int = 40, test: int = 100) -> None:
    """Write batches as Python 2 did, ``train`` images in each of the five."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, first, count in [
        *((f"data_batch_{n + 1}", n * train, train) for n in range(5)),
        ("test_batch", 1000, test),
    ]:
        images, labels = digits(first, count, 32)
        planes = np.stack([images, images // 2, 255 - images], axis=1).reshape(count, 3072)
        batch = {"data": planes, "labels": labels.tolist(), "batch_label": name, "filenames": ["a.png"] * count}
        (folder / name).write_bytes(pickle.dumps(batch, protocol=2))


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with small files of all three data sets, which are those that are looked for."""
    write_idx(tmp_path / "MNIST" / "raw")
    write_idx(tmp_path / "FashionMNIST" / "raw", packed=True)
    write_cifar(tmp_path / "cifar-10-batches-py")
    monkeypatch.setenv(image_files.ROOT_VARIABLE, str(tmp_path))
    return tmp_path


def test_files_are_read_as_torchvision_reads_them(home: Path) -> None:
    class AnyCifar(torchvision.datasets.CIFAR10):
        """Of any content: torchvision knows the checksums of the published files."""

        def _check_integrity(self) -> bool:
            return True

        def _load_meta(self) -> None:
            pass

    for module, reader in ((mnist, torchvision.datasets.MNIST), (cifar10, AnyCifar)):
        for train in (True, False):
            theirs = reader(home, train=train)
            images, labels = module.FILES._read(train)
            assert np.array_equal(images, np.asarray(theirs.data)) and images.dtype == np.uint8
            assert labels.tolist() == list(map(int, theirs.targets))
    for part in (0, 1):
        assert np.array_equal(fashion_mnist.hidden_test()[part], mnist.hidden_test()[part]), "packed files are the same"


@pytest.mark.parametrize(("dataset", "shape"), [(mnist, (28, 28)), (fashion_mnist, (28, 28)), (cifar10, (32, 32, 3))])
def test_program_gets_the_training_files_and_nothing_of_the_test(
    dataset: ModuleType, shape: tuple[int, ...], home: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "written"
    folder.mkdir()
    dataset.write_training_data(folder)
    assert sorted(path.name for path in folder.iterdir()) == ["SHA256SUMS", "train.npz"]
    written = np.load(folder / "train.npz")
    assert written["images"].shape == (200, *shape)
    hidden, targets = dataset.hidden_test()
    assert hidden.shape == (100, *shape)
    assert not {image.tobytes() for image in hidden} & {image.tobytes() for image in written["images"]}
    inputs, labels = dataset.training_sample()
    assert np.array_equal(inputs, written["images"][:64]) and np.array_equal(labels, written["labels"][:64])
    scores = np.eye(10)[targets]
    assert dataset.oracle_metric(scores, targets) == 1
    scores[:50] = np.nan
    assert dataset.oracle_metric(scores, targets) == 0.5


def test_hidden_test_has_as_many_of_each_class(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(image_files, "HIDDEN_OF_CLASS", 7)
    assert np.bincount(mnist.hidden_test()[1]).tolist() == [7] * 10


class NoNetwork:
    """Stands in for a data set of torchvision that must not be asked, or cannot be reached."""

    def __init__(self, *_: object, **__: object) -> None:
        raise URLError("no network")


def test_missing_files_are_named_and_not_downloaded(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torchvision.datasets, "MNIST", NoNetwork)
    mnist.obtain(download=True)  # they are there
    (home / "MNIST" / "raw" / "t10k-labels-idx1-ubyte").unlink()
    with pytest.raises(LookupError) as missing:
        mnist.obtain(download=False)
    for word in ("t10k-labels-idx1-ubyte", f"{home}/MNIST/raw", "data_root=", "BUGBENCH_DATA", "download=true"):
        assert word in str(missing.value)
    assert "train-images" not in str(missing.value) and "network" not in str(missing.value)
    with pytest.raises(LookupError, match=r"cannot download it to .*no network"):
        mnist.obtain(download=True)


def test_download_is_torchvisions(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fetch(root: str, download: bool) -> None:
        assert download
        write_idx(Path(root) / "MNIST" / "raw")

    monkeypatch.setattr(torchvision.datasets, "MNIST", fetch)
    monkeypatch.setenv(image_files.ROOT_VARIABLE, str(tmp_path / "new"))
    mnist.obtain(download=True)
    assert len(mnist.hidden_test()[1]) == 100
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["MNIST"], "nothing else is left"


class Dangerous:
    """A pickle that makes a folder when it is read."""

    def __reduce__(self) -> tuple:
        return os.mkdir, ("made_by_a_pickle",)


def test_unusable_files_are_named(home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    images, labels = (home / "MNIST" / "raw" / f"t10k-{name}-ubyte" for name in ("images-idx3", "labels-idx1"))
    batch = home / "cifar-10-batches-py" / "test_batch"
    short = pickle.dumps({"data": np.zeros((3, 5), np.uint8), "labels": [1, 2, 3]}, protocol=2)
    cases = [
        (mnist, images, images.read_bytes()[:-1], "idx file of bytes"),
        (mnist, images, b"", "idx file of bytes"),
        (mnist, images, labels.read_bytes(), "the header is"),
        (mnist, labels, labels.read_bytes()[:8] + b"\x0b" * 100, "labels from 11 to 11, not 0 to 9"),
        (mnist, labels, struct.pack(">2I", 0x801, 1) + b"\x01", "100 images, and 1 labels"),
        (cifar10, batch, batch.read_bytes()[:1000], "batch of CIFAR-10"),
        (cifar10, batch, short, "batch of CIFAR-10"),
        (cifar10, batch, pickle.dumps(Dangerous()), "it asks for posix.mkdir"),
    ]
    for dataset, path, content, problem in cases:
        whole = path.read_bytes()
        path.write_bytes(content)
        with pytest.raises(ValueError, match=problem) as error:
            dataset.write_training_data(tmp_path)
        assert str(path.parent) in str(error.value)
        path.write_bytes(whole)
    assert not (tmp_path / "made_by_a_pickle").exists()


def test_key_depends_on_model_and_on_the_content_of_all_files(
    home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, catalogue: Catalogue
) -> None:
    def key(**chosen: str) -> str:
        workload = catalogue.varied(**chosen).workload("digits_cnn")
        folder = write_data(workload.dataset, tmp_path / "store")["folder"]
        return prepare(catalogue.card("none"), workload, 0).run.key(folder)

    before = key(data="mnist")
    assert key(data="mnist") == before
    assert len({before, key(data="fashion_mnist"), key(data="mnist", model="resnet18"), key(model="resnet18")}) == 4
    (home / "MNIST").rename(tmp_path / "MNIST2")
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "MNIST2").rename(tmp_path / "elsewhere" / "MNIST")
    monkeypatch.setenv(image_files.ROOT_VARIABLE, str(tmp_path / "elsewhere"))
    assert key(data="mnist") == before, "where the files lie does not matter"
    labels = tmp_path / "elsewhere" / "MNIST" / "raw" / "t10k-labels-idx1-ubyte"
    labels.write_bytes(labels.read_bytes()[:-1] + bytes([9 - labels.read_bytes()[-1]]))
    assert key(data="mnist") != before, "the hidden test is another"


def test_detectors_see_neither_the_files_nor_where_they_are(home: Path, catalogue: Catalogue, tmp_path: Path) -> None:
    assert {home / "MNIST", home / "FashionMNIST", home / "cifar-10-batches-py"} <= set(secrets(catalogue, tmp_path))
    assert image_files.ROOT_VARIABLE not in _environment(tmp_path)


def bugbench(*arguments: str, cwd: Path) -> str:
    words = ["bug=softmax_dim", "detector=[oracle,split_checks]", "workers=1", "plot=false", *arguments]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "COLUMNS": "160"}
    command = [sys.executable, "-m", "bugbench", *words]
    done = subprocess.run(command, cwd=cwd, env=environment, text=True, capture_output=True, check=False, timeout=500)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_case_on_mnist(home: Path, tmp_path: Path) -> None:
    output = bugbench("data=mnist", "data_root=.", cwd=tmp_path)
    assert "softmax_dim on digits_cnn(data=mnist), seed 0" in output
    (record,) = Records(tmp_path / "results").read().records
    assert record.lines and record.oracle_twin is not None and record.oracle_twin > 0.5, "something is learnt"
    data = tmp_path / "results" / "runs" / "data" / record.data
    assert sorted(path.name for path in data.iterdir()) == ["SHA256SUMS", "train.npz"]
    (home / "MNIST" / "raw" / "train-labels-idx1-ubyte").write_bytes(b"cut")
    request = {"do": "data", "dataset": mnist.__file__, "root": str(tmp_path / "data")}
    assert "train-labels-idx1-ubyte is no idx file" in handle(request, print)["failure"], "such a case is skipped"


def test_resnet_on_photographs(home: Path, tmp_path: Path) -> None:
    write_cifar(home / "cifar-10-batches-py", train=8, test=20)
    small = ["workload=digits_cnn", "workload.config.samples=40", "workload.config.epochs=1"]
    output = bugbench("data=cifar10", "model=resnet18", *small, cwd=tmp_path)
    assert "digits_cnn(data=cifar10,model=resnet18,epochs=1,samples=40)" in output
    (record,) = Records(tmp_path / "results").read().records
    assert record.error is None and record.oracle_bug is not None
