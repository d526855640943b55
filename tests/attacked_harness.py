"""A harness under attack: ``python attacked_harness.py LEVEL HOME ATTACK … bug=softmax_dim``, run by test_red_team.py.

It judges one stored case with the real bench and a real judging worker. Like a harness in use it is started with the
name of the bug, holds the truth in memory, has files of the case open, and serves it on the network. With the level
"none" detectors run inside it. It prints what became of each attack as JSON; every attack is made twice, since one that
leaves a message for the next detector needs a second call to read it.
"""

import ctypes
import json
import os
import random
import socket
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from bugbench.catalogue import load
from bugbench.declaration import read_declaration
from bugbench.detector import NotApplicable, Trace
from bugbench.isolation import LEVELS
from bugbench.job import exhibit
from bugbench.judging import Bench, Exhibit, Judge
from bugbench.judging_worker import JudgingWorker
from bugbench.plugins import load_detector, project_folder
from bugbench.pools import secrets
from bugbench.records import Records
from bugbench.store import Store
from bugbench.worker import Worker, WorkerPool

CHECKOUT = Path(__file__).resolve().parent.parent
PREVENTED, POSSIBLE = "prevented", "possible"


class Attacked:
    """One case, its truth, and what an attacker who knows this machine well could know of it."""

    def __init__(self, home: Path) -> None:
        self.results, self.attacks = home / "results", home / "attacks"
        (record,) = Records(self.results).read().records
        self.exhibit: Exhibit = exhibit(record, Store(self.results, WorkerPool([Worker("train")])))
        self.truth = ctypes.create_string_buffer(json.dumps(dict(self.exhibit.truth)).encode())
        random.seed(record.seed)
        case = self.results / "runs" / "cases" / record.folder / "case.json"
        self.file = os.open(case, os.O_RDONLY)
        self.services = [socket.create_server(("127.0.0.1", 0)), socket.socket(socket.AF_UNIX)]
        (home / "service").unlink(missing_ok=True)
        self.services[1].bind(str(home / "service"))
        self.services[1].listen()
        for service in self.services:
            threading.Thread(target=self._serve, args=(service,), daemon=True).start()
        self.known = {
            **{"results": str(self.results), "start": str(home), "checkout": str(CHECKOUT)},
            **{"harness": os.getpid(), "address": ctypes.addressof(self.truth), "size": len(self.truth) - 1},
            **{"key": os.getpid(), "port": self.services[0].getsockname()[1], "path": str(home / "service")},
        }

    def _serve(self, service: socket.socket) -> None:
        while True:
            service.accept()[0].send(self.exhibit.truth["fault"].encode())

    def judge(self, name: str) -> Judge:
        declared = read_declaration(self.attacks / f"{name}.py")
        return Judge(name, declared.file, declared.access, {k: self.known[k] for k in declared.knobs})

    def inside(self, names: list[str]) -> Iterator[tuple[str, str, str]]:
        """Make each attack in this process."""
        for name in names:
            judge = self.judge(name)
            for _ in range(2):
                outcome, said = PREVENTED, ""
                try:
                    load_detector(judge.file)(**judge.knobs).diagnose(Trace(self.exhibit.trace))
                except NotApplicable as learned:
                    outcome, said = POSSIBLE, str(learned)
                except OSError as error:
                    said = repr(error)
            yield name, outcome, said

    def confined(self, names: list[str], level: str) -> Iterator[tuple[str, str, str]]:
        """Make each attack through the bench, with an honest detector after it."""
        worker = JudgingWorker(level, secrets(load(), self.results))
        bench = Bench(self.results, WorkerPool([worker]), judge_seconds=60)
        oracle = project_folder("detectors") / "oracle.py"
        told = bench.judge(self.exhibit, Judge("oracle", oracle, frozenset({"truth"}), {}), again=True)
        assert told["suspects"][0]["fault"] == self.exhibit.truth["fault"], told
        honest = bench.judge(self.exhibit, self.judge("honest"), again=True)
        assert honest["status"] == "not_applicable", honest
        for name in names:
            for _ in range(2):
                answer = bench.judge(self.exhibit, self.judge(name), again=True)
                assert answer["isolation"] == level, answer
            yield name, *self._outcome(answer, honest, bench.judge(self.exhibit, self.judge("honest"), again=True))
            if name in DISTURBING:
                worker.close()  # the next attack finds a sound server
        worker.close()

    def _outcome(self, answer: dict[str, Any], before: dict[str, Any], after: dict[str, Any]) -> tuple[str, str]:
        say = f"{answer['status']}: {answer['reason']}"
        same = [{**said, "seconds": 0} for said in (before, after)]
        if same[0] != same[1]:
            return POSSIBLE, f"{say}; and the next detector got {after['status']}: {after['reason']}"
        refused = answer["status"] == "crashed" and "Error: [Errno " in answer["reason"]
        missing = answer["status"] == "crashed" and answer["reason"].startswith("FileNotFoundError")
        silent = answer["status"] == "ok" and not answer["suspects"]
        return (PREVENTED if refused or missing or silent else POSSIBLE), say


DISTURBING = ("forged_answer", "killing")

if __name__ == "__main__":
    level, home, *names = sys.argv[1:-1]
    assert level in ("none", *LEVELS)
    attacked = Attacked(Path(home))
    found = attacked.inside(names) if level == "none" else attacked.confined(names, level)
    print(json.dumps({name: {"outcome": outcome, "said": said} for name, outcome, said in found}))
