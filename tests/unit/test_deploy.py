"""What stands in Dockerfile and deploy/: linted here, and by the tools that read it, if present."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.pages import ROOT, page
from voice_server.config import Limits, Settings
from voice_server.relay.metrics import RelayMetrics
from voice_server.speech.metrics import Metrics

DEPLOY = ROOT / "deploy"
DOCKERFILE = (ROOT / "Dockerfile").read_text("utf-8")
COMPOSE = sorted(DEPLOY.glob("compose*.yaml"))
UNITS = sorted(DEPLOY.glob("*.service"))
SETTINGS = {f"VOICE_SERVER_{name.upper()}" for name in Settings.model_fields}
SETTINGS |= {f"VOICE_SERVER_LIMITS_{name.upper()}" for name in Limits.model_fields}


# What base-passwd of Debian brings to every image, of what might be tempting.
DEBIAN_GROUPS = {"audio", "daemon", "operator", "proxy", "staff", "users", "video", "voice"}


def instructions() -> list[tuple[str, str]]:
    """(instruction, rest) of the Dockerfile, continued lines joined, comments left out."""
    lines = [line for line in DOCKERFILE.splitlines() if not line.lstrip().startswith("#")]
    joined = re.sub(r"\\\n\s*", "", "\n".join(lines))
    return [(word, rest) for word, _, rest in (x.partition(" ") for x in joined.splitlines() if x)]


def stages() -> dict[str, list[tuple[str, str]]]:
    found: dict[str, list[tuple[str, str]]] = {}
    for word, rest in instructions():
        if word == "FROM":
            image, _, name = rest.partition(" AS ")
            assert image in found or re.fullmatch(r"[a-z]+:\d+\.\d+[-\w]*", image), rest
            found[name] = []
        else:
            found[list(found)[-1]].append((word, rest))
    return found


# -- Dockerfile ----------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["relay", "speech"])
def test_an_image_ends_as_a_user_without_rights_and_says_whether_it_is_healthy(name: str) -> None:
    stage = stages()[name]
    words = [word for word, _ in stage]
    users = [rest for word, rest in stage if word == "USER"]
    assert users == ["speaker"]
    assert not {*users} & DEBIAN_GROUPS  # useradd makes a group too, and fails where there is one
    assert words.index("USER") < words.index("ENTRYPOINT")
    assert "HEALTHCHECK" in words
    for word, rest in stage:
        if word in ("ENTRYPOINT", "VOLUME"):
            assert isinstance(json.loads(rest), list), rest
        if word == "ENTRYPOINT":
            script = ROOT / Path(json.loads(rest)[0]).relative_to("/app")
            assert os.access(script, os.X_OK), script


def test_the_image_that_is_built_by_default_speaks() -> None:
    assert list(stages())[-1] == "speech"


def test_images_bring_bytecode_and_neither_ffmpeg_nor_a_secret() -> None:
    commands = " ".join(rest for word, rest in instructions() if word == "RUN")
    assert "compileall" in commands
    assert "ffmpeg" not in commands
    assert "sudo" not in commands
    assert "ADD" not in [word for word, _ in instructions()]
    assert not re.search(r"(KEY|TOKEN|PASSWORD)=\S", DOCKERFILE)


def test_what_is_copied_and_compiled_exists() -> None:
    for word, rest in instructions():
        if word == "COPY":
            for source in rest.split()[:-1]:
                assert (ROOT / source).exists(), source
        if "compileall" in rest:
            for source in rest.partition("-q ")[2].split():
                assert list(ROOT.glob(source)), source


def test_the_build_arguments_of_the_documented_commands_exist() -> None:
    arguments = {rest.partition("=")[0] for word, rest in instructions() if word == "ARG"}
    named = set(re.findall(r"--build-arg (\w+)=", page("operations.md") + DOCKERFILE))
    assert {"TORCH_VARIANT", "TORCH_CUDA"} <= named <= arguments


def test_a_container_without_a_key_makes_one_and_keeps_it(tmp_path: Path) -> None:
    def started(**more: str) -> subprocess.CompletedProcess[str]:
        given = {"PATH": os.environ["PATH"], "VOICE_SERVER_DATA_DIR": str(tmp_path), **more}
        command = ["sh", DEPLOY / "with-key.sh", "sh", "-c", 'printf "%s" "$VOICE_SERVER_API_KEY"']
        return subprocess.run(
            command, env=given, capture_output=True, text=True, timeout=60, check=True
        )

    first, second = started(), started()
    assert len(first.stdout) >= 32
    assert first.stdout == second.stdout
    assert first.stdout not in first.stderr
    assert (tmp_path / "api_key").stat().st_mode & 0o077 == 0
    assert started(VOICE_SERVER_API_KEY="mine").stdout == "mine"


# -- compose -------------------------------------------------------------------------------------


@pytest.mark.parametrize("path", COMPOSE, ids=lambda path: path.name)
def test_a_compose_file_builds_what_exists_and_hardens_it(path: Path) -> None:
    whole: dict[str, Any] = yaml.safe_load(path.read_text("utf-8"))
    assert set(whole) == {"services", "volumes"}
    for service in whole["services"].values():
        build = service["build"]
        assert (path.parent / build["context"] / "Dockerfile").is_file()
        assert build["target"] in stages()
        assert set(service["environment"]) <= SETTINGS
        assert service["read_only"] is True
        assert service["cap_drop"] == ["ALL"]
        assert all(port.startswith("127.0.0.1:") for port in service["ports"])
        named = {volume.partition(":")[0] for volume in service["volumes"]}
        assert {name for name in named if not name.startswith(".")} <= set(whole["volumes"])


def compose_commands() -> list[list[str]]:
    """What reads compose files on this machine: the plugin of docker, or compose by itself."""
    known = (["docker", "compose"], ["docker-compose"])
    return [
        command
        for command in known
        if shutil.which(command[0]) is not None
        and subprocess.run([*command, "version"], capture_output=True, timeout=60).returncode == 0
    ]


@pytest.mark.parametrize("path", COMPOSE, ids=lambda path: path.name)
def test_compose_itself_accepts_the_file(path: Path) -> None:
    given = {**os.environ, "VOICE_SERVER_API_KEY": "k", "VOICE_SERVER_RELAY_BOXES": "home=k"}
    commands = compose_commands()
    if not commands:
        pytest.skip("compose is not on this machine")
    for command in commands:
        done = subprocess.run(
            [*command, "-f", str(path), "config", "--quiet"],
            env=given, capture_output=True, text=True, timeout=120,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr


# -- systemd -------------------------------------------------------------------------------------


def directives(path: Path) -> dict[str, str]:
    lines = path.read_text("utf-8").splitlines()
    pairs = [line.partition("=") for line in lines if re.match(r"[A-Z]\w+=", line)]
    return {name: value for name, _, value in pairs}


@pytest.mark.parametrize("path", UNITS, ids=lambda path: path.name)
def test_a_unit_is_hardened_and_leaves_time_to_drain(path: Path) -> None:
    unit = directives(path)
    assert float(unit["TimeoutStopSec"]) > Limits().drain_timeout + 10
    assert unit["NoNewPrivileges"] == "yes"
    assert unit["ProtectSystem"] == "strict"
    assert unit["CapabilityBoundingSet"] == ""
    assert unit["User"] != "root"
    assert "LimitNOFILE" in unit


@pytest.mark.parametrize("path", UNITS, ids=lambda path: path.name)
def test_systemd_itself_accepts_the_unit(path: Path, tmp_path: Path) -> None:
    if shutil.which("systemd-analyze") is None:
        pytest.skip("systemd is not on this machine")
    # It looks whether the program exists; here is none.
    text = path.read_text("utf-8").replace("/srv/voice-server/.venv/bin/python", "/bin/sh")
    copy = tmp_path / path.name
    copy.write_text(text.replace("/srv/voice-server", str(tmp_path)), "utf-8")
    done = subprocess.run(
        ["systemd-analyze", "verify", "--man=no", str(copy)],
        capture_output=True, text=True, timeout=60,
    )  # fmt: skip
    assert path.name not in done.stderr, done.stderr


def test_the_settings_that_units_and_images_name_exist() -> None:
    for path in [*UNITS, ROOT / "Dockerfile", DEPLOY / "with-key.sh"]:
        named = set(re.findall(r"VOICE_SERVER_[A-Z_]*[A-Z]", path.read_text("utf-8")))
        assert named <= SETTINGS, path


# -- Grafana -------------------------------------------------------------------------------------


def exported() -> dict[str, set[str]]:
    """Series that ``/metrics`` can show → their labels."""
    known: dict[str, set[str]] = {}
    registries = [Metrics({}).registry, RelayMetrics().registry]
    for collector in [one for registry in registries for one in registry._collector_to_names]:
        labels = set(getattr(collector, "_labelnames", ()))
        for family in collector.collect():
            for name in collector_names(family.name, family.type):
                known[name] = labels | set(getattr(family, "_labelnames", ()))
    return known


def collector_names(name: str, kind: str) -> list[str]:
    if kind == "histogram":
        return [f"{name}_bucket", f"{name}_sum", f"{name}_count"]
    return [f"{name}_total"] if kind == "counter" else [name]


def queries() -> list[str]:
    dashboard = json.loads((DEPLOY / "grafana.json").read_text("utf-8"))
    panels = [target["expr"] for panel in dashboard["panels"] for target in panel["targets"]]
    return panels + [v["query"] for v in dashboard["templating"]["list"] if v["type"] == "query"]


@pytest.mark.parametrize("query", queries())
def test_a_query_of_the_dashboard_asks_for_series_and_labels_that_exist(query: str) -> None:
    known = exported()
    series = re.findall(r"voice_(?:server|relay)_\w+", query)
    assert series
    labels = {label for name in series for label in known[name]} | {"le"}
    asked = re.findall(r"(\w+)\s*=~?\s*\"", query)
    for group in re.findall(r"by \(([^)]*)\)", query):
        asked += [label.strip() for label in group.split(",")]
    assert set(asked) <= labels
    # A counter is looked at by its growth, anything else as it is.
    for name in series:
        is_growing = re.search(rf"(rate|increase)\({name}", query) is not None
        assert is_growing == name.endswith(("_total", "_bucket")), name
    assert query.count("(") == query.count(")")


def test_every_metric_of_the_relay_is_documented() -> None:
    names = {name for name in exported() if name.startswith("voice_relay_")}
    assert names
    assert [name for name in sorted(names) if f"| `{name}` |" not in page("relay.md")] == []


def test_every_metric_is_on_the_dashboard() -> None:
    shown = " ".join(queries())
    families = {re.sub(r"_(bucket|sum|count)$", "", name) for name in exported()}
    assert [name for name in sorted(families) if name not in shown] == []
