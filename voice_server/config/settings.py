"""The server's settings and limits, each an environment variable, each with what it means."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Annotated, Literal

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    SecretStr,
    field_validator,
)
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

CHECKOUT = Path(__file__).resolve().parents[2]
ENV_PREFIX = "VOICE_SERVER_"

Count = Annotated[int, Field(ge=1)]
Seconds = Annotated[float, Field(gt=0, allow_inf_nan=False)]


def _origins(value: object) -> object:
    if not isinstance(value, str):
        return value
    listed = [part.strip().rstrip("/").lower() for part in value.split(",") if part.strip()]
    for origin in listed:
        if origin != "*" and not re.fullmatch(r"[a-z][a-z0-9+.-]*://[^/]+", origin):
            raise ValueError(f"expected origins such as https://agent.example, got {origin!r:.60}")
    return listed


class Limits(BaseModel):
    """What one client may ask of the server. Times in seconds. ``VOICE_SERVER_LIMITS_<NAME>``."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    max_message_bytes: Count = Field(
        default=65_536,
        description="Bytes of one message from a client; a larger one closes with 1009.",
    )
    max_turn_chars: Count = Field(default=2_000_000, description="Characters of text in one turn.")
    max_segment_chars: Annotated[int, Field(ge=20, le=1_000_000)] = Field(
        default=300,
        description="Characters spoken as one segment; longer text is cut at its best boundary.",
    )
    max_contexts: Count = Field(default=16, description="Turns at once on one socket.")
    max_connections: Count = Field(default=5_000, description="WebSockets open at once, in all.")
    messages_per_second: Count = Field(
        default=2_000, description="Messages per second from one client, as a long-run average."
    )
    messages_burst: Count = Field(
        default=20_000, description="Messages that one client may send ahead of that average."
    )
    idle_timeout: Seconds = Field(
        default=300.0,
        description="Seconds without a message, and with nothing to be heard, until a socket is "
        "closed.",
    )
    lead_limit: Seconds = Field(
        default=10.0,
        description="Seconds of sound that a listener may hold before its next segment waits for "
        "listeners who need theirs sooner.",
    )
    send_deadline: Seconds = Field(
        default=10.0,
        description="Seconds that one message may wait for a client that does not read.",
    )
    send_buffer_bytes: Annotated[int, Field(ge=4_096, le=1 << 30)] = Field(
        default=65_536, description="Bytes of each socket's kernel send buffer (SO_SNDBUF)."
    )
    tcp_user_timeout: Annotated[float, Field(ge=0.001, le=86_400)] = Field(
        default=15.0,
        description="Seconds until unacknowledged data ends a connection (TCP_USER_TIMEOUT).",
    )
    ping_interval: Seconds = Field(default=20.0, description="Seconds between WebSocket pings.")
    ping_timeout: Seconds = Field(default=20.0, description="Seconds to wait for a pong.")
    resume_window: Seconds = Field(
        default=30.0, description="Seconds that a turn waits for its client after a dropped socket."
    )
    resume_bytes: Count = Field(
        default=1_048_576, description="Bytes of sound kept per turn so that it can be resumed."
    )
    drain_timeout: Seconds = Field(
        default=25.0, description="Seconds that running turns get to finish after SIGTERM."
    )


def _comma_separated(value: object) -> object:
    if not isinstance(value, str):
        return value
    return tuple(item.strip() for item in value.split(",") if item.strip())


def _public_keys(keys: tuple[str, ...]) -> tuple[str, ...]:
    for key in keys:
        if not re.fullmatch("[0-9a-fA-F]{64}", key):
            raise ValueError(f"expected public keys of 64 hexadecimal digits, got {key!r:.70}")
    return keys


def _folder(path: Path) -> Path:
    """One that is not there yet is made when it is needed."""
    if os.path.exists(path) and not os.path.isdir(path):  # these raise nothing
        raise ValueError(f"expected a folder, and {path} is a file")
    return path


Folder = Annotated[Path, AfterValidator(_folder)]


def _address(value: object) -> object:
    """``HOST:PORT``; a port alone is on loopback."""
    if not isinstance(value, str):
        return value
    host, _, port = value.strip().rpartition(":")
    host = host or "127.0.0.1"
    is_bare_ipv6 = ":" in host and not (host.startswith("[") and host.endswith("]"))
    if is_bare_ipv6 or not (port.isascii() and port.isdigit() and int(port) <= 65_535):
        raise ValueError(f"expected HOST:PORT such as 127.0.0.1:10200, got {value!r:.60}")
    return f"{host}:{int(port)}"


def _secret(value: object) -> object:
    """A key, without the line break that the file it was kept in ends with: no header has one."""
    if not isinstance(value, str):
        return value
    key = value.strip()
    if not key or not key.isprintable():
        raise ValueError("expected a secret that fits on one line")
    return key


def _rate(value: object) -> object:
    if value is False:  # YAML's reading of `off`
        return "off"
    if isinstance(value, str) and re.fullmatch(r"off|[1-9]\d{0,8}/(second|minute|hour|day)", value):
        return value
    raise ValueError(f"expected such as 60/minute or 5/second, or off, got {value!r:.60}")


Rate = Annotated[str, BeforeValidator(_rate)]


class Settings(BaseSettings):
    """The server's settings. Each is the environment variable ``VOICE_SERVER_<NAME>``."""

    model_config = SettingsConfigDict(
        env_prefix=ENV_PREFIX,
        env_nested_delimiter="_",
        env_nested_max_split=1,
        env_ignore_empty=True,
        extra="forbid",
        frozen=True,
    )

    host: str = Field(
        default="127.0.0.1",
        min_length=1,
        description="Address to listen on. Another than loopback demands an api_key.",
    )
    port: Annotated[int, Field(ge=0, le=65_535)] = Field(
        default=8000, description="TCP port to listen on; 0 takes a free one."
    )
    api_key: Annotated[SecretStr, BeforeValidator(_secret)] | None = Field(
        default=None,
        description="Key that HTTP and WebSocket clients must present; unset is no key.",
    )
    allowed_origins: Annotated[tuple[str, ...], NoDecode, BeforeValidator(_origins)] = Field(
        default=(),
        description="Origins, with commas between, whose pages may use the server; * is any page.",
    )
    wyoming: Annotated[str, BeforeValidator(_address)] | None = Field(
        default=None,
        description="HOST:PORT for Home Assistant's Wyoming protocol, which knows no keys; unset "
        "is none.",
    )
    relay: str | None = Field(
        default=None,
        description="Relay that the server dials, such as wss://relay.example.com; unset is none.",
    )
    relay_name: Annotated[str, Field(pattern=r"^[A-Za-z0-9_-]{1,64}$")] = Field(
        default="home", description="Name of this box at its relay."
    )
    relay_key: Annotated[SecretStr, BeforeValidator(_secret)] | None = Field(
        default=None, description="Key of this box, which the relay knows too. Never sent."
    )
    relay_ca: Path | None = Field(
        default=None,
        description="PEM file: only a relay whose certificate these authorities signed is trusted; "
        "unset is the system's.",
    )
    relay_plain: bool = Field(
        default=False,
        description="Dial ws:// beyond this machine, too: in a network that encrypts by itself.",
    )
    relay_encoding: Literal["msgpack", "json"] = Field(
        default="msgpack", description="How the tunnel packs messages; json has base64 in it."
    )
    relay_keepalive: Seconds = Field(
        default=5.0,
        description="Seconds between signs of life in the tunnel, both ends; three missed end it.",
    )
    relay_port: Annotated[int, Field(ge=0, le=65_535)] = Field(
        default=9800, description="TCP port of the relay itself; 0 takes a free one."
    )
    relay_boxes: SecretStr | None = Field(
        default=None,
        description="At the relay: NAME=KEY of each box, with commas between; the first is the "
        "default, and a name may have two keys.",
    )
    relay_timeout: Seconds = Field(
        default=300.0,
        description="At the relay: seconds until a box has begun its answer; then 504.",
    )
    relay_store_mb: Count = Field(
        default=10_240,
        description="At the relay: MiB of voice packages kept of each box; more are left out.",
    )
    relay_key_rate: Rate = Field(
        default="6000/minute",
        description="At the relay: how often one key may ask, a WebSocket counting once; off is "
        "no limit.",
    )
    relay_address_rate: Rate = Field(
        default="6000/minute",
        description="At the relay: how often one address may ask, with whatever keys; off is no "
        "limit.",
    )
    relay_wrong_keys: Rate = Field(
        default="30/minute",
        description="At the relay: wrong keys from one address until it gets 429; off is no limit.",
    )
    relay_certificate: Path | None = Field(
        default=None, description="At the relay: PEM file of its certificate; unset is no TLS."
    )
    relay_certificate_key: Path | None = Field(
        default=None, description="At the relay: PEM file of the certificate's key."
    )
    data_dir: Folder = Field(
        default=CHECKOUT / "data",
        description="Folder for what the server writes: voices, history, caches.",
    )
    voice_samples_dir: Folder = Field(
        default=CHECKOUT / "voice_samples",
        description="Folder where an audio file dropped in becomes a voice.",
    )
    database_url: SecretStr | None = Field(
        default=None,
        description="SQLAlchemy URL for voices and history; unset is SQLite in the data folder.",
    )
    upload_retention: Seconds = Field(
        default=43_200.0, description="Seconds that an uploaded recording is kept unless saved."
    )
    preview_retention: Seconds = Field(
        default=1_200.0, description="Seconds that the sound of a preview is kept."
    )
    prompt_cache_mb: Count = Field(
        default=4_096, description="MiB of prepared voices on disk; the least used go first."
    )
    preload: bool = Field(
        default=True, description="Load the models at the start; off, with the first turn."
    )
    model_idle_unload: Annotated[float, Field(ge=0, allow_inf_nan=False)] = Field(
        default=0.0,
        description="Seconds without speech after which a model leaves memory; 0 is never.",
    )
    package_signing_key: Path | None = Field(
        default=None,
        description="File with an Ed25519 private key in hex, which signs exported packages.",
    )
    package_trusted_keys: Annotated[
        tuple[str, ...], NoDecode, BeforeValidator(_comma_separated), AfterValidator(_public_keys)
    ] = Field(
        default=(),
        description="Ed25519 public keys in hex, with commas between; set, only packages that one "
        "of them signed are imported.",
    )
    backends_file: Path = Field(
        default=CHECKOUT / "backends.yaml", description="File that lists the backends."
    )
    log_level: Literal["DEBUG", "INFO", "WARNING", "ERROR"] = Field(
        default="INFO",
        description="Least severe level that is logged. User text appears at DEBUG only.",
    )
    log_format: Literal["text", "json"] = Field(
        default="text", description="Log lines for people (text), or one JSON object each (json)."
    )
    traces: bool = Field(
        default=False,
        description="Send a trace of every turn; OTEL_EXPORTER_OTLP_ENDPOINT says where. Needs the "
        "extra `traces`.",
    )
    limits: Limits = Field(default=Limits(), description="Limits of every connection.")

    @field_validator("log_level", mode="before")
    @classmethod
    def _in_capitals(cls, value: object) -> object:
        return value.upper() if isinstance(value, str) else value
