"""The listening socket: what its connections inherit."""

from __future__ import annotations

import socket
import sys
from pathlib import Path

import pytest

from voice_server.cli.serve import listen
from voice_server.config import Config, load_config
from voice_server.core.errors import ConfigError


def config(folder: Path, **settings: object) -> Config:
    (folder / "backends.yaml").write_text("default: tone\nbackends: {tone: }\n")
    return load_config(backends_file=folder / "backends.yaml", **settings)


@pytest.mark.parametrize("host", ["127.0.0.1", "::1", "localhost"])
def test_a_connection_has_a_small_buffer_and_gives_up_on_a_lost_peer(
    tmp_path: Path, host: str
) -> None:
    if host == "::1" and not socket.has_ipv6:
        host = "127.0.0.1"
    wanted = config(tmp_path, host=host, port=0)
    with listen(wanted) as listener:
        with socket.create_connection(listener.getsockname()[:2], timeout=20):
            accepted, _ = listener.accept()
            with accepted:
                buffer = accepted.getsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF)
                assert buffer <= 2 * wanted.limits.send_buffer_bytes  # Linux counts it twice
                assert accepted.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
                if sys.platform == "linux":
                    timeout = accepted.getsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT)
                    assert timeout == wanted.limits.tcp_user_timeout * 1000


def test_a_port_can_be_had_again_at_once_but_not_twice(tmp_path: Path) -> None:
    with listen(config(tmp_path, port=0)) as first:
        port = first.getsockname()[1]
        with pytest.raises(ConfigError, match=f"--port {port} › something listens there"):
            listen(config(tmp_path, port=port))
        with socket.create_connection(("127.0.0.1", port), timeout=20):
            first.accept()[0].close()
    listen(config(tmp_path, port=port)).close()
