"""The contract about a worker's life: cancelling, noise, memory over many segments, its end."""

from __future__ import annotations

import itertools
import statistics

from voice_server.contract import noisy, texts
from voice_server.contract.speaking import sentence
from voice_server.contract.subject import Speech, Subject
from voice_server.contract.terms import Breach

# Allocators give back and take again as they like, and caches need room once. What holds more at
# every moment of a run's last third than at any of its first, and by so much, grows for ever.
MOST_GROWTH_MB = 24.0
MOST_GROWTH = 0.05  # of what it held at the start, where that is more


async def stops_when_cancelled(subject: Subject) -> str:
    """Cancelled at each of its yields, it stops in time and leaves nothing behind."""
    before = await sentence(subject)
    is_repeatable = (await sentence(subject)).pcm == before.pcm
    whole = await subject.spoken(texts.PASSAGE)
    pieces, cancels = len(whole.ends), subject.plan.cancels
    points = sorted({round(n * pieces / cancels) for n in range(cancels)})
    caught, slowest = 0, 0.0
    for point in points:
        # With exactly this credit a worker of many slots waits here for its end.
        credit = whole.ends[point - 1] if point else 0
        speech = await subject.speak(texts.PASSAGE, cancel_at=point, credit=credit or -1)
        if speech.refusal is not None:
            raise Breach(
                f"failed when it was cancelled: {speech.refusal.error}",
                "let GeneratorExit through; clean up in `finally`",
            )
        caught += speech.was_cancelled
        slowest = max(slowest, speech.stopped_after or 0.0)
    if is_repeatable and (await sentence(subject)).pcm != before.pcm:
        raise Breach(
            "a cancelled text is heard in the next one", "reset what synthesize leaves behind"
        )
    return (
        f"at {len(points)} points, {caught} before the end; stopped within {slowest * 1000:.0f} ms"
    )


async def survives_noise(subject: Subject) -> str:
    """Another process of it, whose libraries print all the time, says the same."""
    expected = await sentence(subject)
    loud = subject.noisy()
    try:
        await loud.start()
        loud.forget_printed()
        if (await sentence(loud)).pcm != expected.pcm:
            raise Breach(
                "another process of it says the same text with the same seed differently",
                "draw every random number from job.seed, not from the process",
            )
        if not await loud.prints(noisy.MARK):
            raise Breach("what it prints is lost", "leave sys.stdout and descriptors 1 and 2 alone")
    finally:
        await loud.kill()
    return "the protocol is untouched; another process says the same"


async def keeps_its_memory(subject: Subject) -> str:
    """Memory levels off over many segments."""
    count = subject.plan.segments
    speeches: list[Speech] = []
    resident: list[float] = []
    for text, n in zip(itertools.cycle(texts.SHORT), range(count), strict=False):
        speeches.append(await subject.spoken(text, seed=n))
        resident.append(subject.resident_mb)
    third = max(1, count // 3)
    growth = min(resident[-third:]) - max(resident[:third])
    if growth > max(MOST_GROWTH_MB, MOST_GROWTH * resident[0]):
        raise Breach(
            f"grew by {growth:.0f} MB over {count} segments, to {resident[-1]:.0f} MB",
            "let go of what a job made: generators, caches by text, gradients (torch.no_grad)",
        )
    firsts = sorted(s.first for s in speeches if s.first is not None)
    sound = sum(s.seconds for s in speeches)
    rtf = sum(s.took for s in speeches) / sound if sound else 0.0
    p95 = firsts[min(len(firsts) - 1, len(firsts) * 95 // 100)] if firsts else 0.0
    gap = max(s.longest_gap for s in speeches)
    return (
        f"{growth:+.1f} MB over {count} segments, {resident[-1]:.0f} MB at the end; first sound "
        f"{statistics.median(firsts or [0.0]) * 1000:.1f} ms (p95 {p95 * 1000:.1f}), RTF {rtf:.3f},"
        f" longest gap {gap * 1000:.0f} ms"
    )


async def goes_when_asked(subject: Subject) -> str:
    """Shutdown ends it with status 0, in time."""
    end = await subject.stop()
    if end.code != 0:
        raise Breach(f"{end} after a Shutdown", "leave the end of the process to voice_worker")
    return "with status 0"
