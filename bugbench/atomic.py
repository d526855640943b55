"""Files and folders that are either there as a whole or not at all."""

import os
import shutil
import uuid
from pathlib import Path


def publish(draft: Path, final: Path) -> Path:
    """Give a finished folder its name in one step; whoever comes second throws the same thing away."""
    try:
        os.rename(draft, final)
    except OSError:
        if not final.is_dir():
            raise
        shutil.rmtree(draft)
    return final


def write(path: Path, content: str | bytes) -> None:
    """Write a file under another name and rename it, so that no reader ever sees half of it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    draft = path.with_name(f".{path.name}-{uuid.uuid4().hex}")
    try:
        draft.write_bytes(content.encode() if isinstance(content, str) else content)
        os.replace(draft, path)
    finally:
        draft.unlink(missing_ok=True)
