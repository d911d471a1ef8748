"""Ways to damage a file of the prefix store; each takes the path of a good one."""

import hashlib
import json
import os
from collections.abc import Callable

from provider.caches.cache_file import BEGINNING, LENGTH_BYTES, NO_DIGEST


def parts(path):
    """Return the text of a file's header, and its body."""
    raw = path.read_bytes()
    end = LENGTH_BYTES + int.from_bytes(raw[:LENGTH_BYTES], "little")
    return raw[LENGTH_BYTES:end], raw[end:]


def write(path, text, body):
    path.write_bytes(len(text).to_bytes(LENGTH_BYTES, "little") + text + body)


def seal(path, text, body):
    """Write a file whose header has the right digest, whatever else it holds."""
    rest = text[len(BEGINNING) + len(NO_DIGEST) :]
    digest = hashlib.sha256(BEGINNING + rest).hexdigest().encode()
    write(path, BEGINNING + digest + rest, body)


def change(of: Callable):
    """Damage that calls `of` with the header as JSON, and seals what that has changed."""

    def damage(path):
        text, body = parts(path)
        header = json.loads(text)
        of(header)
        seal(path, json.dumps(header, separators=(",", ":")).encode(), body)

    return damage


def metadata(**changes):
    """Damage that changes the metadata; `_` in a name stands for a dot."""
    names = {name.replace("_", ".", 1): value for name, value in changes.items()}
    return change(lambda header: header["__metadata__"].update(names))


def tensor(**changes):
    """Damage that changes what the header says of each array."""

    def of(header):
        for name, described in header.items():
            if name != "__metadata__":
                described.update(changes)

    return change(of)


def rest(text):
    """Damage that replaces the header after its digest, which stays right, by `text`."""

    def damage(path):
        seal(path, BEGINNING + NO_DIGEST.encode() + text, parts(path)[1])

    return damage


def header(text):
    """Damage that replaces the whole header by `text`."""
    return lambda path: write(path, text, parts(path)[1])


def cut(at):
    """Damage that leaves the first `at` bytes; a share of the file if `at` is a float."""

    def damage(path):
        raw = path.read_bytes()
        path.write_bytes(raw[: int(at * len(raw)) if isinstance(at, float) else at])

    return damage


def cut_at_the_body(more):
    def damage(path):
        raw = path.read_bytes()
        path.write_bytes(raw[: LENGTH_BYTES + len(parts(path)[0]) + more])

    return damage


def flip(at):
    """Damage of one bit of the byte at a place of the file, a share of it if `at` is a float."""

    def damage(path):
        raw = bytearray(path.read_bytes())
        raw[int(at * len(raw)) if isinstance(at, float) else at] ^= 4
        path.write_bytes(raw)

    return damage


def flip_in(name):
    """Damage of one bit of the byte before which `name` ends, in the header."""

    def damage(path):
        raw = path.read_bytes()
        flip(raw.index(name.encode()) + len(name))(path)

    return damage


def raw(of: Callable):
    return lambda path: path.write_bytes(of(path.read_bytes()))


def instead(make):
    """Damage that puts something else in the place of the file."""

    def damage(path):
        path.unlink()
        make(path)

    return damage


DAMAGE = {
    **{f"cut at {at}": cut(at) for at in (0, 1, 7, 8, 9, 60, 200, 0.5, 0.9, -100, -1)},
    "cut before the body": cut_at_the_body(0),
    "cut after one byte of the body": cut_at_the_body(1),
    **{f"a bit of byte {at}": flip(at) for at in (0, 1, 2, 7, 8, 20, -1, 0.7, 0.9)},
    "a bit of the header's digest": flip_in('"0.header_digest":"'),
    "a bit of the body's digest": flip_in('"0.body_digest":"'),
    "a bit of the format": flip_in('"0.format":"'),
    "a bit of the model": flip_in('"0.model":"'),
    "a bit of the tokens": flip_in('"0.tokens":"'),
    "a bit of a class": flip_in('"1.0":"'),
    "a bit of a dtype": flip_in('"dtype":"'),
    "a bit of a shape": flip_in('"shape":['),
    "a bit of an offset": flip_in('"data_offsets":['),
    "more bytes at the end": raw(lambda all_: all_ + b"\0"),
    "more bytes at the beginning": raw(lambda all_: b"\0" + all_),
    "zeros": raw(lambda all_: bytes(len(all_))),
    "noise": raw(lambda all_: os.urandom(len(all_))),
    "a header of huge length": raw(lambda all_: b"\xff" * 8 + all_[8:]),
    "a header of no length": raw(lambda all_: bytes(8) + all_[8:]),
    "a body of zeros": lambda path: write(path, parts(path)[0], bytes(len(parts(path)[1]))),
    "a body in another order": lambda path: write(path, parts(path)[0], parts(path)[1][::-1]),
    "no JSON": header(b"hello, world"),
    "a list": header(b"[]"),
    "a number": header(b"17"),
    "nothing": header(b"null"),
    "an empty object": header(b"{}"),
    "deep nesting": header(b"[" * 200_000),
    "sealed deep nesting": rest(b'"},"x":' + b"[" * 200_000),
    "sealed noise": rest(b"\xff\xfe"),
    "sealed metadata alone": rest(b'"}}'),
    "sealed arrays that are numbers": rest(b'"},"0.0":7}'),
    "sealed metadata that are lists": rest(b'","0.format":[],"1.0":{}}}'),
    "sealed metadata twice": rest(b'"},"__metadata__":[]}'),
    "sealed arrays without offsets": change(lambda all_: all_["0.0"].pop("data_offsets")),
    "sealed offsets without an end": tensor(data_offsets=[]),
    "sealed offsets that are text": tensor(data_offsets="ab"),
    "sealed huge offsets": tensor(data_offsets=[0, 1 << 62]),
    "sealed negative offsets": tensor(data_offsets=[0, -1]),
    "sealed and of another format": metadata(**{"0_format": "mlx-gateway-prefix-1"}),
    "sealed and of another model": metadata(**{"0_model": "another"}),
    "sealed and of an unknown class": metadata(**{"1_0": "os.system"}),
    "sealed and of a module as class": metadata(**{"1_0": "mx"}),
    "sealed tokens that are no base64": metadata(**{"0_tokens": "not base64!"}),
    "sealed tokens of another prompt": metadata(**{"0_tokens": "AAAAAAAAAAA="}),
    "sealed tokens that are cut": metadata(**{"0_tokens": "AAA="}),
    "a folder": instead(lambda path: path.mkdir()),
    "a pipe": instead(os.mkfifo),
    "a link to nothing": instead(lambda path: path.symlink_to("nothing")),
    "a link to itself": instead(lambda path: path.symlink_to(path)),
    "a link to a device": instead(lambda path: path.symlink_to("/dev/zero")),
}
STAYS = {"a folder", "a link to nothing", "a link to itself"}  # what can't be opened as a file
