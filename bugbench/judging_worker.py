"""A worker that judges: confined as strongly as the machine allows, with a copy of what detectors may use."""

import contextlib
import hashlib
import os
import shutil
import subprocess
import uuid
from collections.abc import Callable, Hashable, Iterable, Mapping
from pathlib import Path
from typing import Any

from bugbench.isolation import LEVELS, copy_package, judging_view
from bugbench.plugins import project_folder
from bugbench.worker import TimedOut, Worker, WorkerDied

JUDGE_MEMORY = 4 * 2**30  # bytes
START_SECONDS = 120.0  # for a process to start and to load torch, on a machine that is busy
PATIENCE_SECONDS = 2.0  # for a process to end when nobody asks it any more
GRACE_SECONDS = 30.0  # that a process may take beyond a diagnosis' own time limit, which it sees to itself


class NotConfined(OSError):
    """No judging process can be started at any of the levels asked for; the text says why."""


class JudgingWorker(Worker):
    """A process that forks a child for every request; see :mod:`bugbench.fork_server`.

    Args:
        isolation: one of :data:`bugbench.isolation.LEVELS`, or "auto" for the strongest that works here.
        hidden: paths that no detector may see: search path, results, raw data.
        memory: bytes that a diagnosis may use.

    Attributes:
        level: how the running process is confined.
        asked: the argument ``isolation``.
        notice: a sentence on why it is not confined more strongly; empty if it is, or if no more was asked for.
    """

    def __init__(self, isolation: str = "auto", hidden: Iterable[Path] = (), memory: int = JUDGE_MEMORY) -> None:
        super().__init__("judge", memory)
        self.levels = LEVELS if isolation == "auto" else (isolation,)
        self.asked = isolation
        self.hidden = tuple(hidden)
        self.level = self.notice = ""
        self._placed: dict[Hashable, Path] = {}

    def start(self) -> None:
        """Start the process now, so that level and notice are known before the first diagnosis.

        Raises:
            NotConfined: none of the levels asked for works here.
        """
        self._started()

    def place(self, exhibit: str, part: Hashable, export: Callable[[Path], None]) -> Path:
        """Return a folder with part of an exhibit, filled by ``export`` unless it lies there from an earlier call.

        Only parts of one exhibit are kept. Their names are random, and every time stamp is the same.
        """
        self._started()
        wanted = (exhibit, part)
        if self.level == "process" or any(other[0] != exhibit for other in self._placed):  # type: ignore[index]
            self.forget()  # without confinement a detector may have written into it
        if wanted not in self._placed:
            folder = self.home / "desk" / uuid.uuid4().hex
            export(folder)
            for path in [*folder.rglob("*"), folder]:
                os.utime(path, (0, 0))
            self._placed[wanted] = folder
        return self._placed[wanted]

    def diagnose(
        self, detector: Path, knobs: Mapping[str, Any], folder: Path, time_limit: float, task: str = "diagnose"
    ) -> dict[str, Any]:
        """Return the answer that :meth:`bugbench.fork_server.ForkServer.diagnose` tells of, with ``isolation``.

        Raises:
            TimedOut, WorkerDied: the server itself is gone.
            NotConfined: it cannot be started.
        """
        self._started()
        return self._call({"task": task, **self._member(detector, knobs)}, folder, time_limit)

    def diagnose_all(
        self,
        members: Iterable[tuple[Path, Mapping[str, Any]]],
        folder: Path,
        time_limit: float,
        **parts: Any,
    ) -> dict[str, Any]:
        """Have several detectors diagnose in one process; see :mod:`bugbench.sitting`.

        Args:
            members: a detector's file and its knobs each.
            folder: the trace, cut to what they may see.
            time_limit: in seconds, for all together.
            **parts: ``access``, ``prefixes`` and ``steps``.

        Raises:
            TimedOut, WorkerDied, NotConfined: see :meth:`diagnose`.
        """
        self._started()
        request = {"task": "diagnose", "members": [self._member(*m) for m in members], **parts}
        return self._call(request, folder, time_limit)

    def _member(self, detector: Path, knobs: Mapping[str, Any]) -> dict[str, Any]:
        return {"detector": str(self._staged(detector)), "knobs": dict(knobs)}

    def _call(self, request: dict[str, Any], folder: Path, time_limit: float) -> dict[str, Any]:
        request |= {"folder": str(folder), "time_limit": time_limit}
        return self.call(request, time_limit + GRACE_SECONDS) | {"isolation": self.level}

    def close(self) -> None:
        self._placed.clear()
        if self._process is not None and self._process.stdin is not None:
            with contextlib.suppress(OSError, subprocess.TimeoutExpired):
                self._process.stdin.close()  # it then ends all that a detector started, also what left its group
                self._process.wait(PATIENCE_SECONDS)
        super().close()

    def forget(self) -> None:
        """Take away what was put before detectors: an exhibit may have been made anew under the same name."""
        for folder in self._placed.values():
            shutil.rmtree(folder, ignore_errors=True)
        self._placed.clear()

    def _furnish(self) -> Path:
        for name in ("desk", "plugins"):
            (self.home / name).mkdir()
        return copy_package(self.home / "package")

    def _staged(self, detector: Path) -> Path:
        """Return where the process finds a detector: the project's own in its package, others with what is beside."""
        if detector.resolve().parent == project_folder("detectors").resolve():
            return self.home / "package" / "bugbench" / "detectors" / detector.name
        files = sorted(p for p in detector.parent.iterdir() if p.is_file() and not p.name.startswith("."))
        stamps = [(p.name, p.stat().st_mtime_ns, p.stat().st_size) for p in files]
        digest = hashlib.sha256(repr((detector.parent, stamps, detector.read_bytes())).encode()).hexdigest()[:16]
        folder = self.home / "plugins" / digest
        if not folder.exists():
            folder.mkdir()
            for path in files:
                shutil.copyfile(path, folder / path.name)
        return folder / detector.name

    def _started(self) -> subprocess.Popen[str]:
        if self._process is not None and self._process.poll() is None:
            return self._process
        reasons: list[str] = []
        for level in self.levels:
            process = super()._started()
            own = [self.home / "package", self.home / "plugins"]
            view = judging_view(own, self.hidden)
            request: dict[str, Any] = {"level": level, "desk": str(self.home / "desk")}
            request |= {name: [str(p) for p in getattr(view, name)] for name in ("readable", "hidden")}
            try:
                answer = self._ask(process, request, START_SECONDS)
            except (TimedOut, WorkerDied) as error:
                answer = {"failure": str(error)}
            if "failure" not in answer:
                self.level, self.levels = level, (level,)  # what works is not tried for again
                if reasons:
                    self.notice = (
                        f"detectors are judged at the level {level}, since this machine offers no stronger one "
                        f"({'; '.join(reasons)}). SECURITY.md says what {level} does not prevent."
                    )
                return process
            reasons.append(f"{level}: {answer['failure']}")
            self.close()
        raise NotConfined(f"no judging process can be started here: {'; '.join(reasons)}")
