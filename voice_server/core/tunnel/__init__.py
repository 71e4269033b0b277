"""The tunnel between a box and its relay, without IO: frames go in, records come out.

A box (a server behind a router) dials the relay (a public machine). One WebSocket is a *link*;
links drop and are made again. What lives longer than a link is the *session*: streams, each of
which carries the ASGI messages of one HTTP request or WebSocket.

    handshake    who is there: a challenge, a proof from each side, two fresh keys
    link         one WebSocket: seals frames and opens them; what was changed, repeated or moved
                 does not open
    session      numbers and acknowledges frames, so that a new link goes on where one broke off;
                 streams with flow control of their own
    records      what may be said on a stream, and by whom: one table
    codec        records as msgpack, or as JSON with base64

Errors: TunnelBroken, for everything that a peer can do wrong. The link is over then, the session
is not, unless the peer says so. Refused is the relay's answer to a box that it does not let in.
"""

from voice_server.core.tunnel.codec import FAMILY, SUBPROTOCOLS, Encoding
from voice_server.core.tunnel.errors import Refused, TunnelBroken
from voice_server.core.tunnel.link import MAX_FRAME, Link
from voice_server.core.tunnel.records import MAX_RECORD, Record, Role
from voice_server.core.tunnel.session import WINDOW, Session

__all__ = [
    "FAMILY",
    "MAX_FRAME",
    "MAX_RECORD",
    "SUBPROTOCOLS",
    "WINDOW",
    "Encoding",
    "Link",
    "Record",
    "Refused",
    "Role",
    "Session",
    "TunnelBroken",
]
