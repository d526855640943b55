"""Large pages: what is joined is the process's own memory, and it holds what it held."""

import sys
from pathlib import Path

import numpy as np
import pytest
from bugbench.large_pages import REGION, SIZE, join_pages

MAPS = """\
55d0c8a00000-55d0c8e00000 rw-p 00000000 00:00 0                          [heap]
7f0000000000-7f0000800000 rw-p 00000000 00:00 0 
7f0000800000-7f0000a00000 r--p 00000000 00:00 0 
7f0000a00000-7f0000c00000 rw-p 00001000 fe:00 1234                       /usr/lib/libtorch.so
7f0000c00000-7f0000e00000 rw-s 00000000 00:01 77                         /dev/shm/shared
7ffd00000000-7ffd00021000 rw-p 00000000 00:00 0                          [stack]
"""


def test_only_private_memory_of_no_file_is_joined() -> None:
    found = [REGION.match(line) is not None for line in MAPS.splitlines()]
    assert found == [True, True, False, False, False, False]


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="a call of Linux")
def test_memory_holds_what_it_held() -> None:
    values = np.arange(8 * SIZE // 8)
    assert join_pages() >= values.nbytes - 2 * SIZE
    assert (values == np.arange(8 * SIZE // 8)).all()


def test_where_there_is_no_such_file_nothing_is_joined(tmp_path: Path) -> None:
    assert join_pages(tmp_path / "maps") == 0
