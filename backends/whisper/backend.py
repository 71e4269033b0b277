"""Whisper: speech to text by faster-whisper, as a worker. It speaks nothing.

The job's one sample is the sound. What was said is written as JSON to the path in ``answer``:
``text``, ``language``, ``duration`` and ``segments``, with ``words`` in them if asked for.
"""

import json
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from faster_whisper import WhisperModel

import voice_worker as vw

HEARTBEAT = vw.Chunk(np.zeros(1, np.float32))


class Whisper(vw.Backend):
    name = "whisper"

    def load(self, options: Mapping[str, Any]) -> vw.BackendInfo:
        model = str(options.get("model", "base"))
        device = str(options.get("device", "auto"))
        is_local = Path(model).is_dir()
        try:
            self.model = WhisperModel(
                model,
                device=device,
                compute_type=str(options.get("compute_type", "default")),
                cpu_threads=int(options.get("threads", 1)),
                download_root=options.get("cache") and str(options["cache"]),
                local_files_only=is_local or bool(options.get("offline", False)),
            )
        except Exception as exc:
            raise vw.BackendError(
                f"model {model!r} could not be loaded ({exc}); download it once with a network, or "
                "set options.model in backends.yaml to a folder with a CTranslate2 model",
                code="model_missing",
            ) from exc
        self.beam = int(options.get("beam_size", 5))
        self.most_tokens = options.get("max_new_tokens")
        return vw.BackendInfo(
            sample_rate=24_000,
            languages=(),
            options=("answer", "words"),
            device=device,
        )

    def synthesize(self, job: vw.Segment) -> Iterator[vw.Chunk]:
        answer = job.params.get("answer")
        if len(job.voice.samples) != 1 or not isinstance(answer, str):
            raise vw.BackendError("whisper writes down what is said; it does not speak")
        language = str(job.params.get("language") or "").partition("-")[0].lower() or None
        if language and language not in self.model.supported_languages:
            raise vw.BackendError(
                f"whisper knows no language {language!r}; leave it out to have it detected",
                code="unsupported_language",
            )
        found, info = self.model.transcribe(
            str(job.voice.samples[0].path),
            language=language,
            beam_size=self.beam,
            vad_filter=True,
            word_timestamps=bool(job.params.get("words")),
            max_new_tokens=self.most_tokens,
        )
        segments = []
        for segment in found:
            words = [
                {"word": w.word, "start": w.start, "end": w.end, "probability": w.probability}
                for w in segment.words or ()
            ]
            segments.append(
                {"start": segment.start, "end": segment.end, "text": segment.text, "words": words}
            )
            # Nobody hears it; it shows that there is progress, and can be cancelled here.
            yield HEARTBEAT
        told = {
            "text": "".join(segment["text"] for segment in segments).strip(),
            "language": info.language,
            "duration": info.duration,
            "segments": segments,
        }
        temporary = f"{answer}.part"
        Path(temporary).write_text(json.dumps(told), "utf-8")
        os.replace(temporary, answer)


if __name__ == "__main__":
    vw.serve(Whisper())
