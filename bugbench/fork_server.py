"""A process of its own for every diagnosis, or panel: a server that has torch loaded forks one for each request.

A child starts from the same state whatever detectors ran before it. It is confined (:mod:`bugbench.isolation`), has an
empty working directory, a time and a memory limit, and all that it started ends with it.

Between server and child stands a supervisor, forked for the request too, which watches the child and writes the answer.
What it read is gone with it: the server's memory, which every child gets a copy of, never held an answer. The oracle's
would tell the next detector the truth.
"""

import ast
import contextlib
import gc
import importlib
import json
import os
import random
import resource
import shutil
import sys
import tempfile
import time
from pathlib import Path
from typing import Any, NoReturn

from bugbench import landlock, namespaces, seccomp
from bugbench.answers import Answer, failure
from bugbench.children import become_reaper, end, end_all, last_words, status_of, wait
from bugbench.isolation import View
from bugbench.large_pages import join_pages
from bugbench.limits import Limits, base_memory

SCRATCH, TRACE = Path("/scratch"), Path("/trace")  # with namespaces; elsewhere temporary folders
PRELOADED = {  # what a detector may have loaded before it is forked: modules whose import changes nothing for others
    *("numpy", "pandas", "yaml", "pyarrow", "pyarrow.parquet", "safetensors", "safetensors.numpy", "torch", "torch.nn"),
    *("scipy", "scipy.special", "scipy.stats", "scipy.linalg", "scipy.optimize", "scipy.signal", "sklearn"),
    *("sklearn.linear_model", "sklearn.metrics", "sklearn.model_selection", "bugbench.first_batch", "bugbench.rerun"),
}
PRELOADED_TOOLS = {"lightning.pytorch", "torchfix.torchfix"}  # likewise; the first takes longer to load than to ask
READING = ("pyarrow.dataset", "pyarrow.pandas_compat")  # what pandas imports when it reads its first table
OPEN_TO_ALL = ("/proc/self", "/proc/cpuinfo", "/proc/meminfo", "/dev/null", "/dev/zero", "/dev/random", "/dev/urandom")
MAX_FILE = 2**29  # bytes of a file that a detector may write
MAX_OPEN = 1024  # files
JOIN_FIRST, JOIN_EVERY = 64, 1024  # requests: joining pages pays where many follow, once what they need is loaded
ANSWERS = 3  # a child's file descriptor for its answer; 0, 1 and 2 are the usual ones, and it has no other


class ForkServer:
    """Answers requests for diagnoses, each in a child.

    Args:
        requests: the file descriptor that requests come from; when its other end closes, the server ends.
        answers: the one that answers go to, as JSON lines.
    """

    def __init__(self, requests: int, answers: int) -> None:
        self.requests, self.answers = requests, answers
        self.level = "process"
        self.desk = Path()
        self.granted: list[Path] = []
        self.listed: list[Path] = []
        self._seen: set[Path] = set()
        self.asked = 0
        become_reaper()

    def isolate(self, request: dict[str, Any]) -> Answer:
        """Confine this process and its children to come.

        The request holds ``level`` (of :data:`bugbench.isolation.LEVELS`), ``readable`` and ``hidden`` (paths, see
        :class:`bugbench.isolation.View`) and ``desk``, the folder in which traces will be put.

        Raises:
            OSError: this machine does not offer that level; the process must be replaced.
        """
        view = View(*(tuple(map(Path, request[name])) for name in ("readable", "hidden")))
        self.level, self.desk = request["level"], Path(request["desk"])
        if self.level != "process":
            seccomp.check()
        if self.level == "namespaces":
            namespaces.enter([*view.readable, self.desk], view.hidden, [SCRATCH, TRACE])
            # for caches that packages want to write when they are imported; children have a scratch folder of their own
            namespaces.mount_scratch(SCRATCH)
            tempfile.tempdir = str(SCRATCH)
        elif self.level == "landlock":
            if not landlock.version():
                raise OSError("this kernel has no Landlock")
            self.granted, self.listed = [*view.parts(), *map(Path, OPEN_TO_ALL)], view.split()
        import bugbench.sitting  # noqa: F401 — what every child needs is loaded once, here

        for module in READING:
            importlib.import_module(module)
        return {"level": self.level}

    def diagnose(self, request: dict[str, Any]) -> Answer | None:
        """Have a diagnosis answered; return None, or the answer where nobody else could give one.

        The request holds ``task``, ``detector`` (its file) and ``knobs`` (see :mod:`bugbench.diagnosing`), ``folder``
        (what the task is about), ``time_limit`` in seconds and ``memory`` in bytes; the answer ``status``, ``reason``,
        ``suspects``, ``seconds`` (wall time of the child) and, maybe, ``value`` and ``transient``. Models and what they
        are fitted on lie in the folder, not in the request: this process would hold them in memory for all children.

        A request with ``members`` is one for several detectors, see :mod:`bugbench.sitting`.
        """
        for member in request.get("members", [request]):
            self._preload(Path(member["detector"]))
        self.asked += 1
        if self.asked % JOIN_EVERY == JOIN_FIRST:
            join_pages()
        gc.freeze()  # a collection in a child would touch, and so copy, every page of what it has got
        supervisor = os.fork()
        if supervisor == 0:
            code = 1
            try:
                become_reaper()
                namespaces.die_with_parent()
                text = json.dumps(self._supervise(request)) + "\n"
                while text:
                    text = text[os.write(self.answers, text.encode()) :]
                code = 0
            finally:
                os._exit(code)
        _, ended = os.waitpid(supervisor, 0)
        end_all()  # empty unless the supervisor was killed
        return failure("crashed", "the process that watched over it was killed") if ended else None

    def _supervise(self, request: dict[str, Any]) -> Answer:
        confined = self.level == "namespaces"
        scratch = SCRATCH if confined else Path(tempfile.mkdtemp(prefix="scratch-"))
        limits = Limits(base_memory() + request["memory"], scratch)
        said = os.memfd_create("said")
        receiving, sending = os.pipe()
        if confined:
            namespaces.next_child_has_own_processes()
        started = time.perf_counter()
        child = os.fork()
        if child == 0:
            self._be_child(request, scratch, sending, said)
        os.close(sending)
        try:
            answer = wait(child, receiving, self.requests, started + request["time_limit"], limits)
            ended = end(child, patient=answer is None)
            if answer is None:
                went_on = failure("crashed", "the process closed the pipe of its answer and went on")
                answer = went_on if ended is None else status_of(ended, last_words(said))
            elif answer["status"] == "timed_out":
                answer = failure("timed_out", f"no answer within {request['time_limit']:g} s")
            return answer | {"seconds": time.perf_counter() - started}
        finally:
            os.close(receiving)
            os.close(said)
            if not confined:
                shutil.rmtree(scratch, ignore_errors=True)

    def _preload(self, detector: Path) -> None:
        """Import what a detector imports, if it is one of the modules that many share, so that no child has to.

        These are :data:`PRELOADED`; for the project's own detectors, which are known to import what is there, also the
        other modules of bugbench but for detectors, and :data:`PRELOADED_TOOLS`.
        """
        if detector in self._seen:
            return
        self._seen.add(detector)
        modules: list[str] = []
        tools: list[str] = []
        with contextlib.suppress(Exception):  # the child reports what is wrong with the file
            for node in ast.walk(ast.parse(detector.read_text())):
                if isinstance(node, ast.Import):
                    modules += [alias.name for alias in node.names]
                elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
                    modules.append(node.module)
                elif isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "tool":
                    tools += [a.value for a in node.args if isinstance(a, ast.Constant) and isinstance(a.value, str)]
        package = Path(__file__).parent
        own = {f"bugbench.{path.stem}" for path in package.glob("*.py")} if detector.parent.parent == package else set()
        for module in (PRELOADED | own).intersection(modules):
            with contextlib.suppress(Exception):
                importlib.import_module(module)
        for name in PRELOADED_TOOLS.intersection(tools) if own else ():
            if _can_be_loaded(name):
                importlib.import_module("bugbench.third_party").tool(name)

    def _be_child(self, request: dict[str, Any], scratch: Path, sending: int, said: int) -> NoReturn:
        code = 1
        try:
            os.dup2(said, 1)
            os.dup2(said, 2)
            os.dup2(sending, ANSWERS)
            os.closerange(ANSWERS + 1, os.sysconf("SC_OPEN_MAX"))
            namespaces.die_with_parent()
            folder = self._confine(Path(request["folder"]), scratch)
            os.chdir(scratch)
            os.environ |= {name: str(scratch) for name in ("HOME", "TMPDIR")}
            tempfile.tempdir = None
            resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
            resource.setrlimit(resource.RLIMIT_FSIZE, (MAX_FILE, MAX_FILE))
            resource.setrlimit(resource.RLIMIT_NOFILE, (MAX_OPEN, MAX_OPEN))
            data = base_memory("VmData") + request["memory"]
            resource.setrlimit(resource.RLIMIT_DATA, (data, data))
            from bugbench.diagnosing import perform
            from bugbench.sitting import sit

            seed()
            answer = sit(request, folder, seed) if "members" in request else perform(request, folder)
            text = json.dumps(answer).encode()
            text = len(text).to_bytes(8, "little") + text
            while text:
                text = text[os.write(ANSWERS, text) :]
            code = 0
        except SystemExit as wish:
            code = wish.code if isinstance(wish.code, int) else 1
        except BaseException as error:
            os.write(2, f"\n{type(error).__name__}: {error}\n".encode())
        finally:
            os._exit(code)

    def _confine(self, folder: Path, scratch: Path) -> Path:
        """Leave this process nothing but what it may have; return where it finds its trace."""
        if self.level == "namespaces":
            namespaces.enter_child(scratch, folder, TRACE, self.desk)
            seccomp.deny()
            return TRACE
        if self.level == "landlock":
            landlock.restrict([*self.granted, folder], self.listed, [scratch, Path("/dev/null")])
            seccomp.deny(beyond_files=True)
        return folder


def _can_be_loaded(tool: str) -> bool:
    """Tell whether a tool can be imported here, tried in a process of its own: of half an import no child recovers."""
    child = os.fork()
    if child == 0:
        code = 1
        try:
            importlib.import_module("bugbench.third_party").tool(tool)
            code = 0
        finally:
            os._exit(code)
    return os.waitpid(child, 0)[1] == 0


def seed() -> None:
    """Put the loaded generators into one state: chance must not depend on which server a child comes from."""
    random.seed(0)
    if "numpy" in sys.modules:
        sys.modules["numpy"].random.seed(0)
    if "torch" in sys.modules:
        sys.modules["torch"].manual_seed(0)
