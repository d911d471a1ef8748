"""Cases in which an attacker and a polite client share a gateway, and times are compared."""

import asyncio

from gateway.configuration.settings import Settings
from gateway.server.handshake import PAGES_BURST_S
from gateway.server.reading import BURST, LAST_S
from tests.bench.attack.attacks import MIB, UNBUILT
from tests.bench.attack.bench import (
    ATTACK_S,
    BRIEF,
    COUNTING,
    FEW_FILES,
    MESSAGE_S,
    MODEL,
    SCRIPTED,
    case,
    ending,
)
from tests.bench.attack.gateways import ALICE, SECRETS, Attacker, start, write_tokens
from tests.bench.attack.hostile import get
from tests.bench.attack.judging import (
    Check,
    answers_right,
    beside,
    takes_on,
    told,
    told_only,
    usually_waits,
    waits,
)
from tests.bench.attack.polite import Question, Watch, answer_alone

BESIDE_A_FLOOD = 0.6  # share of tokens a second: the attacker itself keeps one of two cores busy
# Wait of a usual constraint beside costly ones: for a first trial of 0.05 s of processor time, with
# the processes of the gateway, of the attacker and of this one on two cores.
BESIDE_TRIALS_S = 1.0
PAGES_A_SECOND = Settings().page_rate


# Beside a script.


@case("loop", "8 MiB of empty maps in msgpack, before a token")
async def maps_before_a_token(bench):
    quiet, seen, answers = await bench.under(SCRIPTED, "maps_before_a_token")
    return [*beside(quiet, seen, memory=64), told(answers)]


@case("loop", "8 MiB of empty maps in JSON, before a token")
async def json_maps_before_a_token(bench):
    quiet, seen, answers = await bench.under(SCRIPTED, "json_maps_before_a_token")
    return [*beside(quiet, seen, memory=64), told(answers)]


@case("loop", "4 frames of 7 MiB of empty maps in msgpack, with a token")
async def maps(bench):
    quiet, seen, answers = await bench.under(SCRIPTED, "maps", seconds=6)
    return [*beside(quiet, seen, memory=256), told(answers)]


@case("loop", "4 frames of 7 MiB of empty maps in JSON, with a token")
async def json_maps(bench):
    quiet, seen, answers = await bench.under(SCRIPTED, "json_maps", seconds=6)
    return [*beside(quiet, seen, memory=256), told(answers)]


@case("loop", "2 prompts of 7 MiB that are nothing but escapes, with a token")
async def escapes(bench):
    quiet, seen, answers = await bench.under(SCRIPTED, "escapes")
    # The scripted provider takes prompts of any length: what refuses them is the count of values.
    return [*beside(quiet, seen, memory=256), told_only(answers, "ready", "error invalid_request")]


@case("loop", "7 MiB in one string: a call's empty lists in AG-UI, a file's escapes in the chat")
async def values_in_strings(bench):
    quiet, seen, answers = await bench.under(SCRIPTED, "values_in_strings")
    refused = ("RUN_ERROR invalid_request", "error")
    return [*beside(quiet, seen, memory=128), told_only(answers, *refused)]


@case("loop", "pings of 125 bytes on 4 connections, as fast as they go, before a token")
async def pings_before_a_token(bench):
    quiet, seen, answers = await bench.under(SCRIPTED, "pings_before_a_token")
    return [*beside(quiet, seen, share=BESIDE_A_FLOOD, memory=64), told(answers)]


@case("loop", "pings of 125 bytes on 4 connections, as fast as they go, with a token")
async def pings(bench):
    quiet, seen, answers = await bench.under(SCRIPTED, "pings")
    return [*beside(quiet, seen, share=BESIDE_A_FLOOD, memory=64), told(answers)]


@case("loop", "as many pings as each of 100 connections with one token may send")
async def pings_of_many(bench):
    quiet, seen, answers = await bench.under(SCRIPTED, "pings_of_many")
    settings = Settings()
    most = settings.client_frame_rate * (BURST + ATTACK_S + 1)
    answered = answers.get("answered", 0)
    return [
        *beside(quiet, seen, share=BESIDE_A_FLOOD, memory=64),
        Check("answered", answered, 0 < answered <= most, f"at most {most:,.0f}"),
        told(answers),
    ]


@case(
    "loop",
    "upgrades without a token, with a wrong Origin, with large headers, of 201 addresses",
)
async def upgrades(bench):
    quiet, seen, answers = await bench.under(SCRIPTED, "upgrades")
    most = PAGES_A_SECOND * (PAGES_BURST_S + ATTACK_S + 1)
    let_in = answers.get("let in, of one", 0)
    return [
        *beside(quiet, seen, share=0.5, memory=64),
        Check("let in, of one address", let_in, let_in <= most, f"at most {most:g}"),
        told(answers),
    ]


@case("loop", "16 messages of 8 KB that unpack to 8 MiB, on 12 connections, before a token")
async def bombs_before_a_token(bench):
    quiet, seen, answers = await bench.under(SCRIPTED, "bombs_before_a_token")
    return [*beside(quiet, seen, memory=64), told(answers)]


@case("loop", "16 messages of 8 KB that unpack to 8 MiB, on 12 connections, with a token")
async def bombs(bench):
    quiet, seen, answers = await bench.under(SCRIPTED, "bombs")
    # Twelve messages are unpacked at once, one of each connection, before these are closed.
    return [*beside(quiet, seen, share=0.2, memory=256, first=0.6, slack=0.6), told(answers)]


@case("loop", "GET /asyncapi.json, 8 at a time, as fast as they go")
async def gets_of_asyncapi(bench):
    quiet, seen, answers = await bench.under(SCRIPTED, "gets_of_asyncapi")
    return [*beside(quiet, seen, share=BESIDE_A_FLOOD, memory=64), told(answers)]


@case("loop", "GET /metrics with a token, 8 at a time, as fast as they go")
async def gets_of_metrics(bench):
    quiet, seen, answers = await bench.under(SCRIPTED, "gets_of_metrics")
    return [*beside(quiet, seen, share=BESIDE_A_FLOOD, memory=64), told(answers)]


@case("loop", "requests whose headers are too large, 8 at a time, as fast as they go")
async def oversized_headers(bench):
    quiet, seen, answers = await bench.under(SCRIPTED, "oversized_headers")
    return [*beside(quiet, seen, share=BESIDE_A_FLOOD, memory=64), told_only(answers, "431")]


@case("counting", "600 GETs of the page's largest file, of which nothing is read")
async def unread_pages(bench):
    quiet, seen, answers = await bench.under(SCRIPTED, "unread_pages")
    return [*beside(quiet, seen, memory=64), told(answers)]


@case("counting", "resumable answers that go on when their page is left, over and over")
async def left_answers(bench):
    quiet, seen, answers = await bench.under(SCRIPTED, "left_answers")
    refused = answers.get("rate_limited", 0)
    return [
        *beside(quiet, seen, share=BESIDE_A_FLOOD, memory=96),
        Check("rate_limited", refused, refused > 0, "some"),
        told(answers),
    ]


@case("counting", "24 second readers of one answer, who read it from its beginning over and over")
async def followers(bench):
    quiet, seen, answers = await bench.under(SCRIPTED, "followers")
    begun, refused = answers.get("started", 0), answers.get("rate_limited", 0)
    return [
        *beside(quiet, seen, share=BESIDE_A_FLOOD, memory=64),
        Check("followed", begun, begun > 0, "some"),
        Check("rate_limited", refused, refused > 0, "some, as there are more than may follow"),
        told(answers),
    ]


@case("counting", "pings with nonces of 8 MiB on 8 connections that never read")
async def unread_nonces(bench):
    quiet, seen, answers = await bench.under(SCRIPTED, "unread_nonces")
    # Each connection may have one frame on its way, which is bytes and then text.
    return [*beside(quiet, seen, share=BESIDE_A_FLOOD, memory=256), told(answers)]


@case("counting", "items of 1 MiB on 8 connections of Realtime, asked for 250 times and never read")
async def unread_items(bench):
    quiet, seen, answers = await bench.under(SCRIPTED, "unread_items")
    # Of each: the item and its message, two events of it and an answer that show it, and what is
    # on its way of them; 15 MiB in all, where it would be 250.
    return [*beside(quiet, seen, share=BESIDE_A_FLOOD, memory=256), told(answers)]


@case("counting", "24 frames of 8 MiB but for their last bytes, with two tokens")
async def begun_frames(bench):
    quiet, seen, answers = await bench.under(
        SCRIPTED, "begun_frames", seconds=MESSAGE_S + LAST_S + 1.5
    )
    closed = answers.get("closed 4429", 0)
    return [
        *beside(quiet, seen, memory=192),  # 128 MiB for what is on its way, and some
        Check("closed as too slow", closed, closed > 0, "some, since others wait"),
        told(answers),
    ]


@case("counting", "40 answers of a script, not streamed, with 20 log-probabilities a word")
async def log_probabilities(bench):
    _, seen, answers = await bench.under(SCRIPTED, "log_probabilities", seconds=10)
    whole = answers.get("stop", 0)
    return [
        # Of 7,000 words, which have no model's buffers beside them and take 13 KB each as objects.
        takes_on(seen, 40),
        Check("answers that are whole", whole, whole == 40, "40"),
        told(answers),
    ]


@case("counting", "320 connections where the process may have 256 files, again and again")
async def beyond_the_descriptors(bench):
    tokens = write_tokens(bench.new_folder() / "tokens.toml")
    served = await start(*SCRIPTED, *BRIEF, "--token-file", tokens, python=FEW_FILES)
    async with ending(served):
        right, each = await answer_alone(served.port, SECRETS[ALICE], COUNTING)
        question = Question(lambda _: COUNTING, lambda _: right, each)
        quiet = await bench.quiet(SCRIPTED)
        attacker = await Attacker.ready("connections", served, 4.0)
        watch = Watch(served.port, SECRETS[ALICE], question, served.pid, one_thread=True)
        statuses = []

        async def health():
            for _ in range(5):
                await asyncio.sleep(0.5)
                statuses.append(await get(served.target(), "/healthz"))

        answers, _ = await watch.during(asyncio.gather(attacker.attack(), health()))
        refused = sum(
            count for name, count in answers.items() if " 503 " in name or " 429 " in name
        )
        healthy = 200 in statuses and 0 not in statuses
        ended = await served.end()
        lines = ended.log.count("\n")
        seen = watch.seen
        return [
            waits("gap", quiet, seen),
            waits("ping", quiet, seen),
            answers_right(seen),
            Check("/healthz", ", ".join(map(str, statuses)), healthy, "an answer each, and 200"),
            Check("refused with 503 or 429", f"{refused:,}", refused > 0, "some"),
            Check("lines logged", f"{lines:,}", lines <= 100, "at most 100"),
        ]


@case("holds", "resume with tickets that nobody was given, as fast as it goes")
async def guessed_tickets(bench):
    quiet, seen, answers = await bench.under(SCRIPTED, "guessed_tickets")
    return [
        *beside(quiet, seen, share=BESIDE_A_FLOOD, memory=64),
        told_only(answers, "not_resumable", "rate_limited", "4429"),
    ]


@case("holds", "8 clients that start, cancel, vanish and come back")
async def churn(bench):
    served = await bench.shared(SCRIPTED)
    before = served.descriptors()
    quiet, seen, answers = await bench.under(SCRIPTED, "churn")
    after = served.descriptors()
    left = Check("descriptors", after, after <= before + 8, f"at most {before + 8}", before)
    return [*beside(quiet, seen, share=BESIDE_A_FLOOD, memory=64), left, told(answers)]


@case("holds", "200 requests that arrive a byte at a time")
async def slow_http(bench):
    quiet, seen, answers = await bench.under(SCRIPTED, "slow_http")
    return [*beside(quiet, seen, share=BESIDE_A_FLOOD, memory=64), told(answers)]


@case("holds", "30 readers that ask for long answers and never read")
async def stalled_readers(bench):
    quiet, seen, answers = await bench.under(SCRIPTED, "stalled_readers")
    return [*beside(quiet, seen, memory=64), told(answers)]


# Beside the model.


@case("loop", "3 prompts of 2.6 MB, whose sender leaves after a second")
async def long_prompts(bench):
    quiet, seen, answers = await bench.under(MODEL, "long_prompts")
    return [*beside(quiet, seen, memory=256), told(answers)]


@case("loop", "2 conversations with a call that has 7 MiB of empty lists for its arguments")
async def earlier_calls(bench):
    quiet, seen, answers = await bench.under(MODEL, "earlier_calls")
    return [*beside(quiet, seen, memory=192), told_only(answers, "invalid_request")]


@case("loop", "options with values of 2 MiB, with 16,000 items, with 7,000 fields of a long name")
async def hostile_options(bench):
    quiet, seen, answers = await bench.under(MODEL, "hostile_options")
    expected = ("invalid_request", "context_too_long")
    checks = beside(quiet, seen, share=BESIDE_A_FLOOD, memory=256)
    return [*checks, told_only(answers, *expected)]


@case("counting", "40 frames that ask for 32 long answers each")
async def many_answers(bench):
    quiet, seen, answers = await bench.under(MODEL, "many_answers", seconds=3)
    return [*beside(quiet, seen, share=0.1, first=1.0), told(answers)]


@case("counting", "2 frames of 32 long answers, with a token that may have 2 generations")
async def capped_token(bench):
    quiet, seen, answers = await bench.under(MODEL, "capped_token", seconds=3)
    return [*beside(quiet, seen, first=1.0), told(answers)]


@case("counting", "64 requests of 7 MiB, whose prompts wait for costly schemas")
async def unbuilt_requests(bench):
    # With its usual share of the event loop, a client is read too slowly to send that much.
    gateway = (*MODEL, "--client-loop-share", "1")
    quiet, seen, answers = await bench.under(gateway, "unbuilt_requests", seconds=8)
    refused = answers.get(UNBUILT, 0)
    return [
        *beside(quiet, seen, share=0.25, first=BESIDE_TRIALS_S),
        # 64 MiB that are not built and as much on its way, with copies of some; of all it would be
        # a GiB. The processes of trials have their own bound.
        takes_on(seen, 448, children=False),
        Check("overloaded, with retry_after", refused, refused > 0, "some"),
        told(answers),
    ]


MEMORY = 36 * MIB  # 9 of which are weights; the KV cache of 4,000 tokens takes 10, of 8,000 20


@case("counting", "a run that waits for most of the memory, behind a long one")
async def memory_queue(bench):
    tokens = write_tokens(bench.new_folder() / "tokens.toml")
    quiet, question = await bench.quiet(MODEL), await bench.counting(MODEL)
    served = await start(*BRIEF, "--token-file", tokens, "--memory-bytes", MEMORY)
    async with ending(served):
        await answer_alone(served.port, SECRETS[ALICE], COUNTING)  # warms up
        attacker = await Attacker.ready("memory_queue", served, 5.0)
        watch = Watch(served.port, SECRETS[ALICE], question, served.pid)
        answers = await watch.during(attacker.attack())
    said = ", ".join(name for name, count in answers.items() if count)
    right = "the large one waits, then it is started"
    return [
        waits("gap", quiet, watch.seen),
        waits("ping", quiet, watch.seen),
        waits("first", quiet, watch.seen),
        answers_right(watch.seen),
        Check("attacker", said, said == right, right),
    ]


# Each question is another constraint, so that it has to be tried.
CHOICES = Question(
    lambda n: {
        "prompt": "Say it",
        "response_format": {"type": "choice", "choices": [f"yes {n}"]},
        "temperature": 0.0,
    },
    lambda n: f"yes {n}",
)


async def _beside_trials(bench, name, **given):
    quiet, seen, answers = await bench.under(MODEL, name, CHOICES, **given)
    return [
        *beside(quiet, seen, share=0, first=BESIDE_TRIALS_S),
        usually_waits("first", quiet, seen, BESIDE_TRIALS_S / 2),
        told(answers),
    ]


@case("constraints", "24 schemas that would take hours, beside a client with small ones")
async def costly_schemas(bench):
    return await _beside_trials(bench, "costly_schemas", seconds=4)


@case("constraints", "40 tools with such schemas, whose sender has gone")
async def tools_of_the_gone(bench):
    return await _beside_trials(bench, "tools_of_the_gone")


async def _beside_rows(bench, name):
    """Compare with the same number of plain rows, which take their share of the batch."""
    plain = await bench.beside_plain_rows()
    _, seen, answers = await bench.under(MODEL, name, seconds=4)
    return [*beside(plain, seen, share=0.5), told(answers)]


@case("constraints", "n = 16 with a regular expression whose masks are slow")
async def slow_masks(bench):
    return await _beside_rows(bench, "slow_masks")


@case("constraints", "n = 16 with a line of Lark whose masks are slow")
async def slow_lark(bench):
    return await _beside_rows(bench, "slow_lark")
