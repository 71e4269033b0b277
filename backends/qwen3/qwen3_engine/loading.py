"""Finds a checkpoint, checks it, chooses device and dtype, and loads it with the package.

Every refusal is a BackendError that names the file or setting and the remedy.
"""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError

from voice_worker.backend import BackendError

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


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """A directory that was checked. ``kind`` is a key of KINDS, ``bytes`` the weights' size."""

    directory: Path
    kind: str
    size: str
    bytes: int


def locate(model: str) -> Path:
    """The local directory of ``model``: itself, the hub's cache, or a download.

    Raises BackendError: ``model_not_found``, or ``no_network`` when it would have to be fetched.
    """
    path = Path(model).expanduser()
    if path.is_dir():
        return path
    if path.is_absolute() or model.startswith((".", "~")) or model.count("/") != 1:
        raise BackendError(
            f"no checkpoint directory at {model}; set option 'model' to one that exists, or to a "
            "hub name such as Qwen/Qwen3-TTS-12Hz-0.6B-CustomVoice",
            code="model_not_found",
        )
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import LocalEntryNotFoundError, RepositoryNotFoundError

    try:
        return Path(snapshot_download(model, local_files_only=True))
    except LocalEntryNotFoundError:
        pass
    try:
        return Path(snapshot_download(model))
    except RepositoryNotFoundError:
        raise BackendError(
            f"the hub has no model named {model}; check option 'model'", code="model_not_found"
        ) from None
    except (LocalEntryNotFoundError, OSError) as exc:
        raise BackendError(
            f"{model} is not in the local cache and could not be fetched ({type(exc).__name__}); "
            "fetch it on a machine with network and set option 'model' to the directory",
            code="no_network",
        ) from exc


def inspect(directory: Path) -> Checkpoint:
    """Check files and model type without loading a weight.

    Raises BackendError: ``model_incomplete`` (a missing or unreadable file), ``wrong_model``.
    """
    for name in REQUIRED:
        if not (directory / name).is_file():
            raise BackendError(
                f"{directory} has no {name}; fetch the whole checkpoint again",
                code="model_incomplete",
            )
    weights = list(directory.glob("*.safetensors"))
    codec_weights = list((directory / "speech_tokenizer").glob("*.safetensors"))
    if not weights or not codec_weights:
        where = directory if not weights else directory / "speech_tokenizer"
        raise BackendError(
            f"{where} has no .safetensors file; fetch the whole checkpoint again",
            code="model_incomplete",
        )
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
    kind = config.get("tts_model_type")
    if kind not in KINDS:
        raise BackendError(
            f"{directory} is of kind {kind!r}; expected one of {', '.join(KINDS)}",
            code="wrong_model",
        )
    total = sum(file.stat().st_size for file in (*weights, *codec_weights))
    return Checkpoint(directory, kind, str(config.get("tts_model_size", "")), total)


def _json(path: Path) -> dict[str, Any]:
    try:
        loaded = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as exc:
        raise BackendError(f"{path} is not valid JSON: {exc}", code="model_incomplete") from exc
    if not isinstance(loaded, dict):
        raise BackendError(f"{path} is not a JSON object", code="model_incomplete")
    return loaded


def choose_device(wanted: str) -> torch.device:
    """auto, cpu, cuda or cuda:N. Raises BackendError ``no_cuda`` or ``bad_option``."""
    if wanted == "auto":
        return torch.device("cuda:0" if torch.cuda.is_available() else "cpu")
    name, _, index = wanted.partition(":")
    if name not in ("cpu", "cuda") or (index and not (name == "cuda" and index.isdecimal())):
        raise BackendError(f"device must be auto, cpu or cuda:N, not {wanted!r}", code="bad_option")
    if name == "cpu":
        return torch.device("cpu")
    number = int(index or 0)
    if not torch.cuda.is_available():
        raise BackendError(
            f"device {wanted} was asked for, but this torch sees no CUDA device; set device: cpu, "
            "or install the backend where nvidia-smi lists a GPU",
            code="no_cuda",
        )
    if number >= torch.cuda.device_count():
        raise BackendError(
            f"device {wanted} was asked for; this machine has {torch.cuda.device_count()} of them",
            code="no_cuda",
        )
    return torch.device("cuda", number)


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
        wrapper.model.to(device=device, dtype=dtype).eval()
        codec = wrapper.model.speech_tokenizer
        codec.model.to(device=device, dtype=dtype).eval()
        codec.device = wrapper.device = device
    except torch.OutOfMemoryError as exc:
        raise BackendError(
            f"{device} ran out of memory while loading; use the 0.6B model or a smaller dtype",
            code="out_of_memory",
        ) from exc
    except (OSError, ValueError, KeyError, RuntimeError, SafetensorError) as exc:
        raise BackendError(
            f"{checkpoint.directory} could not be loaded: {exc}", code="model_incomplete"
        ) from exc
    return wrapper
