"""What a hostile or clumsy peer may send, frame by frame: RFC 6455, and RFC 7692 refused.

Raw bytes go to a real server; what comes back is the close code, a pong, or proof of life: the
answer to ``{"cancel": true}`` shows that the socket still works.
"""

from __future__ import annotations

import base64
import os
import socket
import struct
from dataclasses import dataclass

import pytest

ALIVE = b'{"cancel": true}'
TIMEOUT = 60.0


def frame(opcode, payload=b"", *, fin=True, rsv=0, masked=True, length=None):
    """One client frame; ``length`` overrides the header's, as (indicator, packed)."""
    head = bytes([(0x80 if fin else 0) | rsv << 4 | opcode])
    size = len(payload)
    mask_bit = 0x80 if masked else 0
    if length is not None:
        indicator, packed = length
        head += bytes([mask_bit | indicator]) + packed
    elif size < 126:
        head += bytes([mask_bit | size])
    elif size < 65_536:
        head += bytes([mask_bit | 126]) + struct.pack(">H", size)
    else:
        head += bytes([mask_bit | 127]) + struct.pack(">Q", size)
    if not masked:
        return head + payload
    key = os.urandom(4)
    return head + key + bytes(byte ^ key[i % 4] for i, byte in enumerate(payload))


def text(payload=ALIVE, **kw):
    return frame(1, payload, **kw)


def close(code=None, reason=b""):
    return frame(8, b"" if code is None else struct.pack(">H", code) + reason)


@dataclass(frozen=True)
class Case:
    name: str
    sent: bytes
    expect: object  # a close code, a set of them, "alive", or the payload of a pong


def split(payload, sizes):
    """``payload`` as a fragmented text message."""
    parts, at = [], 0
    for size in sizes:
        parts.append(payload[at : at + size])
        at += size
    parts.append(payload[at:])
    return b"".join(
        frame(1 if i == 0 else 0, part, fin=i == len(parts) - 1) for i, part in enumerate(parts)
    )


INVALID_UTF8 = {
    "a lone continuation byte": b"\x80",
    "an overlong slash": b"\xc0\xaf",
    "an overlong NUL": b"\xc0\x80",
    "a truncated sequence": b"\xe2\x82",
    "a surrogate": b"\xed\xa0\x80",
    "a surrogate pair": b"\xed\xa0\xbd\xed\xb8\x80",
    "above U+10FFFF": b"\xf4\x90\x80\x80",
    "a five-byte sequence": b"\xf8\x88\x80\x80\x80",
    "0xFE": b"\xfe",
    "0xFF": b"\xff",
    "good text before": "κόσμε".encode() + b"\xed\xa0\x80",
}

CASES = [
    # -- text: lengths and encodings of the length
    *(
        Case(f"text of {n} bytes", text(ALIVE + b" " * (n - len(ALIVE))), "alive")
        for n in (16, 17, 124, 125, 126, 127, 128, 1000, 32_768, 65_535, 65_536)
    ),
    Case("text above the limit", text(b" " * 65_537), 1009),
    Case("a header that promises 2^62 bytes", frame(1, length=(127, struct.pack(">Q", 1 << 62))), {1002, 1009}),
    Case("a header that promises 2^63 bytes", frame(1, length=(127, struct.pack(">Q", 1 << 63))), {1002, 1009}),
    Case("a header that promises 4 GiB", frame(1, length=(127, struct.pack(">Q", 1 << 32))), {1002, 1009}),
    Case("empty text", text(b""), 1008),
    Case("text that is not JSON", text(b"hello"), 1008),
    Case("a JSON number", text(b"7"), 1008),
    *(Case(f"not UTF-8: {name}", text(payload), {1007}) for name, payload in INVALID_UTF8.items()),
    *(
        Case(f"not UTF-8, in two fragments: {name}", split(payload, [1]), {1007})
        for name, payload in INVALID_UTF8.items()
        if len(payload) > 1
    ),
    Case("a character cut in two by fragments", split(b'{"cancel": true, "context": null}', [5]), "alive"),
    Case("JSON with an emoji cut by fragments", split('{"token": "😀", "cancel": true}'.encode(), [12, 1, 1]), "alive"),
    # -- binary goes the other way only
    *(Case(f"binary of {n} bytes", frame(2, bytes(n)), 1008) for n in (0, 1, 125, 126, 1000)),
    Case("binary in fragments", frame(2, b"ab", fin=False) + frame(0, b"c"), 1008),
    # -- reserved bits and opcodes, masks
    *(Case(f"reserved bits {rsv} on text", text(rsv=rsv), 1002) for rsv in range(1, 8)),
    *(Case(f"reserved bits {rsv} on ping", frame(9, rsv=rsv), 1002) for rsv in (1, 2, 4, 7)),
    *(Case(f"reserved bits {rsv} on close", frame(8, rsv=rsv), 1002) for rsv in (1, 4)),
    *(Case(f"opcode {op}", frame(op, b"x"), 1002) for op in (3, 4, 5, 6, 7, 11, 12, 13, 14, 15)),
    *(Case(f"unmasked, opcode {op}", frame(op, b"", masked=False), 1002) for op in (1, 2, 8, 9, 10)),
    # -- fragments
    *(Case(f"text in fragments of {n}", split(ALIVE, [n] * (16 // n)), "alive") for n in (1, 2, 5, 8)),
    Case("an empty first fragment", split(ALIVE, [0]), "alive"),
    Case("empty fragments between", split(ALIVE, [4, 0, 0, 4]), "alive"),
    Case("an empty last fragment", split(ALIVE, [len(ALIVE)]), "alive"),
    Case("a ping between fragments", frame(1, ALIVE[:4], fin=False) + frame(9, b"mid") + frame(0, ALIVE[4:]), b"mid"),
    Case("a pong between fragments", frame(1, ALIVE[:4], fin=False) + frame(10, b"x") + frame(0, ALIVE[4:]), "alive"),
    Case("a continuation of nothing", frame(0, b"x"), 1002),
    Case("an unfinished continuation of nothing", frame(0, b"x", fin=False), 1002),
    Case("a continuation after a whole message", text() + frame(0, b"x"), 1002),
    Case("text inside a fragmented text", frame(1, b"{", fin=False) + text(), 1002),
    Case("binary inside a fragmented text", frame(1, b"{", fin=False) + frame(2, b"x"), 1002),
    Case("fragments above the limit together", frame(1, b" " * 40_000, fin=False) + frame(0, b" " * 40_000), 1009),
    Case("a fragmented ping", frame(9, b"x", fin=False), 1002),
    Case("a fragmented close", frame(8, struct.pack(">H", 1000), fin=False), 1002),
    Case("a fragmented pong", frame(10, b"x", fin=False), 1002),
    # -- control frames
    *(Case(f"a ping of {n} bytes", frame(9, b"p" * n), b"p" * n) for n in (0, 1, 124, 125)),
    Case("a ping of arbitrary bytes", frame(9, bytes(range(100))), bytes(range(100))),
    Case("two pings", frame(9, b"one") + frame(9, b"two"), b"one"),
    *(Case(f"a control frame of 126 bytes, opcode {op}", frame(op, b"p" * 126), 1002) for op in (8, 9, 10)),
    *(Case(f"an unasked pong of {n} bytes", frame(10, b"x" * n) + text(), "alive") for n in (0, 1, 125)),
    # -- close
    Case("a close without a code", close(), {1000, 1005}),
    Case("a close with half a code", frame(8, b"\x03"), 1002),
    *(
        Case(f"a close with {code}", close(code), code)
        for code in (1000, 1001, 1002, 1003, 1007, 1008, 1009, 1010, 1011, 3000, 3999, 4000, 4999)
    ),
    *(
        Case(f"a close with {code}, which nobody may send", close(code), 1002)
        for code in (0, 1, 999, 1004, 1005, 1006, 1015, 1016, 1100, 2000, 2999, 5000, 65535)
    ),
    Case("a close with a reason", close(1000, b"bye"), 1000),
    Case("a close with a reason of 123 bytes", close(1000, b"x" * 123), 1000),
    Case("a close with a reason of 124 bytes", close(1000, b"x" * 124), 1002),
    Case("a close with a reason that is not UTF-8", close(1000, b"\xff\xfe"), {1002, 1007}),
    Case("text after a close", close(1000) + text(), 1000),
    Case("two closes", close(1000) + close(1001), 1000),
]  # fmt: skip


class Peer:
    """A client that sends whatever bytes it is told to."""

    def __init__(self, port, headers=()):
        self._socket = socket.create_connection(("127.0.0.1", port), TIMEOUT)
        self._buffer = b""
        key = base64.b64encode(os.urandom(16)).decode()
        lines = [
            "GET /stream-tokens HTTP/1.1", f"Host: 127.0.0.1:{port}", "Upgrade: websocket",
            "Connection: Upgrade", f"Sec-WebSocket-Key: {key}", "Sec-WebSocket-Version: 13", *headers,
        ]  # fmt: skip
        self._socket.sendall(("\r\n".join(lines) + "\r\n\r\n").encode())
        while b"\r\n\r\n" not in self._buffer:
            self._more()
        self.head, self._buffer = self._buffer.split(b"\r\n\r\n", 1)

    def send(self, data):
        self._socket.sendall(data)

    def frames(self):
        """(opcode, payload) until the server has closed."""
        while True:
            try:
                opcode, length = self._take(2)
                if (length := length & 127) == 126:
                    (length,) = struct.unpack(">H", self._take(2))
                elif length == 127:
                    (length,) = struct.unpack(">Q", self._take(8))
                yield opcode & 15, self._take(length)
            except (EOFError, ConnectionError):
                return

    def close(self):
        self._socket.close()

    def _take(self, count):
        while len(self._buffer) < count:
            self._more()
        data, self._buffer = self._buffer[:count], self._buffer[count:]
        return data

    def _more(self):
        data = self._socket.recv(65_536)
        if not data:
            raise EOFError
        self._buffer += data


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_every_frame_gets_the_answer_of_the_rfc(server, case):
    peer = Peer(server.port)
    try:
        assert b" 101 " in peer.head
        peer.send(case.sent)
        for opcode, payload in peer.frames():
            if opcode == 8:
                code = struct.unpack(">H", payload[:2])[0] if payload else 1005
                expected = case.expect if isinstance(case.expect, set) else {case.expect}
                assert code in expected, payload
                return
            if opcode == 10:
                assert payload == case.expect
                return
            if b'"cancelled"' in payload:
                # Proof of life; what else was sent may still have to be judged.
                if case.expect == "alive":
                    return
            elif case.expect == "alive" and opcode == 1:
                pytest.fail(payload.decode())
            if case.expect == "alive":
                continue
        if case.expect == "alive":
            pytest.fail("closed without an answer")
        pytest.fail("closed without a close frame")
    finally:
        peer.close()


def test_unasked_pongs_leave_the_socket_alive(server):
    peer = Peer(server.port)
    peer.send(frame(10, b"x") * 50 + text())
    assert any(b'"cancelled"' in payload for _, payload in peer.frames())
    peer.close()


@pytest.mark.parametrize(
    "offer",
    [
        "permessage-deflate",
        "permessage-deflate; client_max_window_bits",
        "permessage-deflate; server_max_window_bits=8",
        "permessage-deflate; server_no_context_takeover; client_no_context_takeover",
        "x-webkit-deflate-frame, permessage-deflate",
    ],
)
def test_compression_is_never_agreed_to(server, offer):
    peer = Peer(server.port, [f"Sec-WebSocket-Extensions: {offer}"])
    assert b" 101 " in peer.head
    assert b"sec-websocket-extensions" not in peer.head.lower()
    # A compressed frame is then a reserved bit, and a mistake.
    peer.send(frame(1, b"\xaa", rsv=4))
    closes = [payload for opcode, payload in peer.frames() if opcode == 8]
    assert closes
    assert struct.unpack(">H", closes[0][:2])[0] == 1002
    peer.close()


def answer(port, *lines):
    """The status of a handshake made of these lines."""
    with socket.create_connection(("127.0.0.1", port), TIMEOUT) as connection:
        connection.sendall(("\r\n".join(lines) + "\r\n\r\n").encode("latin-1"))
        data = connection.recv(65_536)
    return int(data.split(b" ", 2)[1]) if data else 0


GOOD = {
    "Host": "127.0.0.1", "Upgrade": "websocket", "Connection": "Upgrade",
    "Sec-WebSocket-Key": "dGhlIHNhbXBsZSBub25jZQ==", "Sec-WebSocket-Version": "13",
}  # fmt: skip


@pytest.mark.parametrize(
    "change",
    [
        {"Sec-WebSocket-Version": "12"},
        {"Sec-WebSocket-Version": "x"},
        {"Sec-WebSocket-Version": None},
        {"Sec-WebSocket-Key": None},
        {"Sec-WebSocket-Key": "short"},
        {"Sec-WebSocket-Key": "not base64 at all!!"},
        {"Upgrade": None},
        {"Upgrade": "h2c"},
        {"Connection": "close"},
    ],
    ids=str,
)
def test_a_handshake_that_is_not_one_is_refused(server, change):
    headers = {**GOOD, **change}
    lines = [f"{name}: {value}" for name, value in headers.items() if value is not None]
    assert 400 <= answer(server.port, "GET /stream-tokens HTTP/1.1", *lines) < 500


@pytest.mark.parametrize(
    ("path", "header", "status"),
    [("/stream?text=" + "a" * 9_000, "X: y", 414), ("/stream", "Cookie: " + "a" * 9_000, 431)],
    ids=["address", "header"],
)
def test_a_handshake_with_a_line_that_is_too_long_is_answered(server, path, header, status):
    lines = [f"{name}: {value}" for name, value in GOOD.items()]
    assert answer(server.port, f"GET {path} HTTP/1.1", *lines, header) == status


def test_a_handshake_is_a_get(server):
    lines = [f"{name}: {value}" for name, value in GOOD.items()]
    assert 400 <= answer(server.port, "POST /stream-tokens HTTP/1.1", *lines) < 500


def test_a_peer_that_goes_in_the_middle_of_a_frame_leaves_nothing(server):
    for sent in (b"\x81", b"\x81\xfe", frame(1, b"x" * 100)[:50], frame(1, b"{", fin=False)):
        peer = Peer(server.port)
        peer.send(sent)
        peer.close()
    server.wait_quiet()


def test_a_message_in_endless_empty_fragments_is_refused(server):
    peer = Peer(server.port)
    peer.send(frame(1, b"", fin=False) + frame(0, b"", fin=False) * 300 + frame(9, b"there?"))
    closes = [payload for opcode, payload in peer.frames() if opcode == 8]
    assert struct.unpack(">H", closes[0][:2])[0] == 1008
    peer.close()


def test_a_peer_that_goes_on_sending_can_still_read_why_it_was_refused(server):
    peer = Peer(server.port)
    peer.send(frame(1, length=(127, struct.pack(">Q", 2**40))))
    for _ in range(64):
        peer.send(b"x" * 65_536)
    codes = [
        struct.unpack(">H", payload[:2])[0] for opcode, payload in peer.frames() if opcode == 8
    ]
    peer.close()
    assert codes == [1009]
    server.wait_quiet()


def test_a_text_that_is_no_utf8_is_no_matter_for_the_log(server, caplog):
    peer = Peer(server.port)
    peer.send(text(b'{"token": "\xff"}'))
    assert [payload[:2] for opcode, payload in peer.frames() if opcode == 8] == [b"\x03\xef"]
    peer.close()
    server.wait_quiet()
    assert not [record for record in caplog.records if record.exc_info]
