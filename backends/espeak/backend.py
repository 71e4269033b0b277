"""eSpeak NG: 119 languages by formant synthesis, the engine that needs nothing."""

import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from library import SAMPLE_RATE, Event, Library
from options import NAMES, parse
from speaking import Speaking
from tempo import Tempo
from text import Script
from voices import DEFAULT, Voices
from words import WordTracker

from voice_worker import BackendInfo, CallbackBackend, Chunk, Segment, Sink, measure_rtf, serve


class Espeak(CallbackBackend):
    name = "espeak"

    def load(self, options: Mapping[str, Any]) -> BackendInfo:
        self.library = Library()
        if not self.library.is_reproducible:
            sys.stderr.write("this build of eSpeak NG cannot repeat itself; see its README\n")
        variants = sorted(p.name for p in Path(self.library.data, "voices", "!v").iterdir())
        self.voices = Voices(self.library.voices(), variants)
        self.speaking = Speaking(self.library)
        return BackendInfo(
            sample_rate=SAMPLE_RATE,
            languages=self.voices.languages(),
            speakers=self.voices.speakers(),
            default_speaker=DEFAULT,
            speaker_pattern=self.voices.pattern(),
            options=NAMES,
            word_timing=True,
            # It warms up by that: the first text reads the dictionary from the disk.
            rtf=measure_rtf(self, SAMPLE_RATE),
        )

    def speak(self, job: Segment, sink: Sink) -> None:
        wanted = parse(job.params)
        identifier = self.voices.identifier(job.voice.speaker, job.params.get("language"))
        script = Script(job.text, identifier, ssml=wanted.ssml)
        tracker = WordTracker(job.text, script, ssml=wanted.ssml, stretch=wanted.stretch)
        tempo = Tempo(self.library, 1.0 / wanted.stretch) if wanted.stretch != 1.0 else None

        def heard(sound: bytes, events: list[Event]) -> bool:
            words = tuple(word for event in events for word in tracker.take(event))
            samples = tempo.push(sound) if tempo else np.frombuffer(sound, np.int16)
            return sink(Chunk(samples, words))

        try:
            self.speaking.speak(script.text, identifier, wanted, heard)
            if tempo:
                sink(Chunk(tempo.flush()))
        finally:
            if tempo:
                tempo.close()

    def rest(self) -> None:
        self.speaking.settle()


if __name__ == "__main__":
    serve(Espeak())
