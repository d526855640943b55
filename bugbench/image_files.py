"""MNIST, FashionMNIST and CIFAR-10 from files that the user has, in the folders that torchvision gives them.

They lie below ``data_root=<folder>``, else ``$BUGBENCH_DATA``, else ``~/data``. Nothing is downloaded unless the user
says so (``download=true``). torchvision fetches the files and checks them; reading them is done here: torchvision would
read CIFAR-10 as pickles that may run any code, and only in the very version that it knows the checksums of.
"""

import codecs
import gzip
import hashlib
import os
import pickle
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

ROOT_VARIABLE = "BUGBENCH_DATA"
HIDDEN_OF_CLASS = 200  # test images of each class that are asked for: 2,000 of 10,000, so that a large network is done
SAMPLE_SIZE = 64
IDX_MAGIC = {3: 0x803, 1: 0x801}  # bytes, in as many dimensions
RECONSTRUCT = np.empty(0).__reduce__()[0]
ARRAY_PARTS: dict[tuple[str, str], Any] = {  # what a pickled array asks for, of NumPy before 2 and since
    ("numpy", "ndarray"): np.ndarray,
    ("numpy", "dtype"): np.dtype,
    ("numpy.core.multiarray", "_reconstruct"): RECONSTRUCT,
    ("numpy._core.multiarray", "_reconstruct"): RECONSTRUCT,
    ("_codecs", "encode"): codecs.encode,  # of bytes, by Python 3 for Python 2
}


class NoImages(LookupError):
    """The files of a data set are not there; the text says where they were looked for, and what can be done."""

    def __str__(self) -> str:
        return str(self.args[0])


def root() -> Path:
    """Return the folder below which the data sets of images lie."""
    return Path(os.environ.get(ROOT_VARIABLE) or "~/data").expanduser().absolute()


@dataclass(frozen=True)
class ImageFiles:
    """A data set of images on disk; what it is asked for is that of :mod:`bugbench.datasets`.

    Attributes:
        name: of the data set, and of torchvision's class for it.
        folder: where its files lie, below :func:`root`.
        parts: the files with the training images, and those with the test images.
    """

    name: str
    folder: str
    parts: tuple[tuple[str, ...], tuple[str, ...]]

    def paths(self, train: bool) -> list[Path]:
        """Return the files of a part, packed or not, as they were found; missing ones by their plain name."""
        plain = [root() / self.folder / name for name in self.parts[0 if train else 1]]
        packed = [path.with_name(f"{path.name}.gz") for path in plain]
        return [b if b.exists() and not a.exists() else a for a, b in zip(plain, packed, strict=True)]

    def missing(self) -> list[str]:
        return [path.name for path in [*self.paths(True), *self.paths(False)] if not path.exists()]

    def obtain(self, download: bool) -> None:
        """See to it that the files are there; have torchvision download them if that is allowed.

        Raises:
            NoImages: they are not, or cannot be had.
        """
        if not (missing := self.missing()):
            return
        if not download:
            raise NoImages(
                f"{self.name}: no {', '.join(missing)} in {root() / self.folder}. Name the folder that has "
                f"{self.folder} in it by data_root=<folder> or {ROOT_VARIABLE}, or let torchvision download the "
                "files to it: download=true"
            )
        from bugbench.vision_operators import declare_vision_operators

        declare_vision_operators()
        import torchvision.datasets

        target = root() / self.folder
        try:
            target.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryDirectory(prefix=".download-", dir=root()) as draft:  # jobs may do so side by side
                getattr(torchvision.datasets, self.name)(draft, download=True)
                for name in (*self.parts[0], *self.parts[1]):
                    os.replace(Path(draft) / self.folder / name, target / name)
        except (OSError, RuntimeError) as error:
            problem = f"torchvision cannot download it to {root()}: {type(error).__name__}: {error}"
            raise NoImages(f"{self.name}: {problem}") from error

    def write_training_data(self, folder: Path) -> None:
        """Write ``train.npz`` with all training images and labels, and the checksums of the files that all comes from.

        The test images are read too, so that files that cannot be used are told before anything is trained.
        """
        self.obtain(download=False)
        self.hidden_test()
        images, labels = self._read(train=True)
        np.savez(folder / "train.npz", images=images, labels=labels)
        files = [*self.paths(True), *self.paths(False)]
        sums = [f"{hashlib.sha256(path.read_bytes()).hexdigest()}  {path.name}\n" for path in files]
        (folder / "SHA256SUMS").write_text("".join(sums))

    def training_sample(self) -> tuple[np.ndarray, np.ndarray]:
        """Return the first 64 training images, uint8, with their labels."""
        return self._read(train=True, count=SAMPLE_SIZE)

    def hidden_test(self) -> tuple[np.ndarray, np.ndarray]:
        """Return the first 200 test images of each class, in the order of the files, with their labels."""
        images, labels = self._read(train=False)
        chosen = [np.flatnonzero(labels == label)[:HIDDEN_OF_CLASS] for label in np.unique(labels)]
        rows = np.sort(np.concatenate(chosen))
        return images[rows], labels[rows]

    def _read(self, train: bool, count: int | None = None) -> tuple[np.ndarray, np.ndarray]:
        """Return the first ``count`` images of a part (all, if None), uint8, and their labels, int64."""
        images, labels = self._arrays(self.paths(train), count)
        if len(images) != len(labels) or not len(labels):
            raise ValueError(f"{self.paths(train)[0]}: {len(images)} images, and {len(labels)} labels to them")
        if labels.min() < 0 or labels.max() > 9:
            raise ValueError(f"{self.paths(train)[0]}: labels from {labels.min()} to {labels.max()}, not 0 to 9")
        return images, labels.astype(np.int64)

    def _arrays(self, paths: list[Path], count: int | None) -> tuple[np.ndarray, np.ndarray]:
        raise NotImplementedError


@dataclass(frozen=True)
class IdxImages(ImageFiles):
    """MNIST and what has its format: a file of images and one of labels in each part, (n, 28, 28) and (n,)."""

    parts: tuple[tuple[str, ...], tuple[str, ...]] = (
        ("train-images-idx3-ubyte", "train-labels-idx1-ubyte"),
        ("t10k-images-idx3-ubyte", "t10k-labels-idx1-ubyte"),
    )

    def _arrays(self, paths: list[Path], count: int | None) -> tuple[np.ndarray, np.ndarray]:
        return _idx(paths[0], (28, 28), count), _idx(paths[1], (), count)


@dataclass(frozen=True)
class CifarImages(ImageFiles):
    """Pickled batches of rows: red, green and blue plane of an image; returned are (n, 32, 32, 3) and (n,)."""

    parts: tuple[tuple[str, ...], tuple[str, ...]] = (
        tuple(f"data_batch_{number}" for number in range(1, 6)),
        ("test_batch",),
    )

    def _arrays(self, paths: list[Path], count: int | None) -> tuple[np.ndarray, np.ndarray]:
        images, labels = [], []
        for data, own in _cifar_batches(paths):
            images.append(data.reshape(-1, 3, 32, 32).transpose(0, 2, 3, 1))
            labels.append(own)
            if count is not None and sum(map(len, labels)) >= count:
                break
        return np.ascontiguousarray(np.concatenate(images)[:count]), np.concatenate(labels)[:count]


def _idx(path: Path, shape: tuple[int, ...], count: int | None) -> np.ndarray:
    """Return the first ``count`` items of an idx file (big-endian: type and dimensions, sizes, bytes)."""
    wanted, size = [IDX_MAGIC[1 + len(shape)], *shape], int(np.prod(shape, dtype=int))
    try:
        with gzip.open(path) if path.suffix == ".gz" else open(path, "rb") as file:
            header = np.frombuffer(file.read(8 + 4 * len(shape)), ">u4").tolist()
            if [header[0], *header[2:]] != wanted:
                raise ValueError(f"the header is {header}")
            length = header[1] if count is None else min(count, header[1])
            content = file.read(length * size)
        return np.frombuffer(content, np.uint8).reshape(length, *shape)
    except (OSError, EOFError, ValueError, IndexError) as error:
        raise _unreadable(path, f"idx file of bytes (n{''.join(f', {n}' for n in shape)})", error) from error


def _cifar_batches(paths: list[Path]) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    for path in paths:
        try:
            with gzip.open(path) if path.suffix == ".gz" else open(path, "rb") as file:
                batch = _ArraysOnly(file, encoding="latin1").load()
            data, labels = batch["data"], np.array(batch["labels"])
            if data.dtype != np.uint8 or data.shape != (len(labels), 3072):
                raise ValueError(f"{data.dtype} {data.shape} for {len(labels)} labels")
        except Exception as error:  # a damaged pickle may raise anything
            raise _unreadable(path, "batch of CIFAR-10, Python version", error) from error
        yield data, labels


def _unreadable(path: Path, what: str, error: Exception) -> ValueError:
    reason = f"{type(error).__name__}: {error}"
    return ValueError(f"{path} is no {what} ({reason}): put a whole one there, or delete it and use download=true")


class _ArraysOnly(pickle.Unpickler):
    """Reads arrays, lists, texts and numbers; a pickle that asks for anything else is refused."""

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) not in ARRAY_PARTS:
            raise pickle.UnpicklingError(f"it asks for {module}.{name}")
        return ARRAY_PARTS[module, name]


def folders() -> list[Path]:
    """Return the folders below :func:`root` that have the hidden test in them."""
    names = ("MNIST", "FashionMNIST", "cifar-10-batches-py")
    return [root() / name for name in names if (root() / name).is_dir()]


def accuracy(outputs: np.ndarray, targets: np.ndarray) -> float:
    """Return the accuracy of scores (N, 10) against labels (N,); a row with NaN or infinity is wrong."""
    finite = np.isfinite(outputs).all(axis=1)
    predicted = np.where(finite, np.nan_to_num(outputs).argmax(axis=1), -1)
    if len(predicted) != len(targets):
        raise ValueError(f"{len(predicted)} rows of scores for {len(targets)} images")
    return float((predicted == targets).mean())
