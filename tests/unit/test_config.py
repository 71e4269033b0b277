"""backends.yaml and the environment: what is read, and what each mistake is told."""

from __future__ import annotations

from pathlib import Path

import pytest

from voice_server.config import Config, load_backends, load_config
from voice_server.core.errors import ConfigError, UnknownBackend

YAML = """
default: espeak
backends:
  espeak: {voice: en, aliases: {af_heart: en-us+f3}, env: {OMP_NUM_THREADS: 1}}
  tone:
  chaos: {hidden: true, workers: 3, first_chunk_timeout: 1}
"""


@pytest.fixture(autouse=True)
def _no_settings_of_this_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    import os

    for name in list(os.environ):
        if name.startswith("VOICE_SERVER_"):
            monkeypatch.delenv(name)


def written(folder: Path, text: str) -> Path:
    path = folder / "backends.yaml"
    path.write_text(text, encoding="utf-8")
    return path


def config(folder: Path, text: str = YAML, **overrides: object) -> Config:
    return load_config(backends_file=written(folder, text), **overrides)


def mistake(folder: Path, text: str) -> str:
    with pytest.raises(ConfigError) as caught:
        load_backends(written(folder, text))
    return str(caught.value)


def test_the_file_of_this_repository_is_valid_and_speaks_by_default() -> None:
    read = load_config()
    assert read.default == "espeak"
    assert read.backend("espeak").aliases["af_heart"]
    assert "chaos" not in read.visible()
    assert "espeak" in read.visible()


def test_an_entry_with_nothing_in_it_has_every_default(tmp_path: Path) -> None:
    tone = config(tmp_path).backend("tone")
    assert (tone.workers, tone.options, tone.aliases, tone.hidden) == (1, {}, {}, False)


def test_numbers_in_env_become_text(tmp_path: Path) -> None:
    assert config(tmp_path).backend("espeak").env == {"OMP_NUM_THREADS": "1"}


@pytest.mark.parametrize(
    ("entry", "told"),
    [
        ("workers: x", "backends.espeak.workers › expected an integer from 1 to 256, got 'x'"),
        ("workers: 0", "backends.espeak.workers › expected an integer from 1 to 256, got 0"),
        ("workers: true", "backends.espeak.workers › expected an integer from 1 to 256, got True"),
        ("workers: 257", "backends.espeak.workers › expected an integer from 1 to 256, got 257"),
        ("hidden: 1", "backends.espeak.hidden › expected true or false, got 1"),
        ("wrokers: 2", "backends.espeak.wrokers › unknown key; did you mean 'workers'?"),
        ("voice: no", "backends.espeak.voice › expected text, got False"),
        ("gap_timeout: 0", "backends.espeak.gap_timeout › expected a number > 0, got 0"),
        ("gap_timeout: .nan", "backends.espeak.gap_timeout › expected a number > 0, got nan"),
        ("aliases: [a]", "backends.espeak.aliases › expected a map, got ['a']"),
        ("aliases: {a: 1}", "backends.espeak.aliases.a › expected text, got 1"),
        ("env: {'A=B': x}", "backends.espeak.env.A=B › expected the name of a variable"),
        ('env: {"": x}', "expected the name of a variable"),
        ('env: {A: "x\\0"}', "backends.espeak.env.A › expected text without NUL"),
        ("env: {1: x}", "backends.espeak.env.1 › expected a name, in quotes"),
        ("env: {A: yes}", "backends.espeak.env.A › expected text, got True"),
        ("memory_limit_mb: -1", "memory_limit_mb › expected an integer ≥ 1, got -1"),
        ("python_version: 3.12", "python_version › expected text like"),
    ],
)
def test_a_mistake_in_an_entry_is_told_by_file_key_and_expectation(
    tmp_path: Path, entry: str, told: str
) -> None:
    message = mistake(tmp_path, f"default: espeak\nbackends:\n  espeak: {{{entry}}}\n")
    assert message.startswith("backends.yaml › ")
    assert told in message
    assert "\n" not in message


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("", "expected the keys default and backends"),
        ("- a", "expected the keys default and backends"),
        ("default: espeak", "backends › this key is missing"),
        ("default: espeka\nbackends: {espeak: }", "default › no backend named 'espeka'; did you"),
        (
            "default: espeak\nstart: [tone]\nbackends: {espeak: }",
            "start › no backend named 'tone'; known: espeak",
        ),
        ("default: a\nbackends: {a: {workers: 1, workers: 2}}", "'workers' stands here twice"),
        ("default: a\nbackends: {../a: }", "expected a name of a-z"),
        ("default: a\nbackends: {a: 7}", "backends.a › expected a map, got 7"),
        ("default: [", "line 1"),
        (f"default: {'[' * 5000}", "too deeply"),
        ("default: !!python/object/apply:os.system [ls]", "line 1"),
    ],
)
def test_a_file_that_makes_no_sense_is_told_where(tmp_path: Path, text: str, told: str) -> None:
    message = mistake(tmp_path, text)
    assert message.startswith("backends.yaml › ")
    assert told in message


def test_two_mistakes_are_two_lines(tmp_path: Path) -> None:
    message = mistake(tmp_path, "default: a\nbackends: {a: {workers: x, voice: 1}}")
    assert len(message.splitlines()) == 2


def test_a_limit_whose_name_is_a_number_is_a_warning(tmp_path: Path) -> None:
    found = config(tmp_path, YAML + "server: {limits: {5: 6, max_contexts: 2}}\n")
    assert found.limits.max_contexts == 2
    assert [line for line in found.warnings if "server.limits.5 › unknown setting" in line]


def test_off_is_no_limit_of_the_relay_in_the_file_too(tmp_path: Path) -> None:
    found = config(tmp_path, YAML + "server: {relay_key_rate: off, relay_wrong_keys: 5/second}\n")
    assert (found.settings.relay_key_rate, found.settings.relay_wrong_keys) == ("off", "5/second")


def test_a_file_that_is_missing_or_not_text_is_told(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="VOICE_SERVER_BACKENDS_FILE"):
        load_backends(tmp_path / "nowhere.yaml")
    path = tmp_path / "backends.yaml"
    path.write_bytes(b"default: \xff\xfe")
    with pytest.raises(ConfigError, match="expected UTF-8"):
        load_backends(path)


def test_the_environment_sets_settings_and_limits(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("VOICE_SERVER_PORT", "9000")
    monkeypatch.setenv("VOICE_SERVER_LOG_LEVEL", "debug")
    monkeypatch.setenv("VOICE_SERVER_API_KEY", "secret-key")
    monkeypatch.setenv("VOICE_SERVER_LIMITS_MAX_CONTEXTS", "3")
    read = config(tmp_path)
    assert (read.settings.port, read.settings.log_level) == (9000, "DEBUG")
    assert read.limits.max_contexts == 3
    assert "secret-key" not in repr(read)


def test_a_flag_wins_over_the_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VOICE_SERVER_PORT", "9000")
    assert config(tmp_path, port=1234, host=None).settings.port == 1234


@pytest.mark.parametrize(
    ("name", "value", "told"),
    [
        ("PORT", "x", "VOICE_SERVER_PORT › expected an integer from 0 to 65535, got 'x'"),
        ("PORT", "70000", "expected an integer from 0 to 65535"),
        ("LOG_FORMAT", "xml", "VOICE_SERVER_LOG_FORMAT › expected one of text, json, got 'xml'"),
        ("LIMITS_PING_TIMEOUT", "-1", "VOICE_SERVER_LIMITS_PING_TIMEOUT › expected a number > 0"),
        ("LIMITS_SEND_BUFFER_BYTES", "1" + "0" * 12, "expected an integer from 4096 to 1073741824"),
        ("LIMITS_TCP_USER_TIMEOUT", "1e10", "expected a number from 0.001 to 86400"),
        ("LIMITS_MAX_SEGMENT_CHARS", "1" + "0" * 20, "expected an integer from 20 to 1000000"),
        ("LIMITS_MAX_CONTEXT", "1", "unknown key; did you mean 'max_contexts'?"),
        ("LIMITS", "{", "VOICE_SERVER_LIMITS › expected a JSON map"),
        ("VOICE_SAMPLES_DIR", __file__, "VOICE_SERVER_VOICE_SAMPLES_DIR › expected a folder, and"),
        ("DATA_DIR", __file__, "VOICE_SERVER_DATA_DIR › expected a folder, and"),
    ],
)
def test_a_wrong_variable_is_told_by_its_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, value: str, told: str
) -> None:
    monkeypatch.setenv(f"VOICE_SERVER_{name}", value)
    with pytest.raises(ConfigError) as caught:
        config(tmp_path)
    assert told in str(caught.value)


def test_a_wrong_flag_is_told_as_a_flag(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="--port › expected an integer from 0 to 65535"):
        config(tmp_path, port=70000)


def test_a_key_from_a_file_is_without_its_line_break(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("VOICE_SERVER_API_KEY", "a secret\n")
    key = config(tmp_path).settings.api_key
    assert key is not None
    assert key.get_secret_value() == "a secret"


@pytest.mark.parametrize("key", [" ", "\n", "two\nlines"])
def test_a_key_that_no_header_can_carry_is_refused_and_not_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, key: str
) -> None:
    monkeypatch.setenv("VOICE_SERVER_API_KEY", key)
    with pytest.raises(ConfigError, match="VOICE_SERVER_API_KEY › expected a secret") as caught:
        config(tmp_path)
    assert "two" not in str(caught.value)


def test_an_unknown_variable_is_a_warning_with_the_nearest_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("VOICE_SERVER_PROT", "9000")
    (warning,) = config(tmp_path).warnings
    assert "VOICE_SERVER_PROT" in warning
    assert "did you mean 'VOICE_SERVER_PORT'?" in warning


def test_the_chosen_backends_start_and_the_first_is_the_default(tmp_path: Path) -> None:
    read = config(tmp_path)
    assert read.start == ("espeak",)
    chosen = read.with_backends(["tone", "espeak", "tone"], 4)
    assert (chosen.start, chosen.default) == (("tone", "espeak"), "tone")
    assert [chosen.backend(name).workers for name in ("tone", "espeak", "chaos")] == [4, 4, 3]
    assert read.backend("tone").workers == 1


def test_the_default_leads_the_backends_that_the_file_starts(tmp_path: Path) -> None:
    read = config(tmp_path, YAML + "start: [tone, espeak]\n")
    assert read.start == ("espeak", "tone")


def test_an_unknown_backend_is_answered_with_the_nearest_visible_one(tmp_path: Path) -> None:
    with pytest.raises(UnknownBackend, match="did you mean 'espeak'"):
        config(tmp_path).with_backends(["espaek"])
    with pytest.raises(UnknownBackend, match=r"known: espeak, tone$"):
        config(tmp_path).backend("whatever")


@pytest.mark.parametrize("size", [0, -1, 257, 100_000])
def test_a_pool_without_workers_or_with_thousands_is_refused(tmp_path: Path, size: int) -> None:
    with pytest.raises(ConfigError, match="--pool-size › expected an integer from 1 to 256, got"):
        config(tmp_path).with_backends([], size)


def test_every_setting_says_what_it_is() -> None:
    from voice_server.config import BackendConfig, Limits, Settings

    for model in (Settings, Limits, BackendConfig):
        for name, field in model.model_fields.items():
            assert field.description, f"{model.__name__}.{name} has no description"
