"""Take system calls from a process for good, without any privilege; see seccomp(2).

Namespaces and Landlock say which files, processes and networks there are. Some calls reach past both: keys and System V
memory outlive a process, so that one diagnosis could leave word for the next.
"""

import ctypes
import errno
import os
import platform
import struct

PR_SET_SECCOMP, PR_GET_SECCOMP, FILTER = 22, 21, 2
LOAD, EQUAL, AT_LEAST, RETURN = 0x20, 0x15, 0x35, 0x06
NUMBER, ARCHITECTURE = 0, 4  # places in struct seccomp_data
ALLOW, ANSWER, KILL = 0x7FFF0000, 0x00050000, 0x80000000
X32 = 0x40000000  # x86_64 has every call a second time, from this number on

X86_64, GENERIC = 0, 1  # columns; most younger architectures share their numbers
ARCHITECTURES = {
    "x86_64": (0xC000003E, X86_64),
    "aarch64": (0xC00000B7, GENERIC),
    "riscv64": (0xC00000F3, GENERIC),
    "loongarch64": (0xC0000102, GENERIC),
}
NEVER = {  # name: numbers; these fail with EPERM
    **{"add_key": (248, 217), "request_key": (249, 218), "keyctl": (250, 219)},
    **{"shmget": (29, 194), "semget": (64, 190), "msgget": (68, 186), "mq_open": (240, 180)},
    **{"ptrace": (101, 117), "process_vm_readv": (310, 270), "process_vm_writev": (311, 271), "kcmp": (312, 272)},
    **{"unshare": (272, 97), "setns": (308, 268), "mount": (165, 40), "umount2": (166, 39), "pivot_root": (155, 41)},
    **{"open_tree": (428, 428), "move_mount": (429, 429), "fsopen": (430, 430), "fsmount": (432, 432)},
    **{"fspick": (433, 433), "mount_setattr": (442, 442), "pidfd_getfd": (438, 438), "userfaultfd": (323, 282)},
    **{"bpf": (321, 280), "perf_event_open": (298, 241), "io_uring_setup": (425, 425)},
}
WITHOUT_NETWORK = {"socket": (41, 198)}  # Landlock knows TCP only; socketpair stays
LEFT_ALONE = {  # these do nothing and say that they did: Landlock has no say in them, and honest tools call them
    **{"chmod": (90, None), "fchmod": (91, 52), "fchmodat": (268, 53), "fchmodat2": (452, 452)},
    **{"chown": (92, None), "lchown": (94, None), "fchown": (93, 55), "fchownat": (260, 54)},
    **{"utime": (132, None), "utimes": (235, None), "futimesat": (261, None), "utimensat": (280, 88)},
    **{"setxattr": (188, 5), "lsetxattr": (189, 6), "fsetxattr": (190, 7), "setxattrat": (463, 463)},
}

_libc = ctypes.CDLL(None, use_errno=True)


class _Program(ctypes.Structure):
    _fields_ = [("length", ctypes.c_ushort), ("instructions", ctypes.c_char_p)]


def check() -> None:
    """Raise an OSError where :func:`deny` would not work."""
    if platform.machine() not in ARCHITECTURES:
        raise OSError(f"the numbers of system calls are not known for {platform.machine()}")
    if _libc.prctl(PR_GET_SECCOMP, 0, 0, 0, 0) == -1:
        raise OSError("this kernel has no seccomp")


def deny(beyond_files: bool = False) -> None:
    """Take from this process, which can get no new privileges, what no detector needs.

    Args:
        beyond_files: for a process that namespaces do not confine: sockets too, and changing the mode, owner and time
            stamps of files that others use.
    """
    code, column = ARCHITECTURES[platform.machine()]
    answers = {numbers[column]: errno.EPERM for numbers in NEVER.values()}
    if beyond_files:
        answers |= {numbers[column]: errno.EPERM for numbers in WITHOUT_NETWORK.values()}
        answers |= {number: 0 for numbers in LEFT_ALONE.values() if (number := numbers[column]) is not None}
    steps = [(LOAD, 0, 0, ARCHITECTURE), (EQUAL, 1, 0, code), (RETURN, 0, 0, KILL), (LOAD, 0, 0, NUMBER)]
    if column == X86_64:
        steps += [(AT_LEAST, 0, 1, X32), (RETURN, 0, 0, KILL)]
    for number, error in sorted(answers.items()):
        steps += [(EQUAL, 0, 1, number), (RETURN, 0, 0, ANSWER | error)]
    steps.append((RETURN, 0, 0, ALLOW))
    program = _Program(len(steps), b"".join(struct.pack("=HBBI", *step) for step in steps))
    if _libc.prctl(PR_SET_SECCOMP, FILTER, ctypes.byref(program), 0, 0):
        raise OSError(ctypes.get_errno(), f"seccomp: {os.strerror(ctypes.get_errno())}")
