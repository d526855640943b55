"""A message to the next detector: shared memory, System V memory and semaphores, message queues, keys."""

import ctypes
import platform
from dataclasses import dataclass

from bugbench.detector import HEALTHY, Detector, Diagnosis, NotApplicable, Trace

CREATE, REMOVE, USER_KEYS, REVOKE = 0o1000, 0, -4, 3
NUMBERS = {"x86_64": (248, 249, 250)}  # of add_key, request_key, keyctl; younger architectures share theirs
ADD_KEY, REQUEST_KEY, KEYCTL = NUMBERS.get(platform.machine(), (217, 218, 219))


@dataclass
class MessageInSharedMemory(Detector):
    """These outlive the process that made them."""

    access = {"curves"}
    key: int = 0  # that both have agreed on

    def diagnose(self, trace: Trace) -> Diagnosis:
        libc = ctypes.CDLL(None, use_errno=True)
        name, found = f"/left-behind-{self.key}".encode(), []
        if (memory := libc.shmget(self.key, 1, 0o600)) >= 0:
            found.append("System V memory")
            libc.shmctl(memory, REMOVE, None)
        if (semaphore := libc.semget(self.key, 1, 0o600)) >= 0:
            found.append("a System V semaphore")
            libc.semctl(semaphore, 0, REMOVE)
        if libc.shm_unlink(name) == 0:
            found.append("shared memory")
        if libc.mq_unlink(name) == 0:
            found.append("a message queue")
        if (key := libc.syscall(REQUEST_KEY, b"user", name, None, USER_KEYS)) >= 0:
            found.append("a key")
            libc.syscall(KEYCTL, REVOKE, key)
        if found:
            raise NotApplicable(f"learned from {', '.join(found)}")
        libc.shmget(self.key, 1, 0o600 | CREATE)
        libc.semget(self.key, 1, 0o600 | CREATE)
        libc.shm_open(name, 0o102, 0o600)
        libc.mq_open(name, 0o102, 0o600, None)
        libc.syscall(ADD_KEY, b"user", name, b"softmax_dim", 11, USER_KEYS)
        return HEALTHY
