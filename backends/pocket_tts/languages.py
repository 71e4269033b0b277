"""One language: the package's model of it, from a folder or the hub, and the voices it knows."""

from __future__ import annotations

import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import yaml
from pocket_tts import TTSModel
from pocket_tts.default_parameters import get_default_voice_for_language
from pocket_tts.utils.config import CONFIGS_DIR, Config, load_config
from pocket_tts.utils.utils import _ORIGINS_OF_PREDEFINED_VOICES, get_predefined_voice
from voices import Voices

from voice_worker import BackendError, Speaker
from voice_worker.hub import locate

if TYPE_CHECKING:
    from options import Options

MODELS = {
    "en": "english",
    "fr": "french",
    "de": "german",
    "pt": "portuguese",
    "it": "italian",
    "es": "spanish",
    "nl": "dutch",
}
# Of the package's catalogue; all others are English. Every voice exists in every language.
NATIVE = {"giovanni": "it", "lola": "es", "juergen": "de", "rafael": "pt", "daan": "nl"}
NATIVE |= {"estelle": "fr"}


def tag_of(name: str) -> str:
    """The language of the package's model ``name``. Raises BackendError unsupported_language."""
    for tag, model in MODELS.items():
        if name.partition("_")[0] == model:
            return tag
    raise BackendError(
        f"Pocket TTS has no model {name!r:.40}; it speaks {', '.join(MODELS)}",
        code="unsupported_language",
    )


@dataclass
class Language:
    model: TTSModel
    voices: Voices
    speakers: tuple[Speaker, ...]
    default_speaker: str | None

    @property
    def clones(self) -> bool:
        return self.voices.clones

    def native_tag(self, speaker: str | None) -> str | None:
        known = {one.id: one.language for one in self.speakers}
        return known.get(speaker) if speaker else None

    @classmethod
    def load(cls, name: str, options: Options) -> Language:
        """Raises BackendError: model_missing, model_incomplete."""
        hub = _Hub(options.model)
        config = hub.configuration(name)
        try:
            # The package takes its configuration as a file, and JSON is YAML.
            with tempfile.TemporaryDirectory() as folder:
                path = Path(folder, f"{name}.yaml")
                path.write_text(config.model_dump_json(), "utf-8")
                model = TTSModel.load_model(config=path, quantize=bool(options.quantize))
        except Exception as exc:
            raise BackendError(
                f"{config.weights_path} cannot be loaded as {name} ({exc!s:.300}): fetch it again",
                code="model_incomplete",
            ) from exc
        model.to(options.device)
        speakers = hub.speakers(name)
        default = get_default_voice_for_language(name)
        default_speaker = default if default in speakers else next(iter(speakers), None)
        voices = Voices(model, name, default_speaker, lambda one: hub.voice(name, one), speakers)
        if default_speaker:
            hub.voice(name, default_speaker)  # what is missing is told now
        told = tuple(Speaker(one, one.title(), NATIVE.get(one, "en")) for one in speakers)
        return cls(model, voices, told, default_speaker)


class _Hub:
    """The files of Kyutai's two repositories; in a folder they lie together."""

    def __init__(self, folder: Path | None) -> None:
        self._folder = folder

    def configuration(self, name: str) -> Config:
        """The package's configuration of the model, or the folder's, with local paths in it."""
        own = self._folder and self._folder / "languages" / name / "config.yaml"
        path = own if own and own.is_file() else CONFIGS_DIR / f"{name}.yaml"
        if not path.is_file():
            known = sorted(path.stem for path in CONFIGS_DIR.glob("*.yaml"))
            raise BackendError(
                f"Pocket TTS has no model {name!r:.40}: {', '.join(known)}", code="model_missing"
            )
        try:
            config = load_config(path)
        except (ValueError, TypeError, yaml.YAMLError) as exc:
            raise BackendError(
                f"{path} is no configuration of Pocket TTS: {exc}", code="model_incomplete"
            ) from exc
        weights = self._weights(name, config)
        table = config.flow_lm.lookup_table
        table = table.model_copy(update={"tokenizer_path": str(self._file(table.tokenizer_path))})
        flow_lm = config.flow_lm.model_copy(update={"lookup_table": table, "weights_path": None})
        mimi = config.mimi.model_copy(update={"weights_path": None})
        changes = {"weights_path_without_voice_cloning": None, "flow_lm": flow_lm, "mimi": mimi}
        return config.model_copy(update={**changes, "weights_path": str(weights)})

    def speakers(self, name: str) -> tuple[str, ...]:
        if self._folder is None:
            return tuple(_ORIGINS_OF_PREDEFINED_VOICES)
        states = (self._folder / "languages" / name / "embeddings").glob("*.safetensors")
        return tuple(sorted(path.stem for path in states))

    def voice(self, name: str, speaker: str) -> Path:
        return self._file(get_predefined_voice(language=name, name=speaker))

    def _weights(self, name: str, config: Config) -> Path:
        """Those that clone need a login; without one, those that cannot clone."""
        able, unable = config.weights_path, config.weights_path_without_voice_cloning
        if self._folder is not None:
            return self._file(able or f"hf://kyutai/pocket-tts/languages/{name}/model.safetensors")
        try:
            return self._file(able)
        except BackendError:
            if unable is None:
                raise
            return self._file(unable)

    def _file(self, url: str | None) -> Path:
        """``hf://OWNER/REPOSITORY/PATH@REVISION`` as a local file."""
        owner, repository, path = str(url).removeprefix("hf://").split("/", 2)
        path, _, revision = path.partition("@")
        return locate(f"{owner}/{repository}", path, revision or None, self._folder)
