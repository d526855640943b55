"""Files and folders that are either there as a whole or not at all.

What is being made has the name of a draft, ``.<name>-<32 hexadecimal digits>``, beside the place it is for; no reader
looks at these, and those that a killed process left are removed later.
"""

import contextlib
import os
import re
import shutil
import time
import uuid
from collections.abc import Iterable
from pathlib import Path

DRAFT = re.compile(r"\..+-[0-9a-f]{32}")


def draft_of(path: Path) -> Path:
    """Return a name beside ``path`` that nobody else uses."""
    return path.with_name(f".{path.name}-{uuid.uuid4().hex}")


def publish(draft: Path, final: Path) -> Path:
    """Give a finished folder its name in one step; whoever comes second throws the same thing away."""
    try:
        os.rename(draft, final)
    except OSError:
        if not final.is_dir():
            raise
        shutil.rmtree(draft)
    return final


def replace(draft: Path, final: Path) -> Path:
    """Publish a finished folder in place of one that is of no use; the old one is moved aside and then deleted.

    Processes that do this at the same time do not disturb each other: one folder, complete, is there in the end.
    """
    aside = draft_of(final)
    with contextlib.suppress(FileNotFoundError):  # another process was faster
        os.rename(final, aside)
    publish(draft, final)
    shutil.rmtree(aside, ignore_errors=True)
    return final


def write(path: Path, content: str | bytes) -> None:
    """Write a file under another name and rename it, so that no reader ever sees half of it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    draft = draft_of(path)
    try:
        draft.write_bytes(content.encode() if isinstance(content, str) else content)
        os.replace(draft, path)
    finally:
        draft.unlink(missing_ok=True)


def remove_stale_drafts(folders: Iterable[Path], seconds: float) -> list[Path]:
    """Delete drafts directly in ``folders`` in which nothing was written for ``seconds``; return what was deleted.

    Younger ones may belong to another process that is still at work.
    """
    removed = []
    for folder in folders:
        for path in sorted(p for p in folder.glob(".*") if DRAFT.fullmatch(p.name)):
            with contextlib.suppress(OSError):  # its owner has just finished, or it is not ours to delete
                latest = max(p.lstat().st_mtime for p in (path, *path.rglob("*")))
                if time.time() - latest < seconds:
                    continue
                if path.is_dir():
                    shutil.rmtree(path, ignore_errors=True)
                else:
                    path.unlink()
                removed.append(path)
    return removed
