"""backends.yaml: which engines there are, how many workers, their options and deadlines."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import yaml
from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    ValidationError,
    model_validator,
)

from voice_server.config.mistakes import explain
from voice_server.config.settings import ENV_PREFIX, Seconds
from voice_server.core.errors import ConfigError
from voice_server.core.expectations import suggest


def _number_as_text(value: object) -> object:
    # OMP_NUM_THREADS: 1 is what people write; a bool is not, its spelling would be a guess.
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    return str(value) if is_number else value


def _env_name(value: str) -> str:
    # What the operating system refuses would end the server when it starts a worker.
    if not value or "=" in value or "\0" in value:
        raise ValueError("expected the name of a variable, without '='")
    return value


def _env_value(value: str) -> str:
    if "\0" in value:
        raise ValueError("expected text without NUL")
    return value


def _not_none(value: object) -> object:
    # A key with nothing after it is None in YAML, and means empty.
    return {} if value is None else value


EnvName = Annotated[str, AfterValidator(_env_name)]
EnvValue = Annotated[str, BeforeValidator(_number_as_text), AfterValidator(_env_value)]
YamlInt = Annotated[int, Field(ge=1, strict=True)]
# A slip of the finger must not start ten thousand processes.
MAX_WORKERS = 256
Workers = Annotated[int, Field(ge=1, le=MAX_WORKERS, strict=True)]
YamlBool = Annotated[bool, Field(strict=True)]


class BackendConfig(BaseModel):
    """One entry of backends.yaml. Times in seconds. Paths are relative to the file."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    path: Path | None = Field(
        default=None,
        description="Folder with the adapter, its requirements, .venv or weights, when that is not "
        "backends/<name>; it may lie outside the repository.",
    )
    python: Path | None = Field(
        default=None,
        description="Interpreter to run the worker with as it is; nothing is installed.",
    )
    python_version: Annotated[str, Field(pattern=r"^3\.\d+(\.\d+)?$")] | None = Field(
        default=None,
        description="Python version to build the venv with, in quotes; default: the server's.",
    )
    venv: Path | None = Field(default=None, description="Where its venv is; default <path>/.venv.")
    auto_install: YamlBool = Field(
        default=False, description="Install it when it is first asked for."
    )
    hidden: YamlBool = Field(
        default=False, description="Leave it out of lists: it exists for tests."
    )
    workers: Workers = Field(default=1, description="Worker processes; --pool-size overrides it.")
    options: Annotated[dict[str, Any], BeforeValidator(_not_none)] = Field(
        default_factory=dict,
        description="Handed to the backend's load(); a relative path in it counts from where the "
        "server is started.",
    )
    env: Annotated[dict[EnvName, EnvValue], BeforeValidator(_not_none)] = Field(
        default_factory=dict, description="Environment variables of its workers."
    )
    voice: str | None = Field(default=None, description="Voice used when the client names none.")
    aliases: Annotated[dict[str, str], BeforeValidator(_not_none)] = Field(
        default_factory=dict, description="Other names for its voices: alias: voice."
    )
    load_timeout: Seconds = Field(default=300.0, description="Start to ready.")
    first_chunk_timeout: Seconds = Field(default=30.0, description="Job sent to its first chunk.")
    gap_timeout: Seconds = Field(default=30.0, description="One chunk to the next.")
    job_timeout: Seconds = Field(default=600.0, description="Job sent to its end.")
    stop_timeout: Seconds = Field(default=5.0, description="Asked to shut down to killed.")
    cancel_timeout: Seconds = Field(default=2.0, description="Asked to cancel to killed.")
    memory_limit_mb: YamlInt | None = Field(
        default=None, description="A worker that holds more, in MB, is replaced between two jobs."
    )
    nice: Annotated[int, Field(ge=-20, le=19, strict=True)] = Field(
        default=0, description="Added to its workers' scheduling priority; positive yields."
    )


class BackendsFile(BaseModel):
    """backends.yaml as a whole."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    default: str = Field(description="Backend used when the client names none.")
    start: tuple[str, ...] = Field(
        default=(),
        description="Backends started when --backend is not given; default: the default one.",
    )
    server: Annotated[dict[str, Any], BeforeValidator(_not_none)] = Field(
        default_factory=dict,
        description="Settings by name, such as port or limits.max_contexts; the environment wins.",
    )
    backends: dict[
        Annotated[str, Field(pattern=r"^[a-z][a-z0-9_-]{0,40}$")],
        Annotated[BackendConfig, BeforeValidator(_not_none)],
    ]

    @model_validator(mode="after")
    def _names_exist(self) -> BackendsFile:
        for key, name in [("default", self.default), *(("start", name) for name in self.start)]:
            if name not in self.backends:
                raise ValueError(f"{key} › no backend named {name!r}{suggest(name, self.backends)}")
        return self


def load_backends(path: Path) -> BackendsFile:
    """Read a backends.yaml. Raises ConfigError with file › key › what was expected."""
    try:
        text = path.read_text(encoding="utf-8")
        data = yaml.load(text, Loader=_OneOfEachKey)
    except OSError as exc:
        variable = f"{ENV_PREFIX}BACKENDS_FILE"
        raise ConfigError(f"{path} › {exc.strerror}; {variable} says where the file is") from None
    except UnicodeDecodeError as exc:
        raise ConfigError(f"{path.name} › byte {exc.start} › expected UTF-8 text") from None
    except yaml.MarkedYAMLError as exc:
        mark = exc.problem_mark
        where = f"line {mark.line + 1}, column {mark.column + 1} › " if mark else ""
        raise ConfigError(f"{path.name} › {where}{exc.problem or exc.context}") from None
    except yaml.YAMLError as exc:
        raise ConfigError(f"{path.name} › {exc}") from None
    except RecursionError:
        raise ConfigError(f"{path.name} › brackets stand in one another too deeply") from None
    if not isinstance(data, dict):
        raise ConfigError(f"{path.name} › expected the keys default and backends, got {data!r:.40}")
    try:
        return BackendsFile.model_validate(data)
    except ValidationError as exc:

        def label(loc: Sequence[str]) -> str:
            return " › ".join(filter(None, (path.name, ".".join(loc))))

        raise ConfigError(explain(exc, BackendsFile, label)) from None


class _OneOfEachKey(yaml.SafeLoader):
    """YAML's safe types; a key that stands twice in a map is an error, not a silent override."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen: set[str] = set()
        for key, _ in node.value:
            if key.tag != "tag:yaml.org,2002:merge" and isinstance(key, yaml.ScalarNode):
                if key.value in seen:
                    raise yaml.constructor.ConstructorError(
                        None, None, f"the key {key.value!r} stands here twice", key.start_mark
                    )
                seen.add(key.value)
        return super().construct_mapping(node, deep)
