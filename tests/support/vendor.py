"""Fetch other people's code that the page uses: `python -m tests.support.vendor`, or `make vendor`.

`web_demo/vendor/vendored.json` names each package, its version, the digest of its archive and the
files that are taken of it, each with its own digest. The archives come from npm's registry.
"""

from __future__ import annotations

import base64
import hashlib
import json
import os
import subprocess
import sys
import tarfile
import tempfile
from pathlib import Path

VENDOR = Path(__file__).parents[2] / "web_demo" / "vendor"
LIST = VENDOR / "vendored.json"


def digest_of(body):
    """Return a digest in the form of npm's `integrity`."""
    return f"sha512-{base64.b64encode(hashlib.sha512(body).digest()).decode()}"


def listed(path=LIST):
    """Return what is taken of each package, by the package's name."""
    return json.loads(path.read_text())


def wrong_files(folder=VENDOR):
    """Return the files that are missing, not as they are listed, or not listed."""
    expected = {
        name: file["integrity"]
        for package in listed(folder / LIST.name).values()
        for name, file in package["files"].items()
    }
    there = {
        str(path.relative_to(folder)): digest_of(path.read_bytes())
        for path in folder.rglob("*")
        if path.is_file() and path.name != LIST.name
    }
    return sorted(name for name in expected | there if expected.get(name) != there.get(name))


def fetched(name, package, folder):
    """Download a package's archive to a folder; return its path once its digest is right."""
    npm = Path(sys.executable).with_name("npm")
    path = f"{npm.parent}{os.pathsep}{os.environ['PATH']}"
    given = [npm, "pack", "--silent", "--pack-destination", folder, f"{name}@{package['version']}"]
    done = subprocess.run(
        given, check=True, capture_output=True, text=True, env={**os.environ, "PATH": path}
    )
    archive = folder / done.stdout.split()[-1]
    assert digest_of(archive.read_bytes()) == package["integrity"], f"{name}: another archive"
    return archive


def unpack(archive, package, folder):
    """Write the files that are taken of an archive."""
    with tarfile.open(archive) as held:
        for name, file in package["files"].items():
            body = held.extractfile(f"package/{file['from']}").read()
            assert digest_of(body) == file["integrity"], f"{name}: another file"
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            (folder / name).write_bytes(body)


def main():
    with tempfile.TemporaryDirectory() as made:
        for name, package in listed().items():
            unpack(fetched(name, package, Path(made)), package, VENDOR)
            print(f"{name} {package['version']}")
    if wrong := wrong_files():
        sys.exit(f"not as they are listed: {', '.join(wrong)}")


if __name__ == "__main__":
    main()
