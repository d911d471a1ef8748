"""Reads from clients in pieces, counts all that comes, and cuts off a client that sends too much.

Rule 1: a piece has few frames, and all connections together read few in one turn of the event loop,
so that it is short, however many clients fill their sockets. Only the middle of a large frame is
read in large pieces.
Rule 2: every frame counts against the client's rate, those that the library answers or drops by
itself included: pings, pongs, parts of messages. Compressed messages count by what they become.
Rule 3: until `let_in`, a message has at most MAX_FIRST_BYTES, also once it is decompressed; a
larger one is closed with 1009 before it is read. What follows a message is not read before
`let_in` had its chance.

Rule 4: what large messages take, from their first bytes until they are decoded, is counted for all
connections together. While there is no room for a frame, its connection is not read.
Rule 5: compressed messages are inflated in slices, one of all connections in a turn. Meanwhile a
connection is not read, and what it has sent behind the message waits.
Rule 6: a client has a rate on all its connections together; beyond it they are read more slowly.
Rule 7: what reading takes of the event loop's time counts for the client, see `LoopShare`.

The library has no hooks for this. Of its inside this module uses `Protocol.reader`, `parser` and
`max_message_size`, `Assembler.resume` and `paused`, and of `Connection` `process_event`,
`send_data`, `pending_pings` and `acknowledge_pings`.
"""

from __future__ import annotations

import asyncio
import re
from collections import Counter
from collections.abc import Callable, Generator
from time import thread_time
from typing import Any

from websockets.asyncio.server import ServerConnection
from websockets.datastructures import Headers
from websockets.exceptions import PayloadTooBig, ProtocolError, TooManyHeaders
from websockets.frames import DATA_OPCODES, Frame, Opcode
from websockets.http11 import Request, Response
from websockets.protocol import State
from websockets.streams import StreamReader
from websockets.typing import Data

from gateway.configuration.settings import Settings
from gateway.protocol.codes import CloseCode
from gateway.server.accepting import ACCEPT_S, Guests
from gateway.server.byte_budget import ByteBudget, Claim
from gateway.server.inflating import Deflate, Inflation, Packed, Slices
from gateway.server.loop_share import LoopShare, Rest, timed
from gateway.server.rates import Rate, Rates

__all__ = ["MAX_FIRST_BYTES", "ClientRates", "MeteredConnection", "Secure", "Turn"]

BURST = 10  # a burst may have as many frames and bytes as are allowed in this many seconds
# Bytes of a request's headers. If each other one is a name in a list, reading them takes 20 ms.
# Browsers send some kilobytes of cookies, and most servers take no more either.
MAX_HEADER_BYTES = 16 * 1024
MAX_FIRST_BYTES = 2048  # a `hello` has a token of at most 1,024 characters, and a name
MAX_FIRST_FRAMES = 16  # a `hello`, which may come in parts, and pings
# Bytes. A frame has at least 6, and takes ten microseconds, so a small piece takes 4 ms.
SMALL_PIECE, LARGE_PIECE = 2048, 64 * 1024
# Bytes of small pieces that all connections may read in one turn of the event loop, and of a piece
# that is read all the same once they are used up.
TURN_BYTES, MIN_PIECE = 3 * SMALL_PIECE, 64
# Bytes of small pieces that a client may read in a turn on all its connections; then each of them
# reads a byte, a part of a frame. Some 35 small frames of JSON, which take 2 ms: a token passes
# through several turns on its way, each of which may be as long.
CLIENT_BYTES = 1024
# Seconds of the event loop that asyncio takes to read a piece, beside what is measured here. They
# count until a connection is let in: a request may come in very many pieces.
PIECE_S = 0.00002
# A header line of a request that has a body. A length of zero is none.
BODY = re.compile(rb"(?:transfer-encoding:|content-length:(?![ \t]*0[ \t]*\r?\n))", re.IGNORECASE)
PROTOCOL_ERROR = 1002  # close code of what can't be inflated
MAX_UNREAD_PONGS = 64 * 1024  # bytes that wait for a client that sends pings and never reads
# Seconds for which a connection isn't read because of its client's rate, well below the time in
# which it must answer a ping; then a small piece is.
MAX_PAUSE_S = 5.0
LAST_S = 1.0  # for the close frame of a client that was too slow; then its bytes are freed


class Turn:
    """What may still be read in small pieces in this turn of the event loop."""

    def __init__(self) -> None:
        self._left = TURN_BYTES
        self._spent: Counter[str | None] = Counter()  # bytes by client
        self._begun = False  # whether a byte was spent, so that the next turn begins anew

    def piece(self, client: str | None) -> int:
        """Return the size of the next small piece of a client, None for one not let in yet."""
        most = SMALL_PIECE if self._left > 0 else MIN_PIECE
        if client is None:
            return most
        return max(1, min(most, CLIENT_BYTES - self._spent[client]))

    def spend(self, count: int, client: str | None, loop: asyncio.AbstractEventLoop) -> None:
        """Note that so many bytes were read; the next turn begins anew."""
        self._left -= count
        self._spent[client] += count
        if not self._begun:
            self._begun = True
            loop.call_soon(self._begin)

    def _begin(self) -> None:
        self._left = TURN_BYTES
        self._spent.clear()
        self._begun = False


class ClientRates:
    """The frames and bytes a second of each client, on all its connections."""

    def __init__(self, settings: Settings):
        frames, size = settings.client_frame_rate, settings.client_rate_bytes
        self._frames = Rates(frames, frames * BURST, 0.0)
        self._bytes = Rates(size, size * BURST, 0.0)

    def spend(self, client: str, size: int, now: float) -> float:
        """Count a frame; return for how many seconds no more is to be read from this connection."""
        frames = self._frames.overdraw(client, 1, now)
        return min(MAX_PAUSE_S, max(frames, self._bytes.overdraw(client, size, now)))

    def charge(self, client: str, frames: int, now: float) -> float:
        """Count frames that are sent again; return for how many seconds no more are to be sent."""
        return min(MAX_PAUSE_S, self._frames.overdraw(client, frames, now))


class _Reader(StreamReader):
    """A reader that tells how many bytes its parser waits for, and drops the body of a request.

    The library closes a connection without an answer where a request has a body.
    """

    def __init__(self) -> None:
        super().__init__()
        self._wanted = 0
        self._header_bytes = 0
        self.has_body = False

    @property
    def missing(self) -> int:
        """The bytes to come of the current part of a frame: its head, or its content."""
        return self._wanted - len(self.buffer)

    def read_line(self, *limits: Any) -> Generator[None, None, bytearray]:
        line = yield from super().read_line(*limits)
        self._header_bytes += len(line)
        if self._header_bytes > MAX_HEADER_BYTES:
            raise TooManyHeaders("the headers are too large")
        if BODY.match(line):
            self.has_body = True
            return bytearray(b"Content-Length: 0\r\n")
        return line

    def at_eof(self) -> Generator[None, None, bool]:
        self._wanted = 2  # every frame begins with as many
        return self._dropping() if self.has_body else super().at_eof()

    def _dropping(self) -> Generator[None, None, bool]:
        while not self.eof:
            self.buffer.clear()
            yield
        return True

    def read_exact(self, n: int) -> Generator[None, None, bytearray]:
        self._wanted = n
        return super().read_exact(n)


Secure = Callable[["MeteredConnection", asyncio.Transport], None]  # begins TLS on a socket


class MeteredConnection(ServerConnection, asyncio.BufferedProtocol):
    """A connection that is read in pieces, and cut off when too much comes."""

    # The library's own attributes fill a dictionary, which more would make three times as large.
    __slots__ = (
        "_account",
        "_begin",
        "_budget",
        "_bytes",
        "_claim",
        "_client",
        "_closing",
        "_cost",
        "_counted",
        "_cut_off",
        "_ended",
        "_first_frames",
        "_frames",
        "_guests",
        "_handshaking",
        "_inflates",
        "_inflation",
        "_later",
        "_let_in",
        "_lingering",
        "_made_in_s",
        "_max_bytes",
        "_message_timeout_s",
        "_on_lost",
        "_owes",
        "_part",
        "_pause",
        "_piece",
        "_rates",
        "_reader",
        "_rest",
        "_rested",
        "_secure",
        "_share",
        "_slices",
        "_slow",
        "_taken",
        "_throttled",
        "_turn",
        "_unread_pongs",
        "guest",
    )

    def __init__(
        self,
        *given: Any,
        settings: Settings,
        turn: Turn,
        budget: ByteBudget,
        rates: ClientRates,
        share: LoopShare,
        slices: Slices,
        guests: Guests,
        secure: Secure | None = None,
        **options: Any,
    ):
        begin = thread_time()
        super().__init__(*given, **options)
        self._turn = turn
        self._budget = budget
        self._rates = rates
        self._share = share
        self._account: str | None = None  # whose share of the event loop's time is used
        self._begin = 0.0  # when the next piece was begun to be read, by the thread's time
        self._cost = 0.0  # seconds of that time that it took until it was let in
        self._rest: Rest | None = None  # while its client has used up its share
        self._owes = False  # whether it may only be read a little
        self._rested = False  # whether nothing was read since it has waited
        self._slices = slices
        self._inflates = False  # whether it is among those
        self._guests = guests
        self.guest: str | None = None  # the address as which it counts until it is let in
        self._secure = secure
        self._handshaking = False  # whether its TLS has begun, and it is not made yet
        self._inflation: Inflation | None = None  # of the message that has come last
        self._later: list[Frame] = []  # frames that came behind it
        self._pause: asyncio.TimerHandle | None = None  # while the client's rate is used up
        self._throttled = False  # whether it was used up when a frame came last
        self._client: str | None = None  # whose share of the budget is used
        self._claim: Claim | None = None  # of the frame that is read
        self._part = 0  # bytes of the message that has not ended
        self._counted = 0  # those of them that are in the budget
        self._ended: list[int] = []  # bytes in the budget of each message that waits
        self._taken = 0  # those of the message that `recv` has returned
        self._slow: asyncio.TimerHandle | None = None
        now = self.loop.time()
        self._frames = Rate(settings.frame_rate, settings.frame_rate * BURST, now)
        self._bytes = Rate(settings.rate_bytes, settings.rate_bytes * BURST, now)
        self._first_frames = 0
        self._let_in = False
        self._max_bytes = settings.max_frame_bytes
        self._message_timeout_s = settings.message_timeout_s
        self._unread_pongs = 0
        self._on_lost: Callable[[], None] | None = None  # called when the connection has ended
        self._closing = self._cut_off = False
        self._piece = bytearray()
        self._lingering: asyncio.TimerHandle | None = None
        self.protocol.reader = self._reader = _Reader()
        self.protocol.parser = self.protocol.parse()  # anew, from this reader
        next(self.protocol.parser)
        self.protocol.max_message_size = min(MAX_FIRST_BYTES, self._max_bytes)
        self._made_in_s = thread_time() - begin

    def let_in(self, client: str | None = None) -> None:
        """Accept messages of all sizes that are allowed, and count them for this client."""
        self._let_in = True
        self._leave_guests()
        now = self.loop.time()
        self._share.give_back(self._account, self._cost, now)
        self._account = self._client = client
        self._share.spend(client, self._cost, now)
        self.protocol.max_message_size = self._max_bytes

    def forget_headers(self) -> None:
        """Free the headers of the handshake, some kilobytes; the path stays."""
        assert self.request is not None
        self.request = Request(self.request.path, Headers())  # the library needs one
        self.response = None

    @property
    def taken(self) -> int:
        """The bytes of the message that `recv` has returned, 0 for a small one."""
        return self._taken

    def charge(self, frames: int) -> float:
        """Count frames that its client is sent again, 0 perhaps, as if it had sent them.

        Returns for how many seconds no more are to be sent.
        """
        if self._client is None:
            return 0.0
        return self._rates.charge(self._client, frames, self.loop.time())

    def count(self, seconds: float) -> None:
        """Count processor time of the event loop."""
        if not self._let_in:
            self._cost += seconds
        self._owes = self._share.spend(self._account, seconds, self.loop.time())

    def await_share(self, go_on: Callable[[], None]) -> None:
        """Call a function once its client has not used more than its share, or after a while.

        It is for a connection that isn't made yet, and not called once that is lost.
        """

        def over(_owes: bool) -> None:
            self._rest = None
            go_on()

        self.count(0.0)
        if self._owes and self._account is not None:
            self._rest = self._share.rest(self._account, over, self.loop)
        else:
            go_on()

    def spend(self, seconds: float) -> None:
        """Count processor time of the event loop; beyond its client's share it is read later."""
        self.count(seconds)
        account = self._account
        rests = self._rest or self._closing or self.transport.is_closing()
        if self._owes and account is not None and not rests:
            self._rest = self._share.rest(account, self._end_rest, self.loop)
            self.transport.pause_reading()

    def _end_rest(self, owes: bool) -> None:
        self._rest, self._owes, self._rested = None, owes, True
        if self._inflation is not None and not self._inflates:
            self._inflate_later()
        self._go_on()

    async def handshake(self, *given: Any, **options: Any) -> None:
        """Shake hands, which counts for the client's address."""
        await timed(super().handshake(*given, **options), self.spend)

    async def recv(self, decode: bool | None = None) -> Data:  # type: ignore[override]
        """Return the next message; the one before is no longer counted."""
        self._budget.add(self._client, -self._taken)
        self._taken = 0
        message = await super().recv(decode)
        self._taken = self._ended.pop(0)
        return message

    @property
    def has_body(self) -> bool:
        """Whether its request has a body, so that it can't be a WebSocket's."""
        return self._reader.has_body

    # Pieces.

    def get_buffer(self, sizehint: int) -> memoryview:
        """Return where the next piece is read to.

        With TLS, asyncio reads several records into slices of it, which must not be copies.
        """
        self._begin = thread_time()
        self._piece = bytearray(self._piece_size())
        return memoryview(self._piece)

    def _piece_size(self) -> int:
        missing = self._reader.missing
        if self.protocol.eof_sent:
            return LARGE_PIECE  # which is discarded, not parsed
        if self.request is not None and not self._let_in:
            return max(1, min(missing, LARGE_PIECE))  # so that it ends with the message
        if missing > SMALL_PIECE:
            return min(missing, LARGE_PIECE)
        slow = self._throttled or self._owes
        return MIN_PIECE if slow else self._turn.piece(self._client)

    def buffer_updated(self, nbytes: int) -> None:
        """Parse a piece."""
        piece, self._piece = self._piece, bytearray()
        if len(piece) <= SMALL_PIECE:
            self._turn.spend(nbytes, self._client, self.loop)
        self.data_received(memoryview(piece)[:nbytes].tobytes())
        self._make_room()
        if self._rested:
            self._rested = False
            self._take_for_pong()
        if self.protocol.close_expected():
            self._linger(self.close_timeout or 0)
        self.spend(thread_time() - self._begin + (0.0 if self._let_in else PIECE_S))

    def _take_for_pong(self) -> None:
        """Take what is read late for the answer to a ping, which may wait behind it."""
        if self.pending_pings:
            self.acknowledge_pings(list(self.pending_pings)[-1])

    def _linger(self, seconds: float) -> None:
        """Abort the connection later; a client that goes on sending is not discarded for ever."""
        if self._lingering is None:
            self._lingering = self.loop.call_later(seconds, self.transport.abort)

    def connection_lost(self, exc: Exception | None) -> None:
        """End the connection."""
        if self._lingering is not None:
            self._lingering.cancel()
        self._leave_guests()
        self._forget_frame()
        self._forget_pause()
        self._cut_off = True  # what is not inflated yet would only be counted, and never taken
        self._inflation = None
        self._later.clear()
        self._budget.add(self._client, -self._counted - sum(self._ended) - self._taken)
        self._counted = self._taken = 0
        self._ended = [0] * len(self._ended)
        super().connection_lost(exc)
        if self._on_lost is not None:
            self._on_lost()

    def call_once_lost(self, function: Callable[[], None]) -> None:
        """Call one function when the connection has ended, at once if it has."""
        if self.connection_lost_waiter.done():
            function()
        else:
            self._on_lost = function

    async def close(self, code: int = CloseCode.NORMAL, reason: str = "") -> None:
        """Close the connection; of what the client still sends, only its close frame counts."""
        self._closing = True
        self._forget_frame()
        self._forget_pause()
        self._inflation = None
        self._process_later()
        self.protocol.max_message_size = MAX_FIRST_BYTES
        self.transport.resume_reading()  # it is paused while a message waits, which none takes now
        await super().close(code, reason)

    # Room for large messages.

    def _enter(self, transport: asyncio.Transport) -> bool:
        peer = transport.get_extra_info("peername")
        address = str(peer[0]) if isinstance(peer, tuple) and peer else ""
        self.guest = self._guests.enter(address, len(self.server.handler_tasks))
        name = self.guest if self.guest is not None else self._guests.name(address)
        self._account = self._guests.account(name)
        return self.guest is not None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Begin; reading goes on after a message only if there is room for the next.

        With TLS it is called for the plain socket, and again when its handshake is done.
        """
        assert isinstance(transport, asyncio.Transport)
        if self._secure is not None and not self._handshaking:
            self._begin_handshake(self._secure, transport)
            return
        if not (self._handshaking or self._enter(transport)):
            self.count(self._accepted())
            self._guests.refuse(transport)
            return
        begin = thread_time()
        super().connection_made(transport)
        self.recv_messages.resume = self._go_on
        self.spend(thread_time() - begin + (0.0 if self._handshaking else self._accepted()))
        self._handshaking = False

    def _accepted(self) -> float:
        """Return the seconds that accepting it took; after one beyond its share, accept later."""
        seconds = self._made_in_s + ACCEPT_S
        if self._share.owes(self._account, self.loop.time()):
            self._guests.listening.rest(self._share.earned_in(seconds))
        return seconds

    def _begin_handshake(self, secure: Secure, transport: asyncio.Transport) -> None:
        if self._enter(transport):
            self.count(self._accepted())
            self._handshaking = True
            self._guests.handshakes[self] = transport
            secure(self, transport)
        else:
            self.count(self._accepted())
            transport.abort()

    def end_handshake(self) -> None:
        """Note that the handshake is over; the connection is made, or else its socket is closed."""
        self._guests.handshakes.pop(self, None)
        if self._handshaking:
            self._leave_guests()
            self._forget_pause()

    def _leave_guests(self) -> None:
        if self.guest is not None:
            self._guests.leave(self.guest)
            self.guest = None

    def _go_on(self) -> None:
        waits = self._inflation or (self._claim is not None and self._claim.waits)
        if not (self.recv_messages.paused or waits or self._pause or self._rest):
            self.transport.resume_reading()

    def _throttle(self, seconds: float) -> None:
        self._throttled = seconds > 0
        if self._throttled and self._pause is None:
            self._pause = self.loop.call_later(seconds, self._end_pause)
            self.transport.pause_reading()

    def _end_pause(self) -> None:
        self._pause = None
        self._go_on()

    def _make_room(self) -> None:
        """Stop reading until there is room for the frame that is read, if it is large."""
        size = self._size_to_come
        if self._closing or self._inflation or not self._let_in or not (size or self._counted):
            return
        if self._claim is None or not (self._claim.size or self._claim.waits):
            self._claim = self._budget.claim(self._client, size, self._granted)
            if self._claim.waits:
                self.transport.pause_reading()
            self._time_message()

    @property
    def _size_to_come(self) -> int:
        """Bytes that the frame that is read will take, 0 if it is small."""
        missing = self._reader.missing
        if missing <= SMALL_PIECE:
            return 0
        return self._max_bytes if self.protocol.extensions else missing

    def _granted(self) -> None:
        if self._slow is not None:
            self._slow.cancel()
            self._slow = None
        self._time_message()
        self._go_on()

    def _forget_pause(self) -> None:
        if self._pause is not None:
            self._pause.cancel()
            self._pause = None
        if self._rest is not None:
            self._share.withdraw(self._rest)
            self._rest = None

    def _forget_frame(self) -> None:
        if self._claim is not None:
            self._budget.withdraw(self._claim)
            self._claim = None
        if self._slow is not None:
            self._slow.cancel()
            self._slow = None

    def _count_part(self, frame: Frame) -> None:
        """Count a part of a message, the last one perhaps, instead of what was claimed for it."""
        self._part += len(frame.data)
        if self._claim is not None or self._part > SMALL_PIECE:
            claim, self._claim = self._claim, None
            self._budget.add(self._client, self._part - self._counted)
            self._counted = self._part
            if claim is not None:
                self._budget.withdraw(claim)
            self._time_message()
        if frame.fin:
            self._ended.append(self._counted)
            self._part = self._counted = 0
            self._forget_frame()

    def _time_message(self) -> None:
        if self._slow is None:
            self._slow = self.loop.call_later(self._message_timeout_s, self._check_time)

    def _check_time(self) -> None:
        """Cut off a client that takes long for a message, for which others wait."""
        self._slow = None
        claim = self._claim
        has_room = bool(self._counted) or (claim is not None and not claim.waits)
        if self._budget.contended and has_room and self._rest is None:
            self._cut_off = True
            self._end("a large message came too slowly while others waited")
            self._linger(LAST_S)
        else:
            self._time_message()

    # Counts.

    def process_event(self, event: Frame | Request | Response) -> None:
        """Act on a frame once it is inflated and those before it are, if the client may send it."""
        if self._inflation is not None:
            assert isinstance(event, Frame)
            self._later.append(event)
        elif isinstance(event, Packed) and not (self._closing or self._cut_off):
            self._inflate(event)
        else:
            self._process(event)

    def _process(self, event: Frame | Request | Response, sent: int = 0) -> None:
        """Act on a frame, for which so many bytes were sent if it was compressed."""
        if self._cut_off:
            return
        if not isinstance(event, Frame):
            super().process_event(event)
        elif not self._may_send(event, max(sent, len(event.data))):
            self._cut_off = True
            self._end("too many frames or bytes a second")
        elif event.opcode not in DATA_OPCODES:
            super().process_event(event)
        elif not self._closing:
            self._count_part(event)
            super().process_event(event)

    # Compressed messages.

    def _inflate(self, frame: Packed) -> None:
        """Inflate a slice at once, and if there are more, the others in turns to come."""
        [deflate] = self.protocol.extensions
        most = self.protocol.max_message_size
        assert isinstance(deflate, Deflate), "as `options_of` says"
        assert most is not None
        self._inflation = Inflation(deflate, frame, most - self._part)
        if not self._inflate_slice():
            self.transport.pause_reading()
            self._inflate_later()

    def _inflate_later(self) -> None:
        self._inflates = True
        self._slices.add(self._inflate_on)

    def _inflate_slice(self) -> bool:
        """Inflate a slice; return whether it was the last one."""
        assert self._inflation is not None
        try:
            frame = self._inflation.step()
        except (PayloadTooBig, ProtocolError) as error:
            large = isinstance(error, PayloadTooBig)
            self._fail(CloseCode.TOO_BIG if large else PROTOCOL_ERROR, str(error))
            return True
        if frame is not None:
            sent, self._inflation = self._inflation.size, None
            self._process(frame, sent)
        return frame is not None

    def _inflate_on(self) -> bool:
        """Inflate a slice; return whether no other one is to follow now."""
        if self._inflation is None:  # the connection is closed
            self._inflates = False
            return True
        begin = thread_time()
        over = self._inflate_slice()
        if over:
            self._inflates = False
            self._process_later()
            self._make_room()
            self._go_on()
        self.spend(thread_time() - begin)
        if self._rest is not None and not over:
            self._inflates = False
        return over or not self._inflates

    def _process_later(self) -> None:
        while self._later and self._inflation is None:
            self.process_event(self._later.pop(0))

    def _fail(self, code: int, reason: str) -> None:
        self._cut_off = True
        self._inflation = None
        self.protocol.fail(code, reason)
        self.send_data()
        self._linger(self.close_timeout or 0)

    def _may_send(self, frame: Frame, size: int) -> bool:
        now = self.loop.time()
        if not (self._frames.spend(1, now) and self._bytes.spend(size, now)):
            return False
        if not self._let_in:
            self._first_frames += 1
            return self._first_frames <= MAX_FIRST_FRAMES
        if self._client is not None and not self._closing:
            self._throttle(self._rates.spend(self._client, size, now))
        if frame.opcode is Opcode.PING:
            waiting = self.transport.get_write_buffer_size()
            self._unread_pongs = min(waiting, self._unread_pongs + size)
        return self._unread_pongs <= MAX_UNREAD_PONGS

    def _end(self, reason: str) -> None:
        if self.protocol.state is not State.OPEN or self._unread_pongs > MAX_UNREAD_PONGS:
            self.transport.abort()  # a close frame would wait behind what the client does not read
            return
        self.protocol.fail(CloseCode.TOO_MANY, reason)
        self.send_data()
