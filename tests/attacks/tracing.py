"""The harness's memory, read by `process_vm_readv` and `ptrace`."""

import ctypes
import os
from dataclasses import dataclass

from bugbench.detector import Detector, Diagnosis, NotApplicable, Trace

PTRACE_DETACH, PTRACE_SEIZE = 17, 0x4206


class Piece(ctypes.Structure):
    _fields_ = [("address", ctypes.c_void_p), ("size", ctypes.c_size_t)]


@dataclass
class Tracing(Detector):
    """Debuggers read another process's memory without a file; this one knows the process and the place."""

    access = {"curves"}
    harness: int = 0  # its process number, as seen from outside
    address: int = 0  # where in its memory the truth lies
    size: int = 0  # bytes

    def diagnose(self, trace: Trace) -> Diagnosis:
        libc = ctypes.CDLL(None, use_errno=True)
        here = ctypes.create_string_buffer(self.size)
        near = Piece(ctypes.addressof(here), self.size)
        far = Piece(self.address, self.size)
        if libc.process_vm_readv(self.harness, ctypes.byref(near), 1, ctypes.byref(far), 1, 0) == self.size:
            raise NotApplicable(f"learned {here.raw.decode()}")
        if libc.ptrace(PTRACE_SEIZE, self.harness, None, None) == 0:
            libc.ptrace(PTRACE_DETACH, self.harness, None, None)
            raise NotApplicable("learned how to trace the harness")
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
