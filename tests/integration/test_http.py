"""Requests that never come to their point."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
import uvicorn
from starlette.requests import Request
from starlette.responses import PlainTextResponse
from starlette.types import Receive, Scope, Send
from uvicorn.server import ServerState

from voice_server.web.http import MAX_HEAD, BoundedHttp

pytestmark = pytest.mark.anyio

PATIENCE = 60
HEAD = b"POST / HTTP/1.1\r\nHost: here\r\nContent-Length: 5\r\n\r\n"


class Impatient(BoundedHttp):
    head_timeout = 0.2


class LessImpatient(BoundedHttp):
    head_timeout = 2.0  # what the test says in time is said in time on a busy machine, too


async def echo(scope: Scope, receive: Receive, send: Send) -> None:
    body = await Request(scope, receive).body()
    await PlainTextResponse(body)(scope, receive, send)


@asynccontextmanager
async def served(protocol: type[BoundedHttp]) -> AsyncIterator[int]:
    """The port where ``echo`` answers."""
    config = uvicorn.Config(echo, http=protocol, lifespan="off", log_config=None)
    config.load()
    state = ServerState()
    server = await asyncio.get_running_loop().create_server(
        lambda: protocol(config, state, {}), "127.0.0.1", 0
    )
    async with server:
        yield server.sockets[0].getsockname()[1]


async def end_of(port: int, beginning: bytes) -> bytes:
    """What is answered to somebody who says no more than this, when the server hangs up."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(beginning)
    async with asyncio.timeout(PATIENCE):
        try:
            return await reader.read()
        except ConnectionResetError:
            return b""
        finally:
            writer.close()


@pytest.mark.parametrize("beginning", [b"", b"GET / HT", b"GET / HTTP/1.1\r\nHost: here\r\n"])
async def test_a_request_whose_head_does_not_end_is_hung_up_on(beginning: bytes) -> None:
    async with served(Impatient) as port:
        assert await end_of(port, beginning) == b""


async def test_so_is_a_second_one_on_the_same_connection() -> None:
    async with served(LessImpatient) as port:
        answer = await end_of(port, HEAD + b"first" + b"GET / HTTP/1.1\r\nHo")
        assert answer.startswith(b"HTTP/1.1 200")
        assert answer.endswith(b"first")


async def test_a_body_may_take_its_time() -> None:
    async with served(LessImpatient) as port:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(HEAD)
        assert await end_of(port, b"GET") == b""  # so the other's time is over, too
        writer.write(b"later")
        async with asyncio.timeout(PATIENCE):
            assert b"200" in await reader.readline()
        writer.close()


async def test_headers_without_end_are_refused() -> None:
    async with served(BoundedHttp) as port:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(b"GET / HTTP/1.1\r\n" + b"X: y\r\n" * (MAX_HEAD // 6))
        async with asyncio.timeout(PATIENCE):
            assert b"400" in await reader.readline()
        writer.close()
