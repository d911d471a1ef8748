"""Which limit refuses a generation, and who enforces the others."""

import importlib
import inspect
import operator
from dataclasses import fields, replace
from datetime import UTC, datetime, timedelta

import pytest

from gateway.configuration.settings import Settings
from gateway.protocol.codes import ErrorCode
from gateway.protocol.frames import Generate, Relayed, Resume
from gateway.server.limits import ENFORCERS, Load, refusal
from gateway.server.tokens import Token

NOW = datetime(2027, 1, 1, tzinfo=UTC)
LIMITS = Settings(
    max_generations=2,
    max_generations_per_token=4,
    max_generations_in_all=8,
    max_answer_tokens=10,
)
GENERATE = Generate(id="a", prompt="hi")
ALICE = Token("alice", "0" * 64)


@pytest.mark.parametrize(
    ("load", "token", "code", "said"),
    [
        (Load(1, 0, 7), None, None, None),
        (Load(2, 0, 2), None, ErrorCode.RATE_LIMITED, "at most 2 generations may run on one"),
        (Load(1, 2, 4), None, None, None),
        (Load(1, 3, 4), ALICE, ErrorCode.OVERLOADED, "the rest is for other clients"),
        (Load(1, 3, 3), ALICE, None, None),
        (Load(0, 0, 7), ALICE, None, None),
        (
            Load(1, 4, 4),
            ALICE,
            ErrorCode.RATE_LIMITED,
            "at most 4 generations may run with one token",
        ),
        (
            Load(1, 1, 1),
            Token("b", "0" * 64, max_generations=1),
            ErrorCode.RATE_LIMITED,
            "at most 1 generation may",
        ),
        (Load(0, 0, 0), Token("b", "0" * 64, NOW), ErrorCode.UNAUTHORIZED, "has expired"),
        (Load(0, 0, 0), Token("b", "0" * 64, NOW + timedelta(seconds=1)), None, None),
        (Load(0, 0, 8, draining=True), ALICE, ErrorCode.SHUTTING_DOWN, "is stopping"),
        (Load(2, 0, 0, draining=True), ALICE, ErrorCode.RATE_LIMITED, "on one connection"),
        (Load(0, 0, 8), ALICE, ErrorCode.OVERLOADED, "at most 8 generations may run in all"),
    ],
)
def test_the_first_limit_that_is_reached_is_named(load, token, code, said):
    why = refusal(GENERATE, LIMITS, token, load, NOW)
    assert (why and why.code) == code
    if why is not None:
        assert said in why.message
        assert (why.retry_after is None) == (
            code in {ErrorCode.UNAUTHORIZED, ErrorCode.SHUTTING_DOWN}
        )


def asking(n):
    return Generate(id="a", prompt="hi", n=n)


def test_each_answer_of_a_generation_counts():
    limits = replace(LIMITS, max_generations=8, client_share=1.0)
    bob = Token("bob", "0" * 64, max_generations=3)
    for load, token, most, code in [
        (Load(3, 0, 3), None, 5, ErrorCode.RATE_LIMITED),
        (Load(0, 1, 1), ALICE, 3, ErrorCode.RATE_LIMITED),
        (Load(0, 1, 1), bob, 2, ErrorCode.RATE_LIMITED),
        (Load(0, 0, 5), None, 3, ErrorCode.OVERLOADED),
        (Load(0, 2, 5), None, 3, ErrorCode.OVERLOADED),
    ]:
        assert refusal(asking(most), limits, token, load, NOW) is None
        assert refusal(asking(most + 1), limits, token, load, NOW).code is code


def test_more_answers_than_may_ever_run_are_refused_by_their_field():
    none = Load(0, 0, 0)
    bob = Token("bob", "0" * 64, max_generations=1)
    shared = replace(LIMITS, max_generations=8)
    for limits, token, most in [(LIMITS, ALICE, 2), (LIMITS, bob, 1), (shared, None, 4)]:
        assert refusal(asking(most), limits, token, none, NOW) is None
        why = refusal(asking(most + 1), limits, token, none, NOW)
        assert (why.code, why.fields) == (ErrorCode.INVALID_REQUEST, ("n",))
        assert f"at most {most}" in why.message


@pytest.mark.parametrize("share", [0.01, 0.5, 0.9])
@pytest.mark.parametrize("most", [1, 2, 8, 1000])
def test_every_newcomer_begins_while_anything_is_free(share, most):
    limits = Settings(
        max_generations=most,
        max_generations_per_token=most,
        max_generations_in_all=most,
        client_share=share,
    )
    held, live = {}, 0
    for client in range(most):
        held[client] = 0
        while not refusal(GENERATE, limits, None, Load(0, held[client], live), NOW):
            held[client], live = held[client] + 1, live + 1
        if not held[client]:
            break
    assert live == most
    assert held[0] >= max(1, int(share * most))


def test_a_longer_answer_than_may_be_is_refused_by_its_field():
    load = Load(0, 0, 0)
    why = refusal(Generate(id="a", prompt="", max_tokens=11), LIMITS, None, load, NOW)
    assert (why.code, why.fields) == (ErrorCode.INVALID_REQUEST, ("max_tokens",))
    assert refusal(Generate(id="a", prompt="", max_tokens=10), LIMITS, None, load, NOW) is None


def test_what_is_taken_over_counts_on_its_new_connection_alone():
    resume = Resume(id="a", ticket="t", after=0)
    assert refusal(resume, LIMITS, ALICE, Load(1, 4, 8), NOW) is None
    assert refusal(resume, LIMITS, ALICE, Load(2, 0, 0), NOW).code is ErrorCode.RATE_LIMITED


def test_every_limit_and_timeout_has_an_enforcer():
    bounds = {
        one.name for one in fields(Settings) if one.metadata["group"] in {"Limits", "Timeouts"}
    }
    assert set(ENFORCERS) == bounds


@pytest.mark.parametrize("setting", ENFORCERS)
def test_an_enforcer_reads_its_setting(setting):
    module, _, name = ENFORCERS[setting].partition(".")
    enforcer = operator.attrgetter(name)(importlib.import_module(f"gateway.server.{module}"))
    assert f"ettings.{setting}" in inspect.getsource(enforcer)


def test_only_a_replica_believes_what_a_gateway_in_front_says():
    asked = Generate(id="a", prompt="hi", relayed=Relayed(client="token alice"))
    none = Load(0, 0, 0)
    why = refusal(asked, LIMITS, None, none, NOW)
    assert (why.code, why.fields) == (ErrorCode.FORBIDDEN, ("relayed",))
    assert refusal(asked, replace(LIMITS, as_replica=True), None, none, NOW) is None
