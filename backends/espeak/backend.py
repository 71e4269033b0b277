"""eSpeak NG: 140 languages by formant synthesis, the engine that needs nothing."""

import sys
from collections.abc import Iterator, Mapping
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
from library import SAMPLE_RATE, Library
from options import NAMES, parse
from speaking import Speaking
from tempo import Tempo
from text import Script
from voices import DEFAULT, Voices
from words import WordTracker

from voice_worker import Backend, BackendInfo, Chunk, Segment, Voice, serve


class Espeak(Backend):
    name = "espeak"

    def load(self, options: Mapping[str, Any]) -> BackendInfo:
        self.library = Library()
        if not self.library.is_reproducible:
            sys.stderr.write("this build of eSpeak NG cannot repeat itself; see its README\n")
        variants = sorted(p.name for p in Path(self.library.data, "voices", "!v").iterdir())
        self.voices = Voices(self.library.voices(), variants)
        self.speaking = Speaking(self.library)
        self.warm_up()
        return BackendInfo(
            sample_rate=SAMPLE_RATE,
            languages=self.voices.languages(),
            speakers=self.voices.speakers(),
            default_speaker=DEFAULT,
            speaker_pattern=self.voices.pattern(),
            options=NAMES,
            word_timing=True,
        )

    def warm_up(self) -> None:
        """The first text reads the dictionary from the disk."""
        for _ in self.synthesize(Segment("Hello.", Voice())):
            pass

    def synthesize(self, job: Segment) -> Iterator[Chunk]:
        wanted = parse(job.params)
        identifier = self.voices.identifier(job.voice.speaker, job.params.get("language"))
        script = Script(job.text, ssml=wanted.ssml)
        tracker = WordTracker(job.text, script, ssml=wanted.ssml, stretch=wanted.stretch)
        tempo = Tempo(self.library, 1.0 / wanted.stretch) if wanted.stretch != 1.0 else None
        try:
            with closing(self.speaking.speak(script.text, identifier, wanted)) as heard:
                for sound, events in heard:
                    words = tuple(word for event in events for word in tracker.take(event))
                    samples = tempo.push(sound) if tempo else np.frombuffer(sound, np.int16)
                    yield Chunk(samples, words)
            if tempo:
                yield Chunk(tempo.flush())
        finally:
            if tempo:
                tempo.close()


if __name__ == "__main__":
    serve(Espeak())
