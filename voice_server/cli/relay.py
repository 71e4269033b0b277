"""``cli.py relay`` and ``server.py relay``: the public door of servers that dial in."""

from __future__ import annotations

import logging
import socket
from dataclasses import replace
from typing import TYPE_CHECKING, Annotated

import typer

from voice_server.cli.console import errors_told
from voice_server.core.errors import ConfigError

if TYPE_CHECKING:
    from uvicorn import Config as ServerConfig

    from voice_server.config import Config
    from voice_server.relay.app import Relay

logger = logging.getLogger(__name__)


def relay(
    host: Annotated[
        str | None,
        typer.Option(help="Address to listen on, such as 0.0.0.0.", show_default="127.0.0.1"),
    ] = None,
    port: Annotated[
        int | None, typer.Option(help="TCP port; 0 takes a free one.", show_default="9800")
    ] = None,
) -> None:
    """Run the relay that speech servers dial with --relay, for clients who cannot reach them.

    VOICE_SERVER_RELAY_BOXES lists who may dial in; VOICE_SERVER_API_KEY is what clients show.
    """
    from voice_server.config import load_config

    with errors_told():
        config = load_config(host=host, relay_port=port)
        settings = config.settings
        run(replace(config, settings=settings.model_copy(update={"port": settings.relay_port})))


def run(config: Config) -> None:
    """Relay until SIGINT or SIGTERM. Raises ConfigError."""
    import uvloop

    from voice_server.cli.logs import configure_logging
    from voice_server.cli.serve import listen

    settings = config.settings
    configure_logging(settings.log_level, settings.log_format)
    for warning in config.warnings:
        logger.warning("%s", warning)
    # Made first: a mistake of the settings shall not cost a port.
    from voice_server.relay.app import Relay

    app = Relay(config)
    serving = server_config(app, config)
    with listen(config) as listener:
        uvloop.run(_serve(app, serving, listener))


def server_config(app: Relay, config: Config) -> ServerConfig:
    """How uvicorn serves a relay. Raises ConfigError for certificates that cannot be used."""
    from voice_server.cli.leaving import uvicorn_config
    from voice_server.core.tunnel import MAX_FRAME
    from voice_server.relay.wire import ServerWire

    serving = uvicorn_config(app, config.limits)
    serving.ws, serving.ws_max_size = ServerWire, MAX_FRAME
    if (tls := tls_of(config)) is not None:
        serving.ssl_certfile, serving.ssl_keyfile = tls
    return serving


def tls_of(config: Config) -> tuple[str, str] | None:
    """The files of certificate and key; None is no TLS. Raises ConfigError for unusable ones."""
    import ssl

    certificate = config.settings.relay_certificate
    key = config.settings.relay_certificate_key
    if certificate is None:
        if key is not None:
            raise ConfigError(
                "environment › VOICE_SERVER_RELAY_CERTIFICATE › expected beside "
                "VOICE_SERVER_RELAY_CERTIFICATE_KEY: without it nothing is encrypted"
            )
        return None
    files = str(certificate), str(key or certificate)
    try:
        ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_cert_chain(*files)
    except OSError as exc:  # ssl.SSLError too
        raise ConfigError(
            "environment › VOICE_SERVER_RELAY_CERTIFICATE, VOICE_SERVER_RELAY_CERTIFICATE_KEY › "
            f"expected PEM files of a certificate and its key, got {' and '.join(files)}: {exc}"
        ) from None
    return files


async def _serve(app: Relay, serving: ServerConfig, listener: socket.socket) -> None:
    from voice_server.cli.leaving import LeavingServer

    def started() -> None:
        scheme = "https" if serving.is_ssl else "http"
        address, port = listener.getsockname()[:2]
        shown = f"[{address}]:{port}" if ":" in address else f"{address}:{port}"
        print(f"Voice relay listens on {scheme}://{shown} ({', '.join(app.boxes)})", flush=True)

    await LeavingServer(serving, app.drain, started).serve(sockets=[listener])
