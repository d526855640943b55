"""Connections: to a service of this machine by TCP and by a Unix socket, and to the network outside."""

import contextlib
import socket
from dataclasses import dataclass

from bugbench.detector import HEALTHY, Detector, Diagnosis, NotApplicable, Trace


@dataclass
class Network(Detector):
    """A dashboard that shows the sweep, a database of results, a language model that knows this benchmark."""

    access = {"curves"}
    port: int = 0
    path: str = ""

    def diagnose(self, trace: Trace) -> Diagnosis:
        places = ((socket.AF_INET, ("127.0.0.1", self.port)), (socket.AF_UNIX, self.path))
        for family, address in places:
            with contextlib.suppress(OSError), socket.socket(family) as service:
                service.settimeout(10)
                service.connect(address)
                raise NotApplicable(f"learned {service.recv(100).decode()}")
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as outside, contextlib.suppress(OSError):
            outside.connect(("192.0.2.1", 53))  # sends nothing: is there a way out?
            raise NotApplicable("learned of a way out")
        return HEALTHY
