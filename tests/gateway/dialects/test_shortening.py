from gateway.dialects.shortening import Shortening


def said(*roles):
    return [{"role": role, "content": str(place)} for place, role in enumerate(roles)]


TALK = said("system", "user", "assistant", "user", "assistant", "user")
PATHS = list("012345")


def test_nothing_is_left_out_until_it_must_be():
    shortening = Shortening()
    assert shortening.applied_to(TALK, PATHS) == (TALK, PATHS)


def test_the_oldest_turns_go_first_and_the_last_question_stays():
    shortening, told = Shortening(), []
    shortening.applied_to(TALK, PATHS)
    while shortening.more():
        messages, paths = shortening.applied_to(TALK, PATHS)
        assert paths == [message["content"] for message in messages]
        told.append("".join(paths))
    assert told == ["0345", "05"]


def test_a_prompt_of_one_question_or_none_stays_whole():
    for talk in (said("user"), said("system", "user"), said("system"), []):
        shortening = Shortening()
        shortening.applied_to(talk, [str(place) for place in range(len(talk))])
        assert not shortening.more()


def test_no_more_is_left_out_than_a_conversation_has_that_has_become_shorter():
    shortening = Shortening()
    shortening.applied_to(TALK, PATHS)
    while shortening.more():
        shortening.applied_to(TALK, PATHS)
    for talk, left in ((TALK[:4], "03"), (TALK[:2], "01"), (TALK[:1], "0"), ([], "")):
        messages, paths = shortening.applied_to(talk, PATHS[: len(talk)])
        assert paths == [message["content"] for message in messages] == list(left)
        assert not shortening.more()
