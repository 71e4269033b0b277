"""Every setting of the engine and of one turn, validated once, before anything is loaded."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from typing import Any

from voice_worker.backend import BackendError

# Candidates that survive the first cut of sampling: a fixed number, so that a CUDA graph can hold
# it. The model's own setting is 50.
MAX_TOP_K = 64

# A colder temperature would divide logits into infinity, which no code stands out from.
MIN_TEMPERATURE = 1e-6

LANGUAGES = {
    "zh": "chinese",
    "en": "english",
    "de": "german",
    "it": "italian",
    "pt": "portuguese",
    "es": "spanish",
    "ja": "japanese",
    "ko": "korean",
    "fr": "french",
    "ru": "russian",
}
TURN_OPTIONS = ("temperature", "top_k", "top_p", "repetition_penalty", "seed", "speed")


def _bad(message: str) -> BackendError:
    return BackendError(message, code="bad_option")


def _number(name: str, value: Any, low: float, high: float, *, whole: bool = False) -> float:
    is_number = isinstance(value, int if whole else (int, float)) and not isinstance(value, bool)
    if not is_number or not low <= value <= high:
        kind = "a whole number" if whole else "a number"
        raise _bad(f"{name} must be {kind} from {_plain(low)} to {_plain(high)}, not {value!r}")
    return value


def _plain(number: float) -> str:
    return str(number) if isinstance(number, int) else f"{number:g}"


@dataclass(frozen=True, slots=True)
class EngineOptions:
    """What backends.yaml may say under ``options``.

    ``model``: hub name or local directory. ``slots``: turns at once, None to fill
    ``memory_fraction`` of the device. ``max_length``: positions a slot can hold (12.5 a second).
    ``codec_group``: frames decoded together once more than ``quiet_rows`` turns speak.
    ``pipelined``: read a step's tokens while the next one runs; None is yes on CUDA.
    ``end_before_text``: let the model end while text is still to be fed, as the package does.
    """

    model: str
    device: str = "auto"
    dtype: str = "auto"
    slots: int | None = None
    max_length: int = 2048
    codec_group: int = 4
    quiet_rows: int = 16
    memory_fraction: float = 0.85
    graphs: bool = True
    pipelined: bool | None = None
    threads: int = 1
    language: str = "auto"
    speaker: str | None = None
    design: str = "A clear, warm voice at an even pace."
    frames_per_token: float = 8.0
    prompt_cache: int = 64
    end_before_text: bool = False

    @classmethod
    def from_map(cls, options: Mapping[str, Any]) -> EngineOptions:
        """Raise BackendError ``bad_option``, with the remedy, for anything it does not know."""
        known = {field.name for field in fields(cls)}
        if unknown := sorted(set(options) - known):
            raise _bad(f"unknown option {unknown[0]!r}; qwen3 takes {', '.join(sorted(known))}")
        if not isinstance(options.get("model"), str) or not options["model"]:
            raise _bad(
                "option 'model' is missing: set it to a checkpoint directory or a hub name such as "
                "Qwen/Qwen3-TTS-12Hz-0.6B-CustomVoice"
            )
        made = cls(**options)
        if made.slots is not None:
            _number("slots", made.slots, 1, 4096, whole=True)
        _number("max_length", made.max_length, 64, 32768, whole=True)
        _number("codec_group", made.codec_group, 1, 8, whole=True)
        _number("quiet_rows", made.quiet_rows, 0, 4096, whole=True)
        _number("memory_fraction", made.memory_fraction, 0.05, 1.0)
        _number("threads", made.threads, 1, 256, whole=True)
        _number("frames_per_token", made.frames_per_token, 1.0, 100.0)
        _number("prompt_cache", made.prompt_cache, 1, 10_000, whole=True)
        for name in ("device", "design"):
            if not isinstance(getattr(made, name), str):
                raise _bad(f"{name} must be text, not {getattr(made, name)!r}")
        if not isinstance(made.speaker, str | None):
            raise _bad(f"speaker must be the name of one, not {made.speaker!r}")
        if made.dtype not in ("auto", "float64", "float32", "bfloat16", "float16"):
            raise _bad(f"dtype must be auto, float32, bfloat16 or float16, not {made.dtype!r}")
        switches = {name: getattr(made, name) for name in ("graphs", "end_before_text")}
        for name, value in {**switches, "pipelined": made.pipelined or False}.items():
            if not isinstance(value, bool):
                raise _bad(f"{name} must be true or false, not {value!r}")
        return replace(made, language=language_name(made.language))


def language_name(tag: Any) -> str:
    """The model's name for a BCP 47 tag (``en-GB`` → ``english``), or ``auto``."""
    if tag is None or tag == "" or tag == "auto":
        return "auto"
    if isinstance(tag, str):
        lowered = tag.lower()
        if lowered in LANGUAGES.values():
            return lowered
        if name := LANGUAGES.get(lowered.replace("_", "-").split("-")[0]):
            return name
    raise BackendError(
        f"language {tag!r} is not spoken by this model; it speaks {', '.join(LANGUAGES)}",
        code="unsupported_language",
    )


@dataclass(frozen=True, slots=True)
class TurnOptions:
    """What one turn asks for. ``temperature`` 0 takes the likeliest code: no randomness at all."""

    temperature: float = 0.9
    top_k: int = 50
    top_p: float = 1.0
    repetition_penalty: float = 1.05
    speed: float = 1.0
    seed: int = 0
    language: str = "auto"
    instructions: str = ""

    @classmethod
    def from_params(
        cls, params: Mapping[str, Any], defaults: TurnOptions, seed: int
    ) -> TurnOptions:
        """Check ``params`` against ``defaults``. Raises BackendError for a bad value."""
        get = params.get
        chosen_seed = get("seed")
        if chosen_seed is not None:
            _number("seed", chosen_seed, -(2**63), 2**64 - 1, whole=True)
        top_k = _number("top_k", get("top_k", defaults.top_k), 0, 1_000_000, whole=True)
        instructions = get("instructions") or ""
        if not isinstance(instructions, str):
            raise _bad("instructions must be text")
        language = get("language")
        temperature = _number("temperature", get("temperature", defaults.temperature), 0.0, 2.0)
        return cls(
            temperature=temperature if temperature >= MIN_TEMPERATURE else 0.0,
            # 0 switches the cut off in other tools; here it means as many as the engine keeps.
            top_k=min(int(top_k) or MAX_TOP_K, MAX_TOP_K),
            top_p=_number("top_p", get("top_p", defaults.top_p), 0.01, 1.0),
            repetition_penalty=_number(
                "repetition_penalty",
                get("repetition_penalty", defaults.repetition_penalty),
                0.5,
                2.0,
            ),
            speed=_number("speed", get("speed", defaults.speed), 0.5, 2.0),
            seed=seed if chosen_seed is None else chosen_seed,
            language=defaults.language if language is None else language_name(language),
            instructions=instructions.strip(),
        )

    @classmethod
    def from_generation(cls, generation: Mapping[str, Any], language: str) -> TurnOptions:
        """A checkpoint's own settings, from its generation_config.json.

        Raises BackendError ``model_incomplete``.
        """
        names = ("temperature", "top_k", "top_p", "repetition_penalty")
        params = {name: generation[name] for name in names if generation.get(name) is not None}
        if not generation.get("do_sample", True):
            params["temperature"] = 0.0
        try:
            return cls.from_params({**params, "language": language}, cls(), 0)
        except BackendError as exc:
            why = f"generation_config.json: {exc}"
            raise BackendError(why, code="model_incomplete") from exc
