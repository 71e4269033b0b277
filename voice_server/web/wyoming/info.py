"""What ``describe`` is answered with, and which voice the names in it stand for.

One program holds every voice, because Home Assistant uses the first program alone. A voice is
called by its id; where another backend than the default one speaks it, ``backend/id``.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from voice_server.core import wire
from voice_server.core.voices import Voice, can_speak, speaker_voices
from voice_server.speech.service import SpeechService
from voice_server.web.wyoming.framing import Event

_OURS: dict[str, Any] = {
    "attribution": {"name": "Voice Server", "url": ""},
    "installed": True,
    "version": None,
}


def info(service: SpeechService, *, has_transcriber: bool) -> Event:
    """Every voice of the backends that are warm, and the transcriber if there is one."""
    voices = [
        {
            **_OURS,
            "name": name,
            "description": voice.display_name or voice.name or name,
            "languages": languages,
            "speakers": None,
        }
        for name, voice, languages in _voices(service)
    ]
    program = {**_OURS, "name": "voice-server", "description": "Voice Server"}
    tts = [{**program, "voices": voices, "supports_synthesize_streaming": True}]
    asr = []
    if has_transcriber:
        # Whisper tells the language itself; these are those that assistants are set to most.
        model = {**_OURS, "name": "whisper", "description": "Whisper", "languages": _HEARD}
        asr = [{**program, "models": [model], "supports_transcript_streaming": False}]
    nothing: dict[str, list[Any]] = {"handle": [], "intent": [], "wake": [], "mic": [], "snd": []}
    return Event("info", {"tts": tts, "asr": asr, **nothing})


def asked_for(service: SpeechService, event: Event) -> wire.Configure:
    """The configuration that a ``synthesize`` or ``synthesize-start`` asks for.

    Raises RequestError for a field of the wrong kind. An unknown voice is found out later.
    """
    wanted = Event("voice", event.value("voice", dict, {}))
    name, language = wanted.value("name", str, ""), wanted.value("language", str, "")
    opts = {"ssml": True} if event.data.get("text_format") == "ssml" else {}
    # Home Assistant's tags were once written as locales are.
    language = language.replace("_", "-")
    if not name and language:
        name = _of_language(service, language)
    backend, voice = _resolved(service, name)
    asked = {"voice": voice, "backend": backend, "opts": opts, "language": language}
    return wire.parse_config({key: value for key, value in asked.items() if value})


def _voices(service: SpeechService) -> Iterator[tuple[str, Voice, list[str]]]:
    """(name, voice, languages), each voice once, those of the default backend first."""
    made: set[str] = set()
    default, _ = service.pool(None)
    for backend, pool in service.pools.items():
        if (able := pool.info) is None:
            continue
        stored = [voice for voice in service.catalogue.voices() if voice.id not in made]
        mine = [voice for voice in stored if can_speak(able, voice)]
        made.update(voice.id for voice in mine)
        speakers = speaker_voices(backend, able)
        # One that has a voice of its own, and no name for it.
        nameless = [] if mine or speakers else [Voice(id="", name=backend, kind="builtin")]
        for voice in [*mine, *speakers, *nameless]:
            name = voice.id if backend == default and voice.id else f"{backend}/{voice.id}"
            yield name, voice, [voice.language] if voice.language else list(able.languages)


def _of_language(service: SpeechService, language: str) -> str:
    """A voice that speaks it, the exact dialect before any other; "" where there is none."""
    wanted = language.casefold()
    near = ""
    for name, _, languages in _voices(service):
        tags = [tag.casefold() for tag in languages]
        if wanted in tags:
            return name
        if not near and any(tag.split("-")[0] == wanted.split("-")[0] for tag in tags):
            near = name
    return near


def _resolved(service: SpeechService, name: str) -> tuple[str | None, str | None]:
    """(backend, voice) of a name of the list; None is the default one."""
    backend, slash, voice = name.partition("/")
    if slash and backend in service.pools:
        return backend, voice or None
    return None, name or None


_HEARD = (
    "af ar be bg bn bs ca cs cy da de el en es et eu fa fi fr gl gu he hi hr hu hy id is it ja ka "
    "kk kn ko lt lv mk ml mr ms nb ne nl pl pt ro ru sk sl sr sv sw ta te th tl tr uk ur vi zh"
).split()
