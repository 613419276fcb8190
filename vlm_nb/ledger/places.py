"""Where a ledger lies: SQLite's WAL needs memory shared between processes; network file systems lack it."""

from __future__ import annotations

import os
import sys
from pathlib import Path

_NETWORK = {"nfs", "nfs4", "cifs", "smb", "smb2", "smb3", "smbfs", "afs", "afpfs", "9p", "ceph", "lustre"}
_NETWORK |= {
    "gpfs",
    "glusterfs",
    "beegfs",
    "webdav",
    "davfs",
    "virtiofs",
    "fuse.sshfs",
    "fuse.s3fs",
    "fuse.gcsfuse",
}
_NETWORK |= {"fuse.rclone", "fuse.glusterfs", "fuse.juicefs", "fuse.ceph"}
_MOUNTS = Path("/proc/self/mounts")


def on_network(path: Path) -> bool:
    """Whether ``path`` (which need not exist) lies on a network file system, as far as the system tells."""
    real = os.path.realpath(path)
    if sys.platform == "win32":
        return real.startswith(("\\\\", "//"))
    return _file_system(real) in _NETWORK


def _file_system(real: str) -> str | None:
    """The type of the deepest mount above ``real``; None where there is no table of mounts."""
    try:
        lines = _MOUNTS.read_text(encoding="utf-8", errors="surrogateescape").splitlines()
    except OSError:
        return None
    best, kind = "", None
    for fields in (line.split(" ") for line in lines):
        point = fields[1].replace("\\040", " ")
        if len(point) >= len(best) and (real == point or real.startswith(point.rstrip("/") + "/")):
            best, kind = point, fields[2]
    return kind
