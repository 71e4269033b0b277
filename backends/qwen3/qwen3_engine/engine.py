"""The engine: slots full of turns, and a step that advances each of them by one frame.

    step = begin pieces that have text ─▶ launch one frame for every row that can make one
           ─▶ read the codes of the step before (on the CPU: of this one) ─▶ codec ─▶ samples

The device always holds the next step while the host reads the last one: nothing waits for a host
that waits for the device. One thread calls all of this.
"""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from voice_worker.backend import BackendError, Voice
from voice_worker.devices import choose_device
from voice_worker.failure import is_out_of_memory

from . import loading
from .codec import Codec
from .frame import Row
from .guard import Guard, Runaway
from .job import Job, Limits
from .model import Predictor, Talker
from .options import EngineOptions, TurnOptions
from .prompts import Prompt, Prompts
from .runners import CodecRunner, FrameRunner, Result
from .sampler import make_key
from .slots import Slots, slots_that_fit
from .stream import Stream, Tail, tail_of
from .text import TextEncoder, TextFeed
from .voices import Voices

log = logging.getLogger(__name__)

MAX_ATTEMPTS = 3
# Positions of a piece's last sentence that the next piece is conditioned on: 12 s.
MAX_TAIL_FRAMES = 150


@dataclass(frozen=True, slots=True)
class Output:
    """What a step made for one turn. ``samples`` float32 at 24 kHz, often empty."""

    job: int
    samples: np.ndarray
    is_finished: bool = False
    error: BackendError | None = None


@dataclass(slots=True)
class Counters:
    """Totals since the engine was made."""

    frames: int = 0
    rollovers: int = 0
    retries: int = 0
    cuts: int = 0
    out_of_memory: int = 0


@dataclass(frozen=True, slots=True)
class _Flight:
    """A step whose codes the host has not read. Rows whose generation moved on are dropped."""

    rows: list[tuple[Stream, int]]
    places: list[int]
    result: Result


@dataclass(slots=True)
class Parts:
    """What the engine is made of; kept together for benchmarks and tests that time one part."""

    talker: Talker
    predictor: Predictor
    slots: Slots
    codec: CodecRunner
    frames: FrameRunner
    prompts: Prompts
    text: TextEncoder


class Engine:
    """Made by ``load``, or from a loaded package model by tests and benchmarks."""

    def __init__(
        self,
        wrapper: Any,
        options: EngineOptions,
        device: torch.device,
        *,
        is_shared: bool = True,
    ) -> None:
        # cuDNN's attention makes a plan for each new shape, and prompts come in any length.
        torch.backends.cuda.enable_cudnn_sdp(False)
        if device.type == "cuda":
            # Events and pinned memory belong to the current device, whichever that is.
            torch.cuda.set_device(device)
        model = wrapper.model
        config = model.config
        self.options = options
        self.device = device
        self.defaults = TurnOptions.from_generation(wrapper.generate_defaults, options.language)
        talker = Talker(model.talker, options.max_length, is_shared=is_shared)
        decoder = model.speech_tokenizer.model.decoder
        count = options.slots or slots_that_fit(talker, device, options)
        predictor = Predictor(model.talker, count + 1, is_shared=is_shared)
        slots = Slots(talker, count, options.max_length)
        codec = CodecRunner(
            Codec(decoder, count, options.codec_group), device, graphs=options.graphs
        )
        frames = FrameRunner(talker, predictor, slots, device, graphs=options.graphs)
        text = TextEncoder(wrapper.processor.tokenizer)
        prompts = Prompts(config, talker, slots, codec, text, options.prompt_cache)
        self.voices = Voices(model, prompts, options)
        self.parts = Parts(talker, predictor, slots, codec, frames, prompts, text)
        self.counters = Counters()
        self._limits = Limits.for_length(
            options.max_length,
            config.tts_eos_token_id,
            config.tts_pad_token_id,
            end_before_text=options.end_before_text,
        )
        pipelined = options.pipelined
        self._depth = int(device.type == "cuda" if pipelined is None else pipelined)
        self._guard = Guard(options.frames_per_token)
        self._streams: dict[int, Stream] = {}
        self._free = list(range(count))
        self._flights: deque[_Flight] = deque()

    @classmethod
    def load(cls, options: EngineOptions) -> Engine:
        """Find, check and load the model, and capture its graphs. Raises BackendError."""
        torch.set_num_threads(options.threads)
        device = torch.device(choose_device(options.device))
        dtype = loading.choose_dtype(options.dtype, device)
        checkpoint = loading.inspect(loading.locate(options.model))
        loading.check_memory(checkpoint, device, dtype)
        wrapper = loading.load(checkpoint, device, dtype)
        try:
            engine = cls(wrapper, options, device, is_shared=False)
            # What is left of its weights lives on in the engine's own tensors.
            del wrapper.model.talker
            engine.parts.frames.capture_all(has_nucleus=engine.defaults.top_p < 1.0)
            engine.parts.codec.capture_all(engine.group_sizes())
        except RuntimeError as exc:
            # A CPU has no error of its own for it.
            if not is_out_of_memory(exc):
                raise
            raise BackendError(
                f"{device} ran out of memory while making room for turns; set fewer 'slots', a "
                "smaller 'max_length' or 'memory_fraction'",
                code="out_of_memory",
            ) from exc
        return engine

    # -- turns -------------------------------------------------------------------------------------

    @property
    def slots(self) -> int:
        return self.parts.slots.count

    def prepare(self, voice: Voice) -> Prompt:
        """Make what every turn of ``voice`` in the default language starts from.

        Raises BackendError where the voice, or memory, does not allow it.
        """
        return self._prompt(voice, self.defaults)

    def admit(self, job: int, voice: Voice, params: Mapping[str, Any], seed: int) -> None:
        """Take a slot. Raises BackendError for this turn alone."""
        if job in self._streams:
            raise BackendError(f"job {job} is already running", code="bad_option")
        if not self._free:
            raise BackendError("all slots are taken; try again later", code="busy")
        options = TurnOptions.from_params(params, self.defaults, seed)
        prompt = self._prompt(voice, options)
        slot = min(self._free)
        self._free.remove(slot)
        turn = Job(job, slot, options, TextFeed(self.parts.text), self._limits)
        self._streams[job] = Stream(turn, prompt, make_key(options.seed, 0))

    def feed(self, job: int, text: str) -> None:
        self._streams[job].job.feed(text)

    def finish_text(self, job: int) -> None:
        self._streams[job].job.finish_text()

    def cancel(self, job: int) -> None:
        """Free the slot now. A frame of it that is on its way is dropped when it comes."""
        if job in self._streams:
            self._release(self._streams[job])

    def is_runnable(self, job: int) -> bool:
        stream = self._streams[job]
        if stream.has_news or stream.in_flight:
            return True
        if stream.job.is_speaking:
            return stream.job.can_step()
        return stream.next_start(self._tail(stream)) is not None

    def codes(self, job: int) -> list[tuple[int, ...]]:
        """The frames of the piece being spoken, for tests and inspection."""
        return list(self._streams[job].job.frames)

    # -- the step ----------------------------------------------------------------------------------

    def step(self, jobs: Sequence[int]) -> list[Output]:
        """Advance each of ``jobs`` by a frame, where there is one to make."""
        live = [self._streams[job] for job in jobs]
        for stream in live:
            self._begin(stream)
        launched = self._launch([s for s in live if s.can_step])
        while len(self._flights) > (self._depth if launched else 0):
            self._harvest(self._flights.popleft())
        self._decode(live)
        return [self._output(stream) for stream in live]

    def _begin(self, stream: Stream) -> None:
        """Start the next piece of a turn that has text for it."""
        if stream.job.is_speaking or stream.is_over or stream.pending:
            return
        tail = self._tail(stream)
        if (start := stream.next_start(tail)) is None:
            return
        job, parts, prompt = stream.job, self.parts, stream.prompt
        try:
            if tail is not None and start.with_bridge:
                prompt = parts.prompts.continued(prompt, *tail)
            parts.slots.place(job.slot, prompt)
            job.begin(start, len(prompt.bridge), prompt.lead, prompt.length)
            parts.slots.next_position[job.slot] = job.position
            if len(prompt.bridge):
                tokens = [job.token_at(index) for index in range(job.bridge)]
                parts.prompts.cross(job.slot, prompt, tokens)  # type: ignore[arg-type]
            if stream.is_fresh:
                parts.codec.start(job.slot, stream.prompt.codec)
                stream.is_fresh = False
        except (RuntimeError, MemoryError) as exc:
            stream.error = self._no_room(exc)
        stream.begin()

    def _launch(self, streams: list[Stream]) -> bool:
        for stream in [s for s in streams if s.job.is_full]:
            streams.remove(stream)
            # Its last frame may still be on its way.
            if not stream.in_flight:
                self._cut(stream, Runaway.NO_END)
        if not streams:
            return False
        rows = [_row(stream) for stream in streams]
        try:
            result, places = self.parts.frames.launch(rows)
        except (RuntimeError, MemoryError) as exc:
            self._fail_newest(streams, exc)
            return False
        self._flights.append(_Flight([(s, s.generation) for s in streams], places, result))
        for stream in streams:
            stream.job.launched += 1
            stream.in_flight += 1
            self.parts.slots.next_position[stream.job.slot] = stream.job.position
        return True

    def _harvest(self, flight: _Flight) -> None:
        codes = flight.result.wait().tolist()
        for (stream, generation), place in zip(flight.rows, flight.places, strict=True):
            if generation != stream.generation:
                continue
            frame = codes[place]
            stream.in_flight -= 1
            job = stream.job
            if frame[0] == self.parts.talker.end:
                stream.end_piece()
                self.counters.rollovers += not job.is_finished
                continue
            self.counters.frames += 1
            stream.add(tuple(frame))
            is_text_over = job.is_closed and job.fed_tokens() >= job.end - job.start
            trouble = self._guard.check(stream.sounds, job.fed_tokens(), is_text_over)
            if trouble is not None:
                self._cut(stream, trouble)

    def _cut(self, stream: Stream, why: Runaway) -> None:
        """End a piece that ran away; say it again while the listener has heard nothing yet."""
        if not stream.has_sounded and stream.job.attempt + 1 < MAX_ATTEMPTS:
            self.counters.retries += 1
            stream.begin_again(make_key(stream.job.options.seed, stream.job.attempt + 1))
        else:
            self.counters.cuts += 1
            stream.end_piece(is_cut=True)
        log.warning("job %s ran away (%s) after %s frames", stream.job.id, why, len(stream.sounds))

    def group_sizes(self) -> list[int]:
        """How many frames the codec takes at once: powers of two up to ``codec_group``."""
        return [n for n in (8, 4, 2, 1) if n <= self.options.codec_group]

    def _decode(self, live: list[Stream]) -> None:
        """Turn codes into samples: at once while few speak, in groups under pressure."""
        is_quiet = len(self._streams) <= self.options.quiet_rows
        wanted = 1 if is_quiet else self.options.codec_group
        due = [s for s in live if s.error is None and s.is_due(wanted)]
        while due:
            started = []
            for size in self.group_sizes():
                batch = [s for s in due if s.next_group(self.options.codec_group) == size]
                if batch and (result := self._start_codec(batch, size)):
                    started.append((batch, size, result))
            for batch, size, result in started:
                for stream, samples in zip(batch, result.wait().float().numpy(), strict=False):
                    stream.receive(samples, size)
            due = [s for s in due if s.pending and s.error is None]

    def _start_codec(self, batch: list[Stream], size: int) -> Result | None:
        codes = torch.tensor([stream.pending[:size] for stream in batch]).transpose(1, 2)
        try:
            return self.parts.codec.decode([s.job.slot for s in batch], codes.contiguous())
        except (RuntimeError, MemoryError) as exc:
            self._fail_newest(batch, exc)
            return None

    def _output(self, stream: Stream) -> Output:
        is_finished = stream.is_over and stream.error is None
        samples = stream.take(is_last=is_finished)
        if stream.is_over:
            self._release(stream)
        return Output(stream.job.id, samples, is_finished, stream.error)

    # -- how ---------------------------------------------------------------------------------------

    def _prompt(self, voice: Voice, options: TurnOptions) -> Prompt:
        try:
            return self.voices.prompt(voice, options)
        except (RuntimeError, MemoryError) as exc:
            raise self._no_room(exc) from exc

    def _tail(self, stream: Stream) -> Tail | None:
        """What was said last, where it leads into the next piece.

        A clone's reference already does that for every piece.
        """
        job = stream.job
        if stream.prompt.codec is not None or not job.piece or job.start >= len(job.tokens):
            return None
        if stream.tail is None:
            found = tail_of(job, stream.last_piece, MAX_TAIL_FRAMES)
            if found is None or len(found.frames) > self.options.max_length // 4:
                return None
            stream.tail = found
        return stream.tail

    def _fail_newest(self, streams: list[Stream], exc: Exception) -> None:
        """Out of memory costs the turn that came last; the others run the step again."""
        max(streams, key=lambda s: s.job.id).error = self._no_room(exc)
        if self.device.type == "cuda":
            torch.cuda.empty_cache()

    def _no_room(self, exc: Exception) -> BackendError:
        """The turn's error for a lack of memory; what else ``exc`` may be is raised on."""
        # By its words: a CPU's lack of memory is a plain RuntimeError.
        if not is_out_of_memory(exc):
            raise exc
        self.counters.out_of_memory += 1
        return BackendError(
            f"{self.device} is out of memory; run fewer turns at once (option 'slots')",
            code="out_of_memory",
        )

    def _release(self, stream: Stream) -> None:
        stream.outdate()
        del self._streams[stream.job.id]
        self._free.append(stream.job.slot)


def _row(stream: Stream) -> Row:
    job, options = stream.job, stream.job.options
    text = job.next_token()
    assert text is not None
    return Row(
        slot=job.slot,
        text=text,
        position=job.position,
        may_end=int(job.may_end),
        is_active=1,
        key=stream.key,
        # Counted within the piece, so that a frame dropped in flight changes nothing.
        frame=(job.piece << 20) + job.launched,
        top_k=options.top_k,
        temperature=options.temperature,
        top_p=options.top_p,
        repetition_penalty=options.repetition_penalty,
    )
