"""A process that outlives the diagnosis and answers the next detector at an abstract socket."""

import os
import signal
import socket
from dataclasses import dataclass

from bugbench.detector import HEALTHY, Detector, Diagnosis, NotApplicable, Trace


@dataclass
class ProcessLeftBehind(Detector):
    """Two forks and a session of its own: no wait for its parent ends it."""

    access = {"curves"}
    key: int = 0  # that both have agreed on

    def diagnose(self, trace: Trace) -> Diagnosis:
        address = f"\0left-behind-{self.key}"
        try:
            with socket.socket(socket.AF_UNIX) as other:
                other.connect(address)
                raise NotApplicable(f"learned {other.recv(100).decode()}")
        except ConnectionRefusedError:
            pass
        listening = socket.socket(socket.AF_UNIX)
        listening.bind(address)
        listening.listen()
        if (child := os.fork()) == 0:
            os.setsid()
            if os.fork() == 0:
                signal.alarm(60)  # where nobody else ends it
                listening.accept()[0].send(b"softmax_dim")
            os._exit(0)
        os.waitpid(child, 0)
        return HEALTHY
