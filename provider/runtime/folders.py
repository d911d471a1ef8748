"""Folders into which no other user of the machine can put files, for what this process trusts."""

from __future__ import annotations

import os
import stat
from pathlib import Path

__all__ = ["make_private", "refuse_others"]


def make_private(folder: Path) -> None:
    """Make a folder that only this user may use, or close one of theirs to others.

    Raises OSError if there can be none: it is a link or another user's, others can write to it, or
    they could put something else in its place.
    """
    folder.parent.mkdir(parents=True, exist_ok=True)
    for parent in folder.parents[:2]:
        refuse_others(parent, sticky=True)
    folder.mkdir(mode=0o700, exist_ok=True)
    found = folder.lstat()
    if not stat.S_ISDIR(found.st_mode):
        raise NotADirectoryError(f"`{folder}` is a link or a file, and must be a folder")
    if found.st_uid != os.geteuid() or _others_write(found):
        raise PermissionError(f"`{folder}` is not this user's alone")
    if found.st_mode & 0o077:
        folder.chmod(0o700)


def refuse_others(folder: Path, *, sticky: bool = False) -> None:
    """Raise PermissionError if a folder is another user's, but not root's, or open to others.

    With `sticky`, they may if it is one in which nobody can rename what is another's.
    """
    found = folder.stat()
    allowed = sticky and found.st_mode & stat.S_ISVTX
    if found.st_uid not in (0, os.geteuid()) or (_others_write(found) and not allowed):
        raise PermissionError(f"another user can write to `{folder}`")


def _others_write(found: os.stat_result) -> bool:
    """Return whether others may write; this user's own group is mostly theirs alone."""
    group = stat.S_IWGRP if found.st_gid != os.getegid() else 0
    return bool(found.st_mode & (stat.S_IWOTH | group))
