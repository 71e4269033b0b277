"""Which vendor's client a request comes from, and what a refusal looks like to it."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from starlette.types import Scope

from voice_server.core.errors import (
    InvalidRequest,
    RateLimited,
    Unauthorized,
    UnknownVoice,
    VoiceServerError,
)
from voice_server.web.vendors.errors import refusal, refusal_model, refusal_status
from voice_server.web.vendors.mount import VENDORS, Mount


def seen(path: str, *headers: tuple[bytes, bytes]) -> tuple[str, str]:
    """The vendor and the path that the application behind the mount sees."""
    found: list[Scope] = []

    async def app(scope: Scope, receive: Any, send: Any) -> None:
        found.append(scope)

    asyncio.run(Mount(app)({"type": "http", "path": path, "headers": list(headers)}, None, None))  # type: ignore[arg-type]
    return found[0]["state"]["vendor"], found[0]["path"]


@pytest.mark.parametrize(
    ("path", "vendor"),
    [
        ("/v1/audio/speech", "openai"),
        ("/v1/models", "openai"),
        ("/v1/", "openai"),
        ("/v1", "openai"),
        ("/v1/text-to-speech/en-us/stream-input", "elevenlabs"),
        ("/v1/voices", "elevenlabs"),
        ("/v2/voices", "elevenlabs"),
        ("/v1/speak", "deepgram"),
        ("/v2/speak", "deepgram"),
        ("/tts/bytes", "cartesia"),
        ("/telephony/vapi", "telephony"),
        ("/tts", ""),
        ("/voices", ""),
        ("/stream-tokens", ""),
        ("/", ""),
        ("*", ""),
        ("", ""),
    ],
)
def test_a_path_tells_the_vendor(path: str, vendor: str) -> None:
    assert seen(path) == (vendor, path)


def test_a_header_that_only_one_vendor_sends_decides_what_the_path_leaves_open() -> None:
    assert seen("/v1/models", (b"xi-api-key", b"k"))[0] == "elevenlabs"
    assert seen("/voices", (b"cartesia-version", b"2025-04-16"))[0] == "cartesia"


@pytest.mark.parametrize("vendor", ["openai", "elevenlabs", "deepgram", "cartesia"])
def test_a_base_url_with_the_vendor_s_name_settles_it(vendor: str) -> None:
    assert seen(f"/{vendor}/v1/models") == (vendor, "/v1/models")
    assert seen(f"/{vendor}") == (vendor, "/")
    assert seen(f"/{vendor}/v1/models", (b"xi-api-key", b"k"))[0] == vendor


def test_a_refusal_is_what_the_vendor_would_say() -> None:
    status, body, headers = refusal("openai", InvalidRequest("speed › too fast"), "n")
    assert (status, headers["x-request-id"]) == (400, "n")
    assert body["error"] == {
        "message": "speed › too fast",
        "type": "invalid_request_error",
        "param": "speed",
        "code": "invalid_request",
    }
    assert refusal("openai", Unauthorized("no"), "n")[1]["error"]["code"] == "invalid_api_key"
    assert refusal("openai", RateLimited("no"), "n")[1]["error"]["type"] == "rate_limit_error"
    status, body, headers = refusal("elevenlabs", UnknownVoice("gone"), "n")
    assert (status, body["detail"]["status"]) == (404, "voice_not_found")
    assert refusal("elevenlabs", InvalidRequest("a › b"), "n")[1]["detail"][0]["loc"] == [
        "body",
        "a",
    ]
    assert refusal("deepgram", Unauthorized("no"), "n")[1] == {
        "err_code": "INVALID_AUTH",
        "err_msg": "no",
        "request_id": "n",
    }
    assert refusal("cartesia", UnknownVoice("gone"), "n")[1]["error_code"] == "unknown_voice"


def test_what_is_wrong_with_a_whole_body_names_no_field() -> None:
    _, body, _ = refusal("elevenlabs", InvalidRequest("expected a map, got [1]"), "req_1")
    assert body["detail"][0]["loc"] == ["body"]


def errors_of(cls: type[VoiceServerError]) -> list[type[VoiceServerError]]:
    return [cls, *(found for below in cls.__subclasses__() for found in errors_of(below))]


@pytest.mark.parametrize("vendor", [*VENDORS, "telephony"])
def test_every_refusal_has_the_status_and_the_body_that_the_document_says(vendor: str) -> None:
    for error in errors_of(VoiceServerError):
        status, body, _ = refusal(vendor, error("field › what was expected"), "req_1")
        assert status == refusal_status(vendor, error.status)
        refusal_model(vendor, error.status).model_validate(body, strict=True, extra="forbid")
