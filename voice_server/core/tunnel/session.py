"""Streams over a session, and the session over links that come and go.

    write ─▶ pending of the stream ─▶ frame n ─▶ kept until acknowledged ─▶ sealed by the link
             (waits for the window)              (sent again on a new link)

A frame's body is ``{"number", "ack", "records"}``, or without records ``{"ack"}``, which also says
that the peer is alive, or ``{"ack", "bye"}``, which ends the session. ``number`` counts frames of
one direction over all links of the session; ``ack`` is how many of the peer's have come. A new
link begins where the acknowledged ones end, so that not a byte is lost or comes twice.

Each stream may have ``WINDOW`` bytes on their way that the peer's reader has not taken. So a
reader that is slow holds up its own stream and no other, and what is kept is bounded.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field
from typing import Any, Final

from voice_server.core.tunnel.errors import TunnelBroken
from voice_server.core.tunnel.link import Link
from voice_server.core.tunnel.records import (
    CLOSE,
    HEADS,
    MAX_RECORD,
    MAX_STREAMS,
    Record,
    Role,
    check,
    is_last,
    size,
    weight,
)

WINDOW: Final = 1 << 18
"""Bytes of one direction of a stream that may be on their way. One record may pass it."""
PENDING: Final = 1 << 16
"""Bytes of a stream that wait for the window until its writer has to."""
OUTAGE: Final = 1 << 24
"""The same while there is no link: a quick engine has minutes of sound ready in half of one, and a
writer that waits longer than the server's send deadline is given up."""
ALL_OUTAGE: Final = 1 << 28
"""Bytes that wait in all streams together while there is no link."""
CHUNK: Final = 1 << 14
"""Bytes of an HTTP body in one record, and of one frame unless a record is longer: what another
stream's token waits for."""
_ACK_EVERY = 32


@dataclass(slots=True)
class _Stream:
    window: int = WINDOW
    pending: deque[tuple[Record, int]] = field(default_factory=deque)
    pending_bytes: int = 0
    unread: int = 0  # bytes that came, and that nobody has taken
    owed: int = 0  # bytes that were taken, and not yet told
    has_begun: bool = False  # its answer came
    is_closed: bool = False  # the box has said its last word, and the relay has yet to

    @property
    def is_ready(self) -> bool:
        return bool(self.pending) and (self.window > 0 or not self.pending[0][1])


class Session:
    """One end. ``name``: what both ends call the session. Not thread-safe, and knows no clock."""

    def __init__(self, role: Role, name: bytes) -> None:
        self.role = role
        self.name = name
        self.received = 0  # frames of the peer, over all links
        self._link: Link | None = None
        self._streams: dict[int, _Stream] = {}
        self._last_stream = 0
        self._control: deque[Record] = deque()
        self._ready: dict[int, None] = {}  # streams that may send, in whose turn it is
        self._pending_bytes = 0
        self._sent = 0
        self._kept: deque[tuple[int, list[Record]]] = deque()
        self._resent = 0  # how many of ``_kept`` went over this link
        self._unacknowledged = 0  # frames that came since the last ack went
        self._is_ack_due = False
        self._bye: str | None = None
        self.is_over = False  # we said goodbye

    # -- links -----------------------------------------------------------------------------------

    @property
    def is_linked(self) -> bool:
        return self._link is not None

    def can_resume(self, peer_received: int) -> bool:
        """Whether everything is kept that a peer lacks which has so many of our frames."""
        return self._sent - len(self._kept) <= peer_received <= self._sent

    def link_up(self, link: Link, peer_received: int) -> None:
        """Go on over a link. Raises TunnelBroken where ``can_resume`` says no."""
        if not self.can_resume(peer_received):
            raise TunnelBroken(f"frame {peer_received} of {self._sent} is not kept any more")
        self._acknowledge(peer_received)
        self._link, self._resent, self._is_ack_due = link, 0, False

    def link_down(self) -> None:
        """The link is lost; streams wait for another one."""
        self._link = None

    # -- streams ---------------------------------------------------------------------------------

    @property
    def streams(self) -> tuple[int, ...]:
        """The streams that are not over."""
        return tuple(self._streams)

    def open(self, scope: dict[str, Any], *, own: bool = False) -> int:
        """Begin a stream. ``own``: for the relay itself, not for one of its clients.

        Raises TunnelBroken for a scope that may not be sent.
        """
        number = self._last_stream + 1
        record = {"type": "open", "stream": number, "scope": scope, "own": own}
        self._control.append(check(record, self.role))
        self._last_stream = number
        self._streams[number] = _Stream()
        return number

    def write(self, number: int, record: Record) -> None:
        """Send a record of a stream when its window allows; a long HTTP body goes in pieces.

        Nothing happens where the stream is over, or where the box has closed it, but for the
        relay's last word. Raises TunnelBroken for what may not be sent.
        """
        stream = self._streams.get(number)
        if stream is None or (stream.is_closed and not is_last(record)):
            return
        for piece in _pieces({**record, "stream": number}):
            held = size(check(piece, self.role))
            stream.pending.append((piece, held))
            stream.pending_bytes += held
            self._pending_bytes += held
        stream.is_closed |= record["type"] == CLOSE
        if stream.is_ready:
            self._ready[number] = None

    def has_room(self, number: int) -> bool:
        """Whether the writer may go on, or must wait. True where the stream is over."""
        stream = self._streams.get(number)
        if stream is None:
            return True
        if self._link is not None:
            return stream.pending_bytes < PENDING
        return stream.pending_bytes < OUTAGE and self._pending_bytes < ALL_OUTAGE

    def taken(self, number: int, count: int) -> None:
        """The reader has taken ``count`` bytes of a stream: as many more may come."""
        stream = self._streams.get(number)
        if stream is None:
            return
        stream.unread -= count
        stream.owed += count
        if stream.owed >= WINDOW // 4:
            self._control.append({"type": "credit", "stream": number, "bytes": stream.owed})
            stream.owed = 0

    def reset(self, number: int, reason: str) -> None:
        """End a stream at once; what waits is dropped."""
        if number in self._streams:
            self._forget(number)
            self._control.append({"type": "reset", "stream": number, "reason": reason})

    def tell_voices_changed(self) -> None:
        """The box's catalogue is another than before."""
        self._control.append({"type": "voices.changed"})

    def bye(self, reason: str) -> None:
        """End the session: the next frame is the last."""
        self._bye = reason

    def acknowledge(self) -> None:
        """Have a frame go out, even if there is nothing to say but that we are alive."""
        self._is_ack_due = True

    # -- frames ----------------------------------------------------------------------------------

    @property
    def has_news(self) -> bool:
        """Whether ``next_frame`` has something to send."""
        return self._link is not None and bool(
            self._ready
            or self._control
            or self._resent < len(self._kept)
            or self._is_ack_due
            or self._unacknowledged >= _ACK_EVERY
            or self._bye is not None
        )

    def next_frame(self, limit: int = CHUNK) -> bytes | str | None:
        """The next frame to send over the link; None when there is nothing to send.

        ``limit``: bytes of what it holds, unless it holds one record only; CHUNK at most.
        """
        if self._link is None:
            return None
        if self._bye is not None:
            reason, self._bye, self.is_over = self._bye, None, True
            return self._link.seal({"ack": self.received, "bye": reason})
        if self._resent == len(self._kept) and (records := self._next_records(limit)):
            self._sent += 1
            self._kept.append((self._sent, records))
        if self._resent < len(self._kept):
            number, records = self._kept[self._resent]
            self._resent += 1
            self._unacknowledged, self._is_ack_due = 0, False
            return self._link.seal({"number": number, "ack": self.received, "records": records})
        if self._is_ack_due or self._unacknowledged >= _ACK_EVERY:
            self._unacknowledged, self._is_ack_due = 0, False
            return self._link.seal({"ack": self.received})
        return None

    def receive(self, frame: bytes | str) -> list[Record]:
        """The records of a frame, of streams that are not over; ``{"type": "bye"}`` is the last.

        Raises TunnelBroken: the link must be closed then.
        """
        if self._link is None:
            raise TunnelBroken("there is no link")
        body = self._link.open(frame)
        ack = body.get("ack")
        if type(ack) is not int or not self._sent - len(self._kept) <= ack <= self._sent:
            raise TunnelBroken("it acknowledges what was not sent")
        self._acknowledge(ack)
        if "bye" in body:
            return [{"type": "bye", "reason": f"{body['bye']}"[:200]}]
        if "number" not in body:
            return []
        if body["number"] != self.received + 1 or not isinstance(body.get("records"), list):
            raise TunnelBroken(f"expected frame {self.received + 1}")
        # All of a frame is believed, or nothing.
        records = [check(record, self.role.peer) for record in body["records"]]
        self.received += 1
        self._unacknowledged += 1
        return [record for record in records if self._take(record)]

    def _take(self, record: Record) -> bool:
        """Make it part of the history; whether it concerns whoever uses the session."""
        kind = record["type"]
        if kind == "voices.changed":
            return True
        number: int = record["stream"]
        if kind == "open":
            if number != self._last_stream + 1 or len(self._streams) >= MAX_STREAMS:
                raise TunnelBroken(f"stream {number} cannot begin")
            self._last_stream = number
            self._streams[number] = _Stream()
            return True
        if number > self._last_stream:
            raise TunnelBroken(f"stream {number} was never begun")
        stream = self._streams.get(number)
        if stream is None:
            return False  # it crossed our end of the stream
        if kind == "credit":
            stream.window += record["bytes"]
            if stream.window > WINDOW:
                raise TunnelBroken(f"stream {number}: credit for what was not sent")
            if stream.is_ready:
                self._ready[number] = None
            return True
        if stream.is_closed and not is_last(record):
            if self.role is Role.RELAY:
                raise TunnelBroken(f"stream {number}: more behind its close")
            return False  # it crossed our close
        if kind in HEADS:
            if stream.has_begun:
                raise TunnelBroken(f"stream {number}: a second answer")
            stream.has_begun = True
        stream.unread += size(record)
        if stream.unread + stream.owed > WINDOW + MAX_RECORD:
            raise TunnelBroken(f"stream {number}: more than its window")
        if is_last(record):
            self._forget(number)
        elif kind == CLOSE:
            self._close(number, stream)
        return True

    def _next_records(self, limit: int) -> list[Record]:
        records: list[Record] = []
        held = 0
        while self._control and len(records) < 64 and held < limit:
            records.append(self._control.popleft())
            held += weight(records[-1])
        while self._ready and held < limit:
            number = next(iter(self._ready))
            stream = self._streams[number]
            count = stream.pending[0][1]
            if held and held + count > limit:
                break
            del self._ready[number]
            record, _ = stream.pending.popleft()
            records.append(record)
            held += count or weight(record)
            stream.window -= count
            stream.pending_bytes -= count
            self._pending_bytes -= count
            if is_last(record):
                self._forget(number)
            elif stream.is_ready:
                self._ready[number] = None
        return records

    def _close(self, number: int, stream: _Stream) -> None:
        """The box reads no more: what waits for it shall not hold up how the client took it."""
        stream.is_closed = True
        while stream.pending and not is_last(stream.pending[0][0]):
            _, held = stream.pending.popleft()
            stream.pending_bytes -= held
            self._pending_bytes -= held
        if stream.is_ready:
            self._ready[number] = None
        else:
            self._ready.pop(number, None)

    def _forget(self, number: int) -> None:
        stream = self._streams.pop(number)
        self._pending_bytes -= stream.pending_bytes
        self._ready.pop(number, None)

    def _acknowledge(self, count: int) -> None:
        while self._kept and self._kept[0][0] <= count:
            self._kept.popleft()
            self._resent = max(0, self._resent - 1)


def _pieces(record: Record) -> list[Record]:
    body = record.get("body")
    if body is None or len(body) <= CHUNK:
        return [record]
    starts = range(0, len(body), CHUNK)
    return [
        {
            **record,
            "body": body[start : start + CHUNK],
            "more_body": record["more_body"] or start + CHUNK < len(body),
        }
        for start in starts
    ]
