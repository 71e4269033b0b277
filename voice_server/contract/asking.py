"""The contract about what a client may ask for: voices, languages, options, tags, hard texts."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from hashlib import sha256
from pathlib import Path

from voice_server.contract import texts
from voice_server.contract.recording import write_recording
from voice_server.contract.speaking import sentence
from voice_server.contract.subject import Subject
from voice_server.contract.terms import Breach, NotApplicable
from voice_worker import messages as m
from voice_worker.backend import Sample, Voice

MOST_SPEAKERS = 12  # of which a word is heard; the list may have hundreds
PICKLES = (".pt", ".pth", ".pkl", ".pickle")
LONG_WORD = 400  # characters, where the backend names no limit of its own


async def speaks_with_its_voices(subject: Subject) -> str:
    """Its speakers speak; one that it does not have is refused."""
    ids = [speaker.id for speaker in subject.info.speakers]
    step = max(1, len(ids) // MOST_SPEAKERS)
    heard = {}
    for speaker in ids[::step]:
        speech = await subject.spoken("Hello.", voice=Voice(speaker=speaker))
        if not speech.samples:
            raise Breach(f"speaker {speaker!r} makes no sound", "take it off the list, or mend it")
        heard[speech.pcm] = speaker
    if ids:
        stranger = await subject.speak("Hello.", voice=Voice(speaker="nobody at all"))
        if stranger.refusal is None:
            raise Breach(
                "speaks for a speaker that it does not have",
                'raise BackendError(f"no speaker {name!r}", code="unknown_voice")',
            )
        _must_be_meant(stranger.refusal, "a speaker that it does not have", "unknown_voice")
    return f"{len(ids[::step])} of {len(ids)} speakers heard, {len(heard)} different"


async def clones(subject: Subject) -> str:
    """A recording becomes a voice, which then says the same, also for the next worker."""
    if not subject.info.clones:
        raise NotApplicable("does not clone")
    with tempfile.TemporaryDirectory() as folder:
        cache = Path(folder)
        voice = subject.cloned(cache)
        answer = await subject.prepare(voice)
        if isinstance(answer, m.Failed):
            raise Breach(
                f"made no voice of a good recording: {answer.error}",
                "give it a recording that suits it with --recording and --transcript",
            )
        first = await subject.spoken(texts.SENTENCE, voice=voice)
        if not first.samples:
            raise Breach("a cloned voice makes no sound", "yield what the model makes")
        await sentence(subject)
        again = await subject.spoken(texts.SENTENCE, voice=voice)
        if first.pcm != again.pcm:
            raise Breach("a cloned voice changes", "keep one prompt for each voice.digest")
        kept = _kept(cache)
        if foreign := [path.name for path in kept if path.suffix in PICKLES]:
            raise Breach(f"keeps the pickle {foreign[0]}", "keep prompts as safetensors")
        if kept:
            await subject.kill()
            await subject.start()
            fresh = await subject.spoken(texts.SENTENCE, voice=voice)
            if fresh.pcm != first.pcm:
                raise Breach("a voice from the cache sounds different", "keep all that matters")
        return f"{len(kept)} files kept for the next worker" if kept else "nothing kept on disk"


async def survives_bad_recordings(subject: Subject) -> str:
    """A recording that is gone, empty or noise costs a voice and no worker."""
    if not subject.info.clones:
        raise NotApplicable("does not clone")
    refused = []
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        bad = {kind: folder / f"{kind}.wav" for kind in ("gone", "empty", "garbage", "short")}
        bad["empty"].write_bytes(b"")
        bad["garbage"].write_bytes(bytes(range(256)) * 40)
        write_recording(bad["short"], seconds=0.05)
        for kind, path in bad.items():
            voice = Voice(samples=(Sample(path, None),), digest=sha256(kind.encode()).hexdigest())
            if isinstance(await subject.prepare(voice), m.Failed):
                refused.append(kind)
    await sentence(subject)
    return f"refused: {', '.join(refused) or 'none'}; it speaks on"


async def designs(subject: Subject) -> str:
    """A description becomes a voice."""
    if not subject.info.designs:
        raise NotApplicable("designs no voices")
    voice = subject.designed()
    answer = await subject.prepare(voice)
    if isinstance(answer, m.Failed):
        raise Breach(f"designed no voice: {answer.error}", "make prepare() take voice.design")
    speech = await subject.spoken(texts.SENTENCE, voice=voice)
    return f"{speech.seconds:.2f} s"


async def checks_its_options(subject: Subject) -> str:
    """An option with a value that makes no sense is refused in words."""
    names = subject.info.options
    if not names:
        raise NotApplicable("has no options")
    for name in names:
        speech = await subject.speak("Hello.", params={name: {"no": ["value"]}})
        if speech.refusal is None:
            raise Breach(
                f"took a map for its option {name!r} and said nothing",
                'check the type and raise BackendError(…, code="bad_option")',
            )
        _must_be_meant(speech.refusal, f"a map for its option {name!r}", "bad_option")
    await sentence(subject)
    return f"{', '.join(names)}: refused with a reason when they make no sense"


async def performs_its_tags(subject: Subject) -> str:
    """Text with each tag that it claims is spoken."""
    if not subject.info.tags:
        raise NotApplicable("performs no tags")
    for tag in subject.info.tags:
        await subject.spoken(f"Well, [{tag}] I never.")
    return ", ".join(f"[{tag}]" for tag in subject.info.tags)


async def speaks_of_nothing(subject: Subject) -> str:
    """Text without a word ends well."""
    return await _endure(subject, texts.EMPTY)


async def speaks_unicode(subject: Subject) -> str:
    """Every script, mark and control character is spoken, left out, or refused with a code."""
    return await _endure(subject, texts.UNICODE)


async def speaks_at_length(subject: Subject) -> str:
    """A text as long as it says it can take, and a word without end."""
    limit = subject.info.max_chars
    chars = min(limit or subject.plan.chars, subject.plan.chars)
    speech = await subject.spoken(texts.long_text(chars))
    word = min(chars, LONG_WORD)
    await _endure(subject, {"a word without end": texts.one_word(word)})
    return f"{chars} characters: {speech.seconds:.1f} s in {len(speech.ends)} pieces"


async def _endure(subject: Subject, hard: Mapping[str, str]) -> str:
    refused = []
    for kind, text in hard.items():
        speech = await subject.speak(text)
        if speech.refusal is not None:
            _must_be_meant(speech.refusal, kind, "unsupported_text")
            refused.append(f"{kind} ({speech.refusal.code})")
    await sentence(subject)
    return f"{len(hard)} texts" + (f"; refused: {', '.join(refused)}" if refused else "")


def _must_be_meant(refusal: m.Failed, kind: str, code: str) -> None:
    """A refusal is a BackendError, not the exception of a library that nobody thought of."""
    is_meant = f"Error: {refusal.error}" in refusal.detail or refusal.code not in (
        "synthesis_failed",
        "out_of_memory",
    )
    if not is_meant:
        raise Breach(
            f"{kind} led to {refusal.error!r:.200}",
            f'leave out what it cannot speak, or raise BackendError(…, code="{code}")',
        )


def _kept(cache: Path) -> list[Path]:
    return [path for path in cache.rglob("*") if path.is_file()]
