"""Names, times, owners and links of the files of its trace."""

import re
from dataclasses import dataclass

from bugbench.detector import HEALTHY, Detector, Diagnosis, NotApplicable, Trace

NAMES = r"(meta\.json|error\.txt|(steps|metrics)\.parquet)"  # what an access of "curves" gives


@dataclass
class TraceMetadata(Detector):
    """A time stamp tells which of two runs came first, a second link that the file is also elsewhere."""

    access = {"curves"}

    def diagnose(self, trace: Trace) -> Diagnosis:
        paths = sorted(trace.folder.rglob("*"))
        if others := [path.name for path in paths if not re.fullmatch(NAMES, path.name)]:
            raise NotApplicable(f"learned of {others}")
        if inner := re.search(r"\b[0-9a-f]{24}\b|seed-\d", str(trace.folder.resolve())):
            raise NotApplicable(f"learned the name {inner[0]}")
        for about in (path.stat() for path in [trace.folder, *paths]):
            if about.st_mtime or (about.st_nlink > 1 and about.st_ino != trace.folder.stat().st_ino):
                raise NotApplicable(f"learned when the run ended: {about.st_mtime}")
        return HEALTHY
