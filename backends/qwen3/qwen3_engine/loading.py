"""Finds a checkpoint, checks it, chooses a dtype, and loads it with the package.

Every refusal is a BackendError that names the file or setting and the remedy.
"""

from __future__ import annotations

import json
import os
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from tokenizers import Tokenizer, models

from voice_worker import hub
from voice_worker.backend import BackendError
from voice_worker.failure import is_device_lost, is_out_of_memory

from .package import import_package

REQUIRED = (
    "config.json",
    "generation_config.json",
    "vocab.json",
    "merges.txt",
    "tokenizer_config.json",
    "speech_tokenizer/config.json",
    "speech_tokenizer/preprocessor_config.json",
)
KINDS = {"base": "Base", "custom_voice": "CustomVoice", "voice_design": "VoiceDesign"}
CODEC = "qwen3_tts_tokenizer_12hz"
_LAYER = re.compile(r"(talker(\.code_predictor)?\.model|decoder\.pre_transformer)\.layers\.\d+\.")


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """A directory that was checked. ``kind`` is a key of KINDS, ``bytes`` the weights' size."""

    directory: Path
    kind: str
    size: str
    bytes: int


def locate(model: str) -> Path:
    """The local directory of ``model``: itself, the hub's cache, or a download.

    Raises BackendError ``model_missing``.
    """
    path = Path(model).expanduser()
    if path.is_dir():
        return path
    is_path = path.is_absolute() or model.startswith((".", "~")) or model.count("/") != 1
    if is_path or path.exists():
        # A relative one is meant from where the server was started, which may surprise.
        raise BackendError(
            f"no checkpoint directory at {path.absolute()}; set option 'model' to one that exists, "
            "or to a hub name such as Qwen/Qwen3-TTS-12Hz-0.6B-CustomVoice",
            code="model_missing",
        )
    try:
        return hub.snapshot(model, lambda folder: _missing_file(folder) is None)
    except BackendError as exc:
        raise BackendError(f"{path.absolute()} is no directory, and {exc}", code=exc.code) from exc


def inspect(directory: Path) -> Checkpoint:
    """Check files and model type without loading a weight.

    Raises BackendError: ``model_incomplete`` (a missing or unreadable file), ``wrong_model``.
    """
    if (missing := _missing_file(directory)) is not None:
        raise _incomplete(f"{directory} has no {missing}; fetch the whole checkpoint again")
    for name in (*REQUIRED, "preprocessor_config.json"):
        if name.endswith(".json") and (directory / name).is_file():
            _json(directory / name)
    _check_tokenizer(directory)
    config = _json(directory / "config.json")
    if config.get("model_type") != "qwen3_tts":
        raise BackendError(
            f"{directory} holds a {config.get('model_type')!r} model, not 'qwen3_tts'; "
            "this backend loads Qwen3-TTS Base, CustomVoice and VoiceDesign checkpoints",
            code="wrong_model",
        )
    codec_type = config.get("tokenizer_type")
    if codec_type != CODEC:
        raise BackendError(
            f"{directory} uses the {codec_type!r} codec; only {CODEC} can be streamed: "
            "choose a checkpoint with 12Hz in its name",
            code="wrong_model",
        )
    kind = str(config.get("tts_model_type"))
    if kind not in KINDS:
        raise BackendError(
            f"{directory} is of kind {kind!r}; expected one of {', '.join(KINDS)}",
            code="wrong_model",
        )
    total = sum(file.stat().st_size for file in directory.glob("**/*.safetensors"))
    return Checkpoint(directory, kind, str(config.get("tts_model_size", "")), total)


def _incomplete(message: str) -> BackendError:
    return BackendError(message, code="model_incomplete")


def _missing_file(directory: Path) -> str | None:
    """What a whole checkpoint has and this one has not."""
    for name in REQUIRED:
        if not (directory / name).is_file():
            return name
    for folder in (".", "speech_tokenizer"):
        # A link of a hub's cache may lead nowhere.
        weights = list((directory / folder).glob("*.safetensors"))
        if not weights or not all(file.is_file() for file in weights):
            return str(Path(folder, "model.safetensors"))
        for name in _shards(directory / folder):
            if not (directory / folder / name).is_file():
                return str(Path(folder, name))
    return None


def _shards(folder: Path) -> list[str]:
    """The files that weights in several are said to be in."""
    index = folder / "model.safetensors.index.json"
    if (folder / "model.safetensors").is_file() or not index.is_file():
        return []
    files = _json(index).get("weight_map")
    if not isinstance(files, dict) or not all(isinstance(name, str) for name in files.values()):
        raise _incomplete(f"{index} does not say where the weights are; fetch it again")
    return sorted(set(files.values()))


def _json(path: Path) -> dict[str, Any]:
    try:
        loaded = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, OSError) as exc:
        raise _incomplete(f"{path} is not valid JSON: {exc}") from exc
    if not isinstance(loaded, dict):
        raise _incomplete(f"{path} is not a JSON object")
    return loaded


def _check_tokenizer(directory: Path) -> None:
    """A damaged tokenizer is loaded as another one, or refused for want of another library."""
    try:
        vocabulary, merges = models.BPE.read_file(
            str(directory / "vocab.json"), str(directory / "merges.txt")
        )
        ids = Tokenizer(models.BPE(vocabulary, merges)).encode("assistant").ids
    except Exception as exc:  # what the tokenizers library raises is a plain Exception
        raise _incomplete(f"vocab.json and merges.txt of {directory} do not fit: {exc}") from exc
    # Every prompt begins with this word, which the model knows as one token.
    if len(ids) != 1:
        raise _incomplete(f"merges.txt of {directory} is cut short; fetch it again")
    # Published checkpoints have none; where there is one, the package reads it and not the others.
    whole = directory / "tokenizer.json"
    try:
        if whole.exists():
            Tokenizer.from_file(str(whole))
    except Exception as exc:
        raise _incomplete(
            f"{whole} is no tokenizer: {exc}; fetch it again, or delete it: vocab.json and "
            "merges.txt are enough"
        ) from exc


def choose_dtype(wanted: str, device: torch.device) -> torch.dtype:
    """auto is bfloat16 on CUDA and float32 on a CPU."""
    if wanted == "auto":
        return torch.bfloat16 if device.type == "cuda" else torch.float32
    return getattr(torch, wanted)


def available_memory(device: torch.device) -> int:
    """Bytes that could be taken on ``device`` now."""
    if device.type == "cuda":
        return torch.cuda.mem_get_info(device)[0]
    try:
        for line in Path("/proc/meminfo").read_text().splitlines():
            if line.startswith("MemAvailable:"):
                return int(line.split()[1]) * 1024
    except OSError:
        pass
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


def check_memory(checkpoint: Checkpoint, device: torch.device, dtype: torch.dtype) -> None:
    """Raise BackendError ``out_of_memory`` before loading when the weights cannot fit."""
    # Checkpoints are published in bfloat16. The engine's tables add about a tenth, and joining
    # the projections of a layer takes room for a moment.
    needed = int(checkpoint.bytes * dtype.itemsize / 2 * 1.2)
    free = available_memory(device)
    if needed > free:
        raise BackendError(
            f"the weights need about {needed / 2**30:.1f} GiB as {str(dtype)[6:]} and {device} has "
            f"{free / 2**30:.1f} GiB free; use the 0.6B model, a smaller dtype or another device",
            code="out_of_memory",
        )


def load(checkpoint: Checkpoint, device: torch.device, dtype: torch.dtype) -> Any:
    """A ``qwen_tts.Qwen3TTSModel`` on ``device``, in eval mode, codec included.

    Raises BackendError: ``model_incomplete`` or ``out_of_memory``.
    """
    package = import_package()
    try:
        # device_map would need accelerate; moving afterwards costs one copy and nothing else.
        wrapper = package.Qwen3TTSModel.from_pretrained(str(checkpoint.directory), dtype=dtype)
        # Without dtype: that would round what the package keeps in float32, its rotary frequencies.
        wrapper.model.to(device).eval()
        codec = wrapper.model.speech_tokenizer
        codec.model.to(device).eval()
        codec.device = wrapper.device = device
        _check(wrapper, checkpoint.directory)
    except BackendError:
        raise
    except Exception as exc:
        if is_device_lost(exc):
            raise
        if is_out_of_memory(exc):
            raise BackendError(
                f"{device} ran out of memory while loading; use the 0.6B model or a smaller dtype",
                code="out_of_memory",
            ) from exc
        # Whatever the package makes of a configuration that nobody published.
        said = " ".join(str(exc).split())
        raise _incomplete(
            f"{checkpoint.directory} could not be loaded: {type(exc).__name__}: {said:.500}; "
            "fetch the whole checkpoint again"
        ) from exc
    return wrapper


def _check(wrapper: Any, directory: Path) -> None:
    """Refuse by name what loads and would then speak noise, or end the process."""
    model, codec = wrapper.model, wrapper.model.speech_tokenizer.model
    _check_weights(model, directory, ("talker.", "speaker_encoder."))
    _check_weights(codec, directory / "speech_tokenizer", ("decoder.",))
    _check_ids(model.config, directory)
    _check_vocabulary(wrapper.processor.tokenizer, model.config, directory)
    talker = model.config.talker_config
    groups, predicted = talker.num_code_groups, talker.code_predictor_config.num_code_groups
    books = codec.decoder.config.num_quantizers
    if not groups == predicted == books:
        raise _incomplete(
            f"{directory}: its talker makes {groups} codes a frame, its code predictor "
            f"{predicted}, and its codec reads {books}; fetch the whole checkpoint again"
        )


@torch.no_grad()
def _check_weights(model: Any, directory: Path, prefixes: tuple[str, ...]) -> None:
    """The package fills weights that a file has not with noise, and says so in its log alone. What
    is not finite makes noise as well. To look at all 2e9 numbers of a 1.7B checkpoint takes a CPU
    about a second, and by computation an H200 10 ms: most of it the launches, 3 a tensor.
    """
    names: set[str] = set()
    for path in directory.glob("*.safetensors"):
        with safe_open(path, framework="pt") as file:
            names.update(file.keys())
    weights = dict(model.named_parameters())
    wanted = {name for name in weights if name.startswith(prefixes)}
    if missing := sorted(wanted - names):
        raise _incomplete(
            f"the weights in {directory} have no {missing[0]}, nor {len(missing) - 1} others that "
            "its config.json speaks of; fetch both again"
        )
    if surplus := sorted(name for name in names - wanted if _LAYER.match(name)):
        raise _incomplete(
            f"the weights in {directory} hold {surplus[0]}, a layer that its config.json does not "
            "speak of; fetch both again"
        )
    # aminmax passes NaN on and, unlike isfinite, makes no copy of what it reads.
    ends = {name: torch.stack(weights[name].aminmax()) for name in sorted(names & weights.keys())}
    finite = torch.stack([pair.float() for pair in ends.values()]).isfinite().all(1)
    for name, is_finite in zip(ends, finite.tolist(), strict=True):
        if not is_finite:
            dtype = weights[name].dtype
            # It ends at 65,504, far below what a published checkpoint may hold.
            wider = ", or set option 'dtype' to bfloat16" if dtype == torch.float16 else ""
            raise _incomplete(
                f"{name} in {directory} holds NaN or infinity as {str(dtype)[6:]}; fetch its "
                f"weights again{wider}"
            )


def _check_ids(config: Any, directory: Path) -> None:
    """On CUDA a token outside its table would end the process, and not say which."""
    talker = config.talker_config
    text = _ids(config, ("im_", "tts_"))
    codes = _ids(talker, ("codec_",))
    for kind in ("spk_id", "codec_language_id"):
        named = getattr(talker, kind) or {}
        codes |= {f"{kind} of {name}": value for name, value in named.items()}
    for size, ids in ((talker.text_vocab_size, text), (talker.vocab_size, codes)):
        for name, value in ids.items():
            if not isinstance(value, int):
                raise _incomplete(f"config.json of {directory}: {name} is no number")
            if not 0 <= value < size:
                raise _incomplete(
                    f"config.json of {directory}: {name} is {value}, and its table has {size} rows"
                )


def _ids(config: Any, prefixes: tuple[str, ...]) -> dict[str, Any]:
    """The tokens that ``config`` names, without those that every configuration has and few set."""
    return {
        name: value
        for name, value in vars(config).items()
        if name.startswith(prefixes) and name.endswith("_id") and name != "codec_language_id"
    }


def _check_vocabulary(tokenizer: Any, config: Any, directory: Path) -> None:
    """Another model's tokenizer would speak another text, or name tokens that are not there."""
    ids = tokenizer.get_vocab()
    start = ids.get("<|im_start|>", config.im_start_token_id)
    if (
        start != config.im_start_token_id
        or max(ids.values()) >= config.talker_config.text_vocab_size
    ):
        raise _incomplete(
            f"vocab.json or tokenizer_config.json of {directory} belongs to another model; "
            "fetch the whole checkpoint again"
        )
