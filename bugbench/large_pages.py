"""Large memory pages: a process that is often forked, and holds torch, has fewer page tables to copy.

Every fork copies the tables of all its memory, and every end of a child gives them back, which is a good part of the
time that a diagnosis takes beyond the detector's own. One entry stands for 2 MiB then instead of 4 KiB; what a child
writes to is copied in pieces of 4 KiB all the same.
"""

import contextlib
import ctypes
import re
from pathlib import Path

SIZE = 2**21  # bytes of a large page on x86-64, and on ARM with pages of 4 KiB; elsewhere the kernel declines
MADV_COLLAPSE = 25  # madvise(2), since Linux 6.1
REGION = re.compile(r"([0-9a-f]+)-([0-9a-f]+) rw-p \S+ \S+ 0 *(?:\[heap\])?$")  # private memory of no file: proc(5)


def join_pages(maps: Path = Path("/proc/self/maps")) -> int:
    """Have this process's memory joined to large pages, where the kernel can.

    That takes a quarter of a second, and next to nothing where nothing is new.

    Returns:
        The bytes of memory for which the kernel was asked.
    """
    asked = 0
    with contextlib.suppress(OSError, AttributeError):  # not Linux, or a C library without madvise
        madvise = ctypes.CDLL(None).madvise
        madvise.argtypes = (ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int)
        for line in maps.read_text().splitlines():
            if region := REGION.match(line):
                start, end = (int(address, 16) for address in region.groups())
                start, end = -(-start // SIZE) * SIZE, end // SIZE * SIZE
                if start < end:  # one call for all pages of a region: each call waits for all cores
                    madvise(start, end - start, MADV_COLLAPSE)
                    asked += end - start
    return asked
