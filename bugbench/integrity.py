"""Integrity of what is kept: JSON sealed with its own checksum, and checksums of whole folders.

A sealed file is JSON of two fields, whose second line on is the content that the checksum is of::

    {"sha256": "…",
    "content": …}
"""

import hashlib
import json
import re
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from bugbench import atomic

SEAL = re.compile(rb'\{"sha256": "([0-9a-f]{64})",\n"content": (.*)\}\n', re.DOTALL)


class Damaged(ValueError):
    """A stored file is not what was written; the text names it and says what is wrong."""

    def __init__(self, path: Path, problem: str) -> None:
        super().__init__(f"{path}: {problem}")
        self.path = path
        self.problem = problem


def write_sealed(path: Path, content: Any) -> None:
    """Write ``content`` as JSON with its checksum, in one step.

    Raises:
        TypeError: the content is no JSON.
        OSError: it cannot be written; no part of it is then visible.
    """
    text = json.dumps(content, indent=1).encode()
    seal = hashlib.sha256(text).hexdigest().encode()
    atomic.write(path, b'{"sha256": "' + seal + b'",\n"content": ' + text + b"}\n")


def read_sealed(path: Path) -> Any:
    """Return the content of a sealed file.

    Raises:
        FileNotFoundError: there is none.
        Damaged: it was cut short or changed, or never sealed.
    """
    found = path.read_bytes()
    match = SEAL.fullmatch(found)
    if match is None:
        raise Damaged(path, f"no sealed JSON, {len(found)} bytes: cut short, changed, or by an older version")
    if hashlib.sha256(match[2]).hexdigest() != match[1].decode():
        raise Damaged(path, "the content does not match its checksum")
    return json.loads(match[2])


def manifest(folder: Path) -> dict[str, dict[str, Any]]:
    """Return ``bytes`` and ``sha256`` of every file in ``folder``, by its path in there."""
    return {
        name: {"bytes": path.stat().st_size, "sha256": hashlib.sha256(path.read_bytes()).hexdigest()}
        for name, path in _files(folder)
    }


def verify(folder: Path, expected: Mapping[str, Mapping[str, Any]]) -> None:
    """Hold the files of ``folder`` against its manifest.

    Raises:
        Damaged: the first file that is missing, of another size or content, or was not there.
    """
    found = dict(_files(folder))
    for name, entry in expected.items():
        path = folder / name
        if name not in found:
            raise Damaged(path, "the file is missing")
        if (size := path.stat().st_size) != entry["bytes"]:
            raise Damaged(path, f"{size} bytes instead of {entry['bytes']}")
        if hashlib.sha256(path.read_bytes()).hexdigest() != entry["sha256"]:
            raise Damaged(path, "the content does not match its checksum")
    if extra := sorted(set(found) - set(expected)):
        raise Damaged(folder / extra[0], "the file does not belong there")


def content_digest(folder: Path) -> str:
    """Return twelve hexadecimal digits that stand for the names and contents of all files in ``folder``."""
    digest = hashlib.sha256()
    for name, path in _files(folder):
        digest.update(name.encode() + b"\0" + path.read_bytes())
    return digest.hexdigest()[:12]


def signature(folder: Path) -> tuple[tuple[Any, ...], ...]:
    """Return name, size, time of change and inode of every file: a cheap sign that none was touched since."""
    stats = ((name, path.stat()) for name, path in _files(folder))
    return tuple((name, s.st_size, s.st_mtime_ns, s.st_ino) for name, s in stats)


def warn(text: str) -> None:
    """Tell the user in a line on standard error; Hydra's logging is off, and a launcher's process shows this too."""
    print(f"bugbench: {text}", file=sys.stderr, flush=True)


def _files(folder: Path) -> Iterator[tuple[str, Path]]:
    for path in sorted(folder.rglob("*")):
        if path.is_file():
            yield str(path.relative_to(folder)), path
