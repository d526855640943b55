"""Linux namespaces: give a process a file system, processes and a network of its own, without any privilege.

See namespaces(7), user_namespaces(7), mount_setattr(2), pivot_root(2). A process enters in two steps. A fork server
calls :func:`enter` once, before it has threads: from then on it sees only the paths it was given, read-only, and no
network. Its children call :func:`enter_child` each: own process numbers, own ``/proc``, an empty scratch folder, no
capability. Mounts made before a process gave up its capabilities stay as they are for it, also in a user namespace that
it makes itself: what is masked cannot be unmasked.
"""

import contextlib
import ctypes
import os
import platform
import re
import resource
import signal
from collections.abc import Iterable
from pathlib import Path

CLONE_NEWNS, CLONE_NEWUTS, CLONE_NEWIPC = 0x00020000, 0x04000000, 0x08000000
CLONE_NEWUSER, CLONE_NEWPID, CLONE_NEWNET = 0x10000000, 0x20000000, 0x40000000
MS_RDONLY, MS_NOSUID, MS_NODEV, MS_NOEXEC, MS_BIND, MS_REC, MS_PRIVATE = 1, 2, 4, 8, 4096, 16384, 1 << 18
MNT_DETACH = 2
AT_FDCWD, AT_RECURSIVE = -100, 0x8000
MOUNT_ATTR_RDONLY, MOUNT_ATTR_NOSUID = 1, 2
PR_SET_PDEATHSIG, PR_CAPBSET_DROP, PR_SET_NO_NEW_PRIVS = 1, 24, 38
LAST_CAPABILITY = 63  # of any kernel; dropping one that does not exist fails and is ignored
SYS_MOUNT_SETATTR = 442
SYS_PIVOT_ROOT = {"x86_64": 155, "aarch64": 41, "riscv64": 41, "loongarch64": 41, "ppc64le": 203, "s390x": 217}
DEVICES = ("null", "zero", "full", "random", "urandom")
SCRATCH_SIZE, SCRATCH_FILES = "512m", 100_000
MAX_TASKS = 500  # processes and threads of a child, so that some are ended that fork faster than they are counted

_libc = ctypes.CDLL(None, use_errno=True)


class _MountAttributes(ctypes.Structure):
    _fields_ = [(name, ctypes.c_uint64) for name in ("attr_set", "attr_clr", "propagation", "userns_fd")]


def enter(readable: Iterable[Path], hidden: Iterable[Path], places: Iterable[Path]) -> None:
    """Leave the file system behind but for ``readable``; the process goes on in a child of its own process namespace.

    Args:
        readable: absolute paths that stay visible where they are, read-only.
        hidden: paths below readable ones that become empty folders; of two nested paths, the deeper one decides.
        places: absolute paths that become empty folders, for children to mount something on.

    Raises:
        OSError: the system does not allow it; the process is then unusable and must be replaced.
    """
    user, group = os.getuid(), os.getgid()
    _check(_libc.unshare(CLONE_NEWUSER | CLONE_NEWNS | CLONE_NEWPID | CLONE_NEWIPC | CLONE_NEWUTS | CLONE_NEWNET))
    Path("/proc/self/setgroups").write_text("deny")
    Path("/proc/self/uid_map").write_text(f"{user} {user} 1")
    Path("/proc/self/gid_map").write_text(f"{group} {group} 1")
    _build_root(list(readable), list(hidden), list(places))
    if child := os.fork():  # the process namespace begins with the next child
        _, status = os.waitpid(child, 0)
        os._exit(os.waitstatus_to_exitcode(status) & 0xFF)
    die_with_parent()
    _mount("proc", "/proc", "proc", MS_NOSUID | MS_NODEV | MS_NOEXEC)


def next_child_has_own_processes() -> None:
    """Give this process's next child, and only it, a process namespace in which it is the first and only process."""
    _check(_libc.unshare(CLONE_NEWPID))


def enter_child(scratch: Path, folder: Path, place: Path, desk: Path) -> None:
    """In a child of the fork server: own mounts and ``/proc``, and no capability any more.

    Args:
        scratch: becomes empty and writable.
        folder: is shown at ``place`` …
        place: … which is an empty folder.
        desk: the folder around it, with others' folders, becomes empty.
    """
    _check(_libc.unshare(CLONE_NEWNS | CLONE_NEWIPC))
    _mount("proc", "/proc", "proc", MS_NOSUID | MS_NODEV | MS_NOEXEC)
    _limit_tasks()
    _read_only("/proc", recursive=False)  # root may write the machine's settings in /proc/sys without any capability
    for path in (scratch, Path("/dev/shm")):
        mount_scratch(path)
    _mount(str(folder), str(place), None, MS_BIND)
    _mount("tmpfs", str(desk), "tmpfs", MS_NOSUID | MS_NODEV | MS_RDONLY, "mode=755")
    drop_capabilities()


def _limit_tasks() -> None:
    """Let this process namespace hold :data:`MAX_TASKS` at most, where the kernel counts them for each namespace.

    For root it does since Linux 6.14 (``pid_max``; before, the file is the whole machine's), for others since 5.14.
    A lower limit stays; where a security module forbids the file, processes are counted from outside alone.
    """
    release = tuple(int(number) for number in re.findall(r"\d+", platform.release())[:2])
    if os.getuid() and release >= (5, 14):
        allowed = resource.getrlimit(resource.RLIMIT_NPROC)[1]  # -1: without end
        tasks = MAX_TASKS if allowed == resource.RLIM_INFINITY else min(allowed, MAX_TASKS)
        resource.setrlimit(resource.RLIMIT_NPROC, (tasks, tasks))
    elif not os.getuid() and release >= (6, 14):
        with contextlib.suppress(PermissionError):
            Path("/proc/sys/kernel/pid_max").write_text(str(MAX_TASKS))


def mount_scratch(path: Path) -> None:
    """Make the folder at ``path`` empty and writable, with a limit on what it may hold."""
    options = f"size={SCRATCH_SIZE},nr_inodes={SCRATCH_FILES},mode=700"
    _mount("tmpfs", str(path), "tmpfs", MS_NOSUID | MS_NODEV, options)


def drop_capabilities() -> None:
    """Give up every capability for good, for this process and what it executes; see capabilities(7)."""
    for capability in range(LAST_CAPABILITY + 1):
        _libc.prctl(PR_CAPBSET_DROP, capability, 0, 0, 0)
    no_new_privileges()
    header = (ctypes.c_uint32 * 2)(0x20080522, 0)  # _LINUX_CAPABILITY_VERSION_3, this process
    _check(_libc.capset(header, (ctypes.c_uint32 * 6)()))


def no_new_privileges() -> None:
    _check(_libc.prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0))


def die_with_parent() -> None:
    _check(_libc.prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0))


def _build_root(readable: list[Path], hidden: list[Path], places: list[Path]) -> None:
    paths = {**dict.fromkeys(readable, True), **dict.fromkeys(hidden, False)}
    real = {path: os.path.realpath(path) for path in readable}  # links lead elsewhere once the root has changed
    links = {path: real[path] for path in readable if str(path) != real[path] and Path(real[path]) in real}
    for link in links:
        del paths[link]
    _mount(None, "/", None, MS_REC | MS_PRIVATE)
    root = "/tmp"  # any folder will do: the new root covers it in this namespace only
    _mount("tmpfs", root, "tmpfs", MS_NOSUID, "mode=755")
    for folder in ("old", "proc", "dev"):
        os.mkdir(f"{root}/{folder}")
    _check(_libc.syscall(_pivot_root_number(), root.encode(), f"{root}/old".encode()))
    os.chdir("/")
    for name in DEVICES:
        _bind(f"/old/dev/{name}", Path("/dev") / name)
    Path("/dev/shm").mkdir()
    _mount("/old/proc", "/proc", None, MS_BIND | MS_REC)  # a new /proc may be mounted only where one is in sight
    for path in sorted(paths, key=lambda path: len(path.parts)):
        if paths[path] and os.path.exists(f"/old{real[path]}"):
            _bind(f"/old{real[path]}", path)
            _read_only(str(path), recursive=True)
        elif not paths[path] and path.is_dir():
            _mount("tmpfs", str(path), "tmpfs", MS_NOSUID | MS_NODEV, "mode=755")
    for link, target in sorted(links.items()):  # a second mount would show again what is hidden in the first
        if not os.path.lexists(link):
            link.parent.mkdir(parents=True, exist_ok=True)
            link.symlink_to(target)
    for place in places:
        place.mkdir(parents=True, exist_ok=True)
    _check(_libc.umount2(b"/old", MNT_DETACH))
    os.rmdir("/old")
    for path in [*hidden, Path("/")]:
        if path.is_dir():
            _read_only(str(path), recursive=False)


def _bind(source: str, target: Path) -> None:
    if os.path.isdir(source):
        target.mkdir(parents=True, exist_ok=True)
    elif not target.exists():
        target.parent.mkdir(parents=True, exist_ok=True)
        target.touch()
    _mount(source, str(target), None, MS_BIND | MS_REC)


def _read_only(path: str, recursive: bool) -> None:
    attributes = _MountAttributes(attr_set=MOUNT_ATTR_RDONLY | MOUNT_ATTR_NOSUID)
    size, flags = ctypes.sizeof(attributes), AT_RECURSIVE if recursive else 0
    _check(_libc.syscall(SYS_MOUNT_SETATTR, AT_FDCWD, path.encode(), flags, ctypes.byref(attributes), size), path)


def _mount(source: str | None, target: str, kind: str | None, flags: int, options: str | None = None) -> None:
    words = [None if w is None else w.encode() for w in (source, target, kind, options)]
    _check(_libc.mount(words[0], words[1], words[2], ctypes.c_ulong(flags), words[3]), target)


def _pivot_root_number() -> int:
    if platform.machine() not in SYS_PIVOT_ROOT:
        raise OSError(f"pivot_root's number is not known for {platform.machine()}")
    return SYS_PIVOT_ROOT[platform.machine()]


def _check(result: int, what: str | None = None) -> None:
    if result == -1:
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code), what)
