"""How a file is known again without reading it: where it really lies, its inode, size and times."""

from __future__ import annotations

import functools
import os
from stat import S_ISLNK
from typing import NamedTuple

TRUST_SECONDS = 2.0


class Stamp(NamedTuple):
    """What a file's unchanged content shows by: inode, size in bytes, and two times in nanoseconds."""

    inode: int
    size: int
    mtime_ns: int
    ctime_ns: int

    @classmethod
    def of(cls, stat: os.stat_result) -> Stamp:
        """Take the stamp from ``os.stat``."""
        return cls(stat.st_ino, stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns)

    def settled(self, at: float) -> bool:
        """Whether both times were more than two seconds old at ``at`` (seconds since the epoch).

        A younger file may be written again within the clock's tick and look the same.
        """
        return at - max(self.mtime_ns, self.ctime_ns) / 1e9 > TRUST_SECONDS


def identified(path: str) -> tuple[str, Stamp]:
    """A file's real path and its stamp, with one look at the file where it is no link."""
    folder, name = os.path.split(path)
    stat = os.lstat(path)
    if S_ISLNK(stat.st_mode):
        return os.path.realpath(path), Stamp.of(os.stat(path))
    return os.path.join(_real_folder(folder), name), Stamp.of(stat)


@functools.lru_cache(maxsize=1024)
def _real_folder(folder: str) -> str:
    """Cached, for a table's files lie in few folders; a folder's link that changes shows by the inodes."""
    return os.path.realpath(folder)
