"""What others could have put into a folder, or put in its place, is not trusted."""

from __future__ import annotations

import os
import stat
from collections.abc import Callable
from pathlib import Path

import pytest

from provider.runtime.folders import make_private, refuse_others

NOBODY = 65534
as_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a folder away")


def mode(folder: Path) -> int:
    return stat.S_IMODE(folder.stat().st_mode)


def test_a_folder_is_made_and_one_of_the_users_own_is_closed_to_others(tmp_path: Path) -> None:
    made, open_to_read = tmp_path / "a" / "b" / "made", tmp_path / "read"
    open_to_read.mkdir()
    open_to_read.chmod(0o755)
    for folder in (made, open_to_read, made):
        make_private(folder)
        assert mode(folder) == 0o700


def linked(folder: Path) -> None:
    elsewhere = folder.parents[1] / "elsewhere"
    elsewhere.mkdir()
    folder.symlink_to(elsewhere)


def a_file(folder: Path) -> None:
    folder.write_text("")


def open_to_write(folder: Path) -> None:
    folder.mkdir()
    folder.chmod(0o777)


def in_an_open_folder(folder: Path) -> None:
    folder.parent.chmod(0o777)


def below_an_open_folder(folder: Path) -> None:
    folder.parents[1].chmod(0o777)


def anothers(folder: Path) -> None:
    folder.mkdir(mode=0o700)
    os.chown(folder, NOBODY, NOBODY)


def in_anothers(folder: Path) -> None:
    os.chown(folder.parent, NOBODY, NOBODY)


@pytest.mark.parametrize(
    "spoil",
    [
        linked,
        a_file,
        open_to_write,
        in_an_open_folder,
        below_an_open_folder,
        pytest.param(anothers, marks=as_root),
        pytest.param(in_anothers, marks=as_root),
    ],
    ids=lambda spoil: str(spoil.__name__),
)
def test_a_folder_that_others_can_change_is_refused(
    tmp_path: Path, spoil: Callable[[Path], None]
) -> None:
    folder = tmp_path / "above" / "between" / "folder"
    folder.parent.mkdir(parents=True)
    spoil(folder)
    with pytest.raises(OSError, match="folder"):
        make_private(folder)


def test_in_a_sticky_folder_of_all_a_private_one_can_be_made(tmp_path: Path) -> None:
    tmp_path.chmod(0o1777)
    make_private(tmp_path / "folder")
    with pytest.raises(PermissionError, match="another user can write"):
        refuse_others(tmp_path)
