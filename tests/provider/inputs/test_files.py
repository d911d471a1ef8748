import pytest

from provider.inputs.files import MAX_FILE_BYTES, MAX_FILES, files_to_text, images_of
from provider.interface import FileData, FileProcessingError


@pytest.mark.parametrize("suffix", ["txt", "md", "csv", "tsv"])
def test_a_text_file_goes_in_under_its_name(tmp_path, suffix):
    path = tmp_path / f"notes.{suffix}"
    path.write_text("one\ttwo\n", encoding="utf-8")
    assert files_to_text([path]) == f"notes.{suffix}:\none\ttwo\n\n"


def test_several_files_keep_their_order_and_paths_may_be_text(tmp_path):
    for name in ("b.txt", "a.md"):
        (tmp_path / name).write_text(name.upper(), encoding="utf-8")
    text = files_to_text([str(tmp_path / "b.txt"), tmp_path / "a.md"])
    assert text == "b.txt:\nB.TXT\n\na.md:\nA.MD\n\n"


def test_a_file_given_as_data_needs_no_disk():
    assert files_to_text([FileData("x.csv", None, b"a,b\r\n1,2")]) == "x.csv:\na,b\r\n1,2\n\n"


def test_a_path_in_a_given_name_is_not_shown():
    assert files_to_text([FileData("/etc/x.txt", None, b"a")]).startswith("x.txt:")


def test_a_mime_type_of_text_is_enough():
    assert "data" in files_to_text([FileData("LICENSE", "text/plain", b"data")])


@pytest.mark.parametrize("file", [FileData("a.png", None, b"x"), FileData("a", "image/jpeg", b"x")])
def test_images_are_kept_apart_from_text_files(file):
    note = FileData("a.txt", None, b"note")
    assert files_to_text([file, note]) == "a.txt:\nnote\n\n"
    assert images_of([file, note]) == [b"x"]


def test_a_missing_image_and_a_url_are_refused(tmp_path):
    for path in (tmp_path / "missing.jpg", "https://example.org/a.png"):
        with pytest.raises(FileProcessingError):
            images_of([path])


@pytest.mark.parametrize(
    ("file", "reason"),
    [
        (FileData("a.exe", None, b""), "unknown type"),
        (FileData("a.txt", None, b"\xff\xfe\xfa"), "not UTF-8"),
        (FileData("a.txt", None, b"x" * (MAX_FILE_BYTES + 1)), "is larger than"),
        ("https://example.org/a.txt", "URL"),
        ("no/such/file.txt", "cannot be read"),
    ],
)
def test_a_file_that_cannot_be_used_says_why(file, reason):
    with pytest.raises(FileProcessingError, match=reason):
        files_to_text([file])


def test_a_file_of_exactly_the_limit_is_accepted():
    text = files_to_text([FileData("a.txt", None, b"x" * MAX_FILE_BYTES)])
    assert len(text) == len("a.txt:\n") + MAX_FILE_BYTES + len("\n\n")


def test_too_many_files_are_refused():
    with pytest.raises(FileProcessingError, match="at most 16"):
        files_to_text([FileData("a.txt", None, b"")] * (MAX_FILES + 1))
