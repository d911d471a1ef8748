"""What conversations have in common."""

from gateway.protocol.frames import File, Generate
from provider.replicas.prefixes import MAX_PREFIXES, PIECE, prefixes_of
from tests.support.replicas import user

SYSTEM = {"role": "system", "content": "Be kind."}
ANSWER = {"role": "assistant", "content": "Hello."}


def of(**fields):
    return prefixes_of(Generate(id="a", **fields))


def in_common(one, other):
    return sum(a == b for a, b in zip(one, other, strict=False))


def test_a_conversation_goes_on_from_its_own_prefixes():
    first = of(messages=[SYSTEM, user("Hi")])
    later = of(messages=[SYSTEM, user("Hi"), ANSWER, user("And?")])
    assert later[: len(first)] == first
    assert [one.size for one in later] == sorted({one.size for one in later})


def test_conversations_part_where_their_messages_do():
    one, other = of(messages=[SYSTEM, user("A")]), of(messages=[SYSTEM, user("B")])
    assert in_common(one, other) == len(one) - 1


def test_conversations_without_a_system_prompt_have_nothing_in_common():
    assert in_common(of(messages=[user("A")]), of(messages=[user("B")])) == 0
    assert of(prompt="A")[0].size == 1


def test_what_comes_before_the_messages_parts_them_from_the_beginning():
    plain = of(messages=[user("A")])
    tools = [{"type": "function", "function": {"name": "f"}}]
    for more in (
        {"tools": tools},
        {"model": "m"},
        {"system_prompt": "s"},
        {"enable_thinking": False},
    ):
        assert in_common(plain, of(messages=[user("A")], **more)) == 0
    file = File(name="f", data=b"text")
    assert in_common(plain, of(messages=[user("A")], files=[file])) == 0


def test_a_long_text_has_prefixes_of_its_own():
    document = "x" * (3 * PIECE)
    one, other = of(prompt=f"{document}What?"), of(prompt=f"{document}Why?")
    assert (len(one), in_common(one, other)) == (4, 3)
    assert len(of(prompt="x" * (2 * MAX_PREFIXES * PIECE))) == MAX_PREFIXES


def test_images_and_lone_surrogates_are_read_too():
    image = {"role": "user", "content": [{"type": "image", "data": b"\x89PNG"}]}
    assert len(of(messages=[image])) == 1
    assert len(of(prompt="\ud800")) == 1
