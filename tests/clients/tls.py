"""TLS before a server without it, under a certificate authority that lives as long as the test.

python tls.py http://127.0.0.1:PORT      prints its own address and the authority's certificate,
                                         and stays until its input ends
"""

from __future__ import annotations

import asyncio
import ssl
import sys
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from urllib.parse import urlsplit

import trustme


@contextmanager
def encrypted(url: str, folder: Path) -> Iterator[tuple[str, Path]]:
    """The address of a door that forwards to ``url``, and the authority's certificate as PEM."""
    authority, certificate = trustme.CA(), folder / "authority.pem"
    authority.cert_pem.write_to_path(str(certificate))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("localhost", "127.0.0.1").configure_cert(context)
    loop = asyncio.new_event_loop()
    behind = urlsplit(url)

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        there, back = await asyncio.open_connection(behind.hostname, behind.port)
        await asyncio.gather(_pipe(reader, back), _pipe(there, writer))

    async def listen() -> int:
        server = await asyncio.start_server(serve, "127.0.0.1", 0, ssl=context)
        port: int = server.sockets[0].getsockname()[1]
        return port

    thread = threading.Thread(target=loop.run_forever, daemon=True)
    thread.start()
    port = asyncio.run_coroutine_threadsafe(listen(), loop).result(30)
    try:
        yield f"https://localhost:{port}", certificate
    finally:
        loop.call_soon_threadsafe(loop.stop)
        thread.join(30)


async def _pipe(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with suppress(OSError):
        while data := await reader.read(65_536):
            writer.write(data)
            await writer.drain()
    with suppress(OSError):
        writer.close()


def main() -> None:
    with tempfile.TemporaryDirectory() as folder, encrypted(sys.argv[1], Path(folder)) as door:
        print(*door, flush=True)
        sys.stdin.read()


if __name__ == "__main__":
    main()
