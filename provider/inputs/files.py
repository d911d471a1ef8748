"""The files of a request: read, checked, and put into the prompt under their names."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path, PurePath

from provider.interface import FileData, FileProcessingError

__all__ = ["MAX_FILES", "MAX_FILE_BYTES", "files_to_text", "images_of"]

MAX_FILES = 16
MAX_FILE_BYTES = 1024 * 1024  # about 250,000 tokens, more than most context windows

MAX_IMAGE_BYTES = 16 * 1024 * 1024  # enough for a photograph of a camera
TEXT_SUFFIXES = {".txt", ".text", ".md", ".markdown", ".csv", ".tsv"}
IMAGE_SUFFIXES = {".png", ".jpg", ".jpeg", ".gif", ".webp", ".bmp", ".tif", ".tiff", ".heic"}


def files_to_text(files: Sequence[str | Path | FileData]) -> str:
    """Return the contents of the text files, each after its name, to go before a prompt.

    Images are skipped. Raises FileProcessingError for too many files, and for a file that is
    missing, too large, or not UTF-8 text.
    """
    if len(files) > MAX_FILES:
        raise FileProcessingError(f"{len(files)} files given, at most {MAX_FILES} are allowed")
    return "".join(_block(file) for file in files if not _is_image(file))


def images_of(files: Sequence[str | Path | FileData]) -> list[bytes]:
    """Return the data of the files that are images. Raises FileProcessingError."""
    images = []
    for file in files:
        if _is_image(file):
            data = file.data if isinstance(file, FileData) else _read(Path(file), MAX_IMAGE_BYTES)
            if len(data) > MAX_IMAGE_BYTES:
                said = f"`{_name(file)}` is larger than {MAX_IMAGE_BYTES} bytes"
                raise FileProcessingError(said, file_path=_name(file))
            images.append(data)
    return images


def _name(file: str | Path | FileData) -> str:
    return PurePath(file.name).name if isinstance(file, FileData) else Path(file).name


def _is_image(file: str | Path | FileData) -> bool:
    mime = (file.mime or "") if isinstance(file, FileData) else ""
    suffix = PurePath(_name(file)).suffix.lower()
    return suffix in IMAGE_SUFFIXES or mime.startswith("image/")


def _block(file: str | Path | FileData) -> str:
    name = _name(file)
    suffix = PurePath(name).suffix.lower()
    mime = (file.mime or "") if isinstance(file, FileData) else ""
    if suffix not in TEXT_SUFFIXES and not mime.startswith("text/"):
        known = ", ".join(sorted(TEXT_SUFFIXES))
        raise FileProcessingError(
            f"`{name}` has an unknown type; known types are {known}",
            file_path=name,
            file_type=suffix,
        )
    data = file.data if isinstance(file, FileData) else _read(Path(file))
    if len(data) > MAX_FILE_BYTES:
        raise FileProcessingError(
            f"`{name}` is larger than {MAX_FILE_BYTES} bytes", file_path=name, file_type=suffix
        )
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise FileProcessingError(
            f"`{name}` is not UTF-8 text: byte {error.start} does not fit",
            original_exception=error,
            file_path=name,
            file_type=suffix,
        ) from error
    return f"{name}:\n{text.rstrip()}\n\n"


def _read(path: Path, limit: int = MAX_FILE_BYTES) -> bytes:
    """Return a file's first `limit` + 1 bytes: enough to see that it is too large."""
    if "://" in str(path) or str(path).startswith(("http:/", "https:/")):
        raise FileProcessingError(f"`{path}` is a URL; only local files are read")
    try:
        with path.open("rb") as file:
            return file.read(limit + 1)
    except OSError as error:
        raise FileProcessingError(
            f"`{path.name}` cannot be read: {error.strerror}",
            original_exception=error,
            file_path=str(path),
        ) from error
