import json
import shutil
import tarfile
from contextlib import nullcontext

import pytest

from tests.support.vendor import LIST, VENDOR, digest_of, listed, unpack, wrong_files


def test_other_peoples_code_is_what_is_listed_and_nothing_else():
    assert wrong_files() == []


def test_each_package_has_its_version_its_digest_and_its_licence():
    for name, package in listed().items():
        assert package["version"].count(".") == 2, name
        assert package["integrity"].startswith("sha512-"), name
        licences = [file for file in package["files"] if file.endswith("LICENSE.txt")]
        assert len(licences) == 1, name
        assert "opyright" in (VENDOR / licences[0]).read_text(), name


def test_a_changed_a_missing_and_a_further_file_are_found(tmp_path):
    folder = tmp_path / "vendor"
    shutil.copytree(VENDOR, folder)
    changed, missing = [file for package in listed().values() for file in package["files"]][:2]
    (folder / changed).write_text("changed")
    (folder / missing).unlink()
    (folder / "further.js").write_text("")
    assert wrong_files(folder) == sorted([changed, missing, "further.js"])


@pytest.mark.parametrize(("digest", "written"), [(digest_of(b"code"), True), ("sha512-x", False)])
def test_only_files_with_the_listed_digests_are_written(tmp_path, digest, written):
    (tmp_path / "a.js").write_bytes(b"code")
    with tarfile.open(tmp_path / "a.tgz", "w:gz") as archive:
        archive.add(tmp_path / "a.js", "package/lib/a.js")
    package = {"files": {"a/a.js": {"from": "lib/a.js", "integrity": digest}}}
    with nullcontext() if written else pytest.raises(AssertionError, match="another file"):
        unpack(tmp_path / "a.tgz", package, tmp_path / "out")
    assert (tmp_path / "out" / "a" / "a.js").exists() == written


def test_the_list_is_written_as_it_would_be_by_hand():
    assert LIST.read_text() == f"{json.dumps(listed(), indent=2)}\n"
