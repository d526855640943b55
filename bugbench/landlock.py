"""Landlock: take from a process every file but some, without namespaces and without any privilege; see landlock(7).

Weaker than namespaces: a process still sees which processes and which of the paths it can name exist, but it can open
none of them, and neither connect to a network nor signal what is outside (from versions 4 and 6 of the interface on).
"""

import ctypes
import os
from collections.abc import Iterable
from pathlib import Path

from bugbench.namespaces import drop_capabilities

SYS_CREATE_RULESET, SYS_ADD_RULE, SYS_RESTRICT_SELF = 444, 445, 446
CREATE_RULESET_VERSION = 1
RULE_PATH_BENEATH = 1
EXECUTE, WRITE_FILE, READ_FILE, READ_DIR = 1, 2, 4, 8
READ = EXECUTE | READ_FILE | READ_DIR
FILE_ONLY = EXECUTE | WRITE_FILE | READ_FILE | 1 << 14  # the rights that a rule on a file may grant
DEVICES = 1 << 6 | 1 << 11  # to make character and block devices
FILE_RIGHTS = {1: (1 << 13) - 1, 2: (1 << 14) - 1, 3: (1 << 15) - 1}  # by version of the interface
NETWORK_RIGHTS = 3  # bind and connect TCP, from version 4 on
SCOPES = 3  # abstract sockets and signals, from version 6 on

_libc = ctypes.CDLL(None, use_errno=True)


class _Ruleset(ctypes.Structure):
    _fields_ = [(name, ctypes.c_uint64) for name in ("files", "network", "scoped")]


class _PathBeneath(ctypes.Structure):
    _pack_ = 1
    _layout_ = "ms"
    _fields_ = [("allowed", ctypes.c_uint64), ("folder", ctypes.c_int32)]


def version() -> int:
    """Return the version of the kernel's Landlock interface, 0 if there is none."""
    return max(_libc.syscall(SYS_CREATE_RULESET, None, 0, CREATE_RULESET_VERSION), 0)


def restrict(readable: Iterable[Path], listable: Iterable[Path], writable: Iterable[Path]) -> None:
    """Take from this process, for good, every file and every privilege but these.

    Args:
        readable: all below them can be read and executed.
        listable: folders of which, and below which, names can be listed.
        writable: regular files, folders, links, pipes and sockets can be made and changed there; no devices.

    Raises:
        OSError: the kernel has no Landlock, or it is turned off.
    """
    number = version()
    rights = FILE_RIGHTS[min(max(number, 1), 3)]
    ruleset = _Ruleset(rights, NETWORK_RIGHTS if number >= 4 else 0, SCOPES if number >= 6 else 0)
    size = 24 if number >= 6 else 16 if number >= 4 else 8
    file = _check(_libc.syscall(SYS_CREATE_RULESET, ctypes.byref(ruleset), size, 0))
    for paths, allowed in ((readable, READ), (listable, READ_DIR), (writable, rights & ~DEVICES)):
        for path in paths:
            _allow(file, path, allowed & rights)
    drop_capabilities()  # a superuser's reach past files
    _check(_libc.syscall(SYS_RESTRICT_SELF, file, 0))
    os.close(file)


def _allow(ruleset: int, path: Path, allowed: int) -> None:
    try:
        folder = os.open(path, os.O_PATH | os.O_CLOEXEC)
    except OSError:  # what is not there needs no rule
        return
    rule = _PathBeneath(allowed if os.path.isdir(path) else allowed & FILE_ONLY, folder)
    _check(_libc.syscall(SYS_ADD_RULE, ruleset, RULE_PATH_BENEATH, ctypes.byref(rule), 0))
    os.close(folder)


def _check(result: int) -> int:
    if result == -1:
        code = ctypes.get_errno()
        raise OSError(code, f"Landlock: {os.strerror(code)}")
    return result
