"""The contract about one text: what Ready claims, that it is spoken, and the same every time."""

from __future__ import annotations

import asyncio
import re
import zlib

import numpy as np

from voice_server.contract import texts
from voice_server.contract.subject import SEED, Speech, Subject
from voice_server.contract.terms import Breach, NotApplicable

_TAG = re.compile(r"[A-Za-z]{2,8}(-[A-Za-z0-9]{1,8})*")


async def greets_and_loads(subject: Subject) -> str:
    """It says Hello, loads with its options, and says Ready."""
    assert subject.hello is not None
    info, hello = subject.info, subject.hello
    return (
        f"Python {hello.python}, loaded in {subject.load_seconds:.2f} s on {info.device}, "
        f"{subject.resident_mb:.0f} MB; {info.sample_rate} Hz, {info.slots} slots"
    )


async def describes_itself(subject: Subject) -> str:
    """What Ready says of it makes sense."""
    info = subject.info
    ids = [speaker.id for speaker in info.speakers]
    if twice := sorted({name for name in ids if ids.count(name) > 1}):
        raise Breach(f"lists the speaker {twice[0]!r} twice", "give each speaker an id of its own")
    default = info.default_speaker
    try:
        pattern = re.compile(info.speaker_pattern) if info.speaker_pattern else None
    except re.error as exc:
        raise Breach(f"its speaker_pattern is no regular expression: {exc}", "mend it") from None
    is_known = default in ids or bool(default and pattern and pattern.fullmatch(default))
    if default is not None and not is_known:
        raise Breach(f"its default speaker {default!r} is none of its speakers", "list it")
    if not info.languages and not subject.transcribes:
        raise Breach("says no language", "name what it speaks in BackendInfo.languages")
    tags = [*info.languages, *(s.language for s in info.speakers if s.language)]
    if wrong := next((tag for tag in tags if not _TAG.fullmatch(tag)), None):
        raise Breach(f"calls a language {wrong!r}", "use BCP 47 tags, such as en or pt-BR")
    if wrong := next((tag for tag in info.tags if tag.startswith("[")), None):
        raise Breach(f"writes the tag {wrong!r} with brackets", "name tags without them")
    if info.dialogue and info.streams_text:
        raise Breach("has dialogues and streams text", "whose text is fed has one voice a job")
    abilities = (
        *("clones", "designs", "instructs", "dialogue"),
        *("word_timing", "streams_text", "normalizes"),
    )
    able = ", ".join(name for name in abilities if getattr(info, name))
    return f"{len(ids)} speakers, {len(info.languages)} languages; {able or 'nothing beyond'}"


async def speaks(subject: Subject) -> str:
    """A sentence becomes sound."""
    speech = await sentence(subject)
    level = int(np.abs(np.frombuffer(speech.pcm, "<i2").astype(np.int32)).max())
    first = (speech.first or 0.0) * 1000
    note = "" if level > 10 else "; it is silence, as far as one can hear"
    return (
        f"{speech.seconds:.2f} s in {len(speech.ends)} pieces, the first after {first:.0f} ms"
        + note
    )


async def repeats_itself(subject: Subject) -> str:
    """The same seed gives the same samples, whatever was said before."""
    first = await sentence(subject)
    again = await sentence(subject)
    _must_equal(first, again, "the same text with the same seed came out differently")
    await subject.spoken(texts.OTHER)
    later = await sentence(subject)
    _must_equal(first, later, "what was said before changes what is said now")
    other = await subject.spoken(texts.SENTENCE, seed=SEED + 1)
    return "samples equal, also after another text; " + (
        "the seed does not matter" if other.pcm == first.pcm else "another seed sounds different"
    )


async def resumes(subject: Subject) -> str:
    """What a dead worker had delivered is made again and left out, to the byte."""
    whole = await sentence(subject)
    heard = whole.samples // 2
    crc = zlib.crc32(whole.pcm[: heard * 2])
    rest = await subject.spoken(texts.SENTENCE, resume={"samples": heard, "crc": crc})
    if rest.pcm != whole.pcm[heard * 2 :]:
        raise Breach("went on at another sample than where it was cut", "see the seed above")
    return f"goes on at sample {heard} of {whole.samples}"


async def times_its_words(subject: Subject) -> str:
    """Words are where it says, in order, and said before their sound ends."""
    if not subject.info.word_timing:
        raise NotApplicable("says nothing about when words are heard")
    speech = await sentence(subject)
    words = speech.words
    if not words:
        raise Breach("claims word timing and timed no word", "yield a Word with its chunk")
    starts = [word[2] for word in words]
    if starts != sorted(starts):
        raise Breach("its words go back in time", "yield them in the order in which they are heard")
    # A sample or two are the rounding of seconds.
    if max(word[3] for word in words) > speech.samples + 240:
        raise Breach("its last word ends after its sound", "count seconds from the job's start")
    return f"{len(words)} words in {speech.seconds:.2f} s"


async def takes_text_in_pieces(subject: Subject) -> str:
    """Text that arrives character by character sounds like text that arrives at once."""
    if not subject.info.streams_text:
        raise NotApplicable("speaks whole segments")
    whole = await sentence(subject)
    pieces = await subject.spoken(texts.SENTENCE, pieces=list(texts.SENTENCE))
    _must_equal(whole, pieces, "text in pieces sounds different from the same text at once")
    return f"{len(texts.SENTENCE)} pieces, the same samples"


async def speaks_in_every_slot(subject: Subject) -> str:
    """As many jobs at once as it has slots, each to its end."""
    slots = subject.info.slots
    if slots == 1:
        raise NotApplicable("has one slot")
    alone = [await subject.spoken(text) for text in texts.SHORT]
    jobs = [subject.spoken(texts.SHORT[n % len(texts.SHORT)]) for n in range(slots)]
    together = await asyncio.gather(*jobs)
    same = sum(alone[n % len(alone)].pcm == speech.pcm for n, speech in enumerate(together))
    if same < slots and not subject.info.rounds:
        raise Breach(
            f"{slots - same} of {slots} jobs have other samples beside others than alone",
            "make samples of the seed alone; if they differ by rounding, say rounds=True, or a turn"
            " that outlives its worker loses its rest",
        )
    return f"{slots} jobs at once, {same} of them with the samples they have alone"


async def sentence(subject: Subject) -> Speech:
    """The sentence that everything is compared with. Raises Breach when it has no sound."""
    speech = await subject.spoken(texts.SENTENCE)
    if not speech.samples:
        raise Breach(f"made no sound of {texts.SENTENCE!r}", "yield what the model makes")
    return speech


def _must_equal(first: Speech, second: Speech, problem: str) -> None:
    if first.pcm == second.pcm:
        return
    pairs = zip(*(np.frombuffer(s.pcm, "<i2") for s in (first, second)), strict=False)
    where = next(
        (n for n, (a, b) in enumerate(pairs) if a != b), min(first.samples, second.samples)
    )
    raise Breach(
        f"{problem}: {first.samples} and {second.samples} samples, unequal from {where}",
        "draw every random number from job.seed, and leave no state behind; where the model cannot,"
        " say so in its README: a crash in a segment is then heard as a cut",
    )
