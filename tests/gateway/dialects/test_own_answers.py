from gateway.dialects.base import Message
from gateway.dialects.own_answers import OwnAnswers
from gateway.protocol.frames import Pong

SAID = [Message(b"{}", text=True)]


def test_an_own_answer_comes_with_its_pong_once():
    own = OwnAnswers()
    ping = own.say(SAID)
    assert own.take(Pong(nonce="another")) == ()
    assert own.take(Pong(nonce=ping.nonce)) == SAID
    assert own.take(Pong(nonce=ping.nonce)) == ()


def test_what_waits_counts():
    own = OwnAnswers()
    first, second = own.say(SAID * 2), own.say(SAID)
    assert own.waiting_bytes == 6
    own.take(Pong(nonce=first.nonce))
    own.take(Pong(nonce="another"))
    assert own.waiting_bytes == 2
    own.take(Pong(nonce=second.nonce))
    assert own.waiting_bytes == 0


def test_a_nonce_may_be_given():
    own = OwnAnswers()
    assert own.say(SAID, "mine").nonce == "mine"
    assert own.take(Pong(nonce="mine")) == SAID
