"""Environments on a real disk with real venvs: installing, what counts as installed, who waits."""

from __future__ import annotations

import logging
import os
import signal
import subprocess
import sys
import sysconfig
import textwrap
import threading
import time
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

from voice_server.cli.installing import install_what_is_missing, logged
from voice_server.config import Config, load_config
from voice_server.core.errors import BackendNotInstalled, ConfigError, UnknownBackend
from voice_server.workers.environments import LOCK, STATE, Environment, ensure_installed, spec_for
from voice_server.workers.installer import Installer, Run

# Several processes each, which a busy machine starts slowly.
pytestmark = pytest.mark.timeout(400)

ADAPTER = """
import numpy as np
from voice_worker.backend import Backend, BackendInfo
from voice_worker.runtime import serve

class Mini(Backend):
    name = "mini"
    def load(self, options):
        return BackendInfo(sample_rate=24000)
    def synthesize(self, job):
        yield np.zeros(240, np.float32)

if __name__ == "__main__":
    serve(Mini())
"""


@dataclass(frozen=True)
class Borrowed(Installer):
    """A real venv within a second: it borrows this interpreter's packages, and then runs ``code``."""

    code: str = "pass"

    def create(self, venv: Path, python_version: str | None, run: Run) -> None:
        run([sys.executable, "-m", "venv", "--without-pip", str(venv)])
        here = sysconfig.get_paths()["purelib"]
        (site,) = venv.glob("lib/python*/site-packages")
        (site / "borrowed.pth").write_text(here)

    def install(
        self, python: Path, requirements: Path, run: Run, *, with_dependencies: bool = True
    ) -> None:
        run([str(python), "-c", self.code])


def house(folder: Path, entry: str = "", adapter: str | None = ADAPTER) -> Config:
    """A folder with a backends.yaml that lists ``mini``, and mini's adapter in backends/mini."""
    home = folder / "backends" / "mini"
    home.mkdir(parents=True, exist_ok=True)
    if adapter is not None:
        (home / "backend.py").write_text(adapter)
        (home / "requirements.txt").write_text("msgpack\nnumpy\n")
    (folder / "backends.yaml").write_text(f"default: mini\nbackends:\n  mini: {{{entry}}}\n")
    return load_config(backends_file=folder / "backends.yaml")


def environment(config: Config, code: str = "pass") -> Environment:
    return Environment("mini", config, Borrowed(None, code))


def test_what_is_installed_is_healthy_and_installing_again_does_nothing(tmp_path: Path) -> None:
    config = house(tmp_path, "workers: 2, options: {pitch: 3}, gap_timeout: 7")
    mini = environment(config)
    assert "not installed: run `cli.py backends install mini`" in str(mini.health())
    with pytest.raises(BackendNotInstalled, match="backends install mini"):
        spec_for("mini", config)
    told: list[str] = []
    assert mini.install(told.append) is True
    assert told
    assert mini.health() is None
    assert mini.install() is False
    assert mini.install(is_forced=True) is True
    spec = spec_for("mini", config)
    assert (spec.backend, spec.options, spec.gap_timeout) == ("mini", {"pitch": 3}, 7)
    assert spec.python.is_relative_to(tmp_path)
    assert mini.greet().backend == "mini"


def test_requirements_come_from_the_registry_with_the_installer_that_is_there(
    tmp_path: Path,
) -> None:
    config = house(tmp_path)
    mini = Environment("mini", config)
    mini.install()
    assert mini.health() is None
    found = subprocess.run(
        [mini.python, "-c", "import numpy; print(numpy.__file__)"], capture_output=True, text=True
    )
    assert found.stdout.startswith(str(tmp_path))


@pytest.mark.parametrize("find", [Installer.find, lambda: Installer(None)], ids=["uv", "pip"])
def test_wheels_of_a_local_folder_are_installed_without_an_index(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, find: Callable[[], Installer]
) -> None:
    wheels = tmp_path / "wheels"
    wheels.mkdir()
    with zipfile.ZipFile(wheels / "tinydep-1.0-py3-none-any.whl", "w") as wheel:
        wheel.writestr("tinydep.py", "answer = 42\n")
        about = "Metadata-Version: 2.1\nName: tinydep\nVersion: 1.0\nRequires-Dist: absent\n"
        wheel.writestr("tinydep-1.0.dist-info/METADATA", about)
        kind = "Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
        wheel.writestr("tinydep-1.0.dist-info/WHEEL", kind)
        files = ["tinydep.py", *(f"tinydep-1.0.dist-info/{n}" for n in ("METADATA", "WHEEL"))]
        record = "".join(f"{name},,\n" for name in [*files, "tinydep-1.0.dist-info/RECORD"])
        wheel.writestr("tinydep-1.0.dist-info/RECORD", record)
    monkeypatch.setenv("PIP_FIND_LINKS", str(wheels))
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    (tmp_path / "requirements.txt").write_text("tinydep==1.0\n")
    venv = tmp_path / "venv"
    installer = find()
    with open(tmp_path / "lock", "w") as lock:
        run = Run("mini", lambda _line: None, tmp_path / "log", lock.fileno())
        installer.create(venv, None, run)
        # What it depends on is nowhere: it comes in without its dependencies or not at all.
        with pytest.raises(BackendNotInstalled):
            installer.install(venv / "bin" / "python", tmp_path / "requirements.txt", run)
        installer.install(
            *(venv / "bin" / "python", tmp_path / "requirements.txt", run), with_dependencies=False
        )
    said = subprocess.check_output(
        [venv / "bin" / "python", "-c", "import tinydep; print(tinydep.answer)"], text=True
    )
    assert said == "42\n"


@pytest.mark.parametrize("find", [Installer.find, lambda: Installer(None)], ids=["uv", "pip"])
def test_without_a_network_the_answer_comes_soon_and_says_what_to_do(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, find: Callable[[], Installer]
) -> None:
    nobody = "http://127.0.0.1:9/simple"
    for name in ("PIP_INDEX_URL", "UV_INDEX_URL", "UV_DEFAULT_INDEX"):
        monkeypatch.setenv(name, nobody)
    monkeypatch.setenv("PIP_CONFIG_FILE", os.devnull)
    monkeypatch.setenv("UV_NO_CONFIG", "1")
    config = house(tmp_path)
    home = tmp_path / "backends" / "mini"
    (home / "requirements.txt").write_text("a-package-that-nobody-has==1.0\n")
    with pytest.raises(BackendNotInstalled) as caught:
        Environment("mini", config, find()).install()
    message = str(caught.value)
    assert "connect to the network" in message
    assert "cli.py backends install mini" in message
    assert "\n" not in message
    assert "interrupted" in str(Environment("mini", config).health())


def test_changed_requirements_make_it_stale_and_auto_install_renews_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Installer, "find", lambda: Borrowed(None))
    config = house(tmp_path, "auto_install: true")
    first = ensure_installed("mini", config)
    (tmp_path / "backends" / "mini" / "requirements.txt").write_text("msgpack\nnumpy\n# more\n")
    assert "requirements.txt changed" in str(Environment("mini", config).health())
    assert ensure_installed("mini", config) == first
    assert Environment("mini", config).health() is None


def test_an_install_of_a_server_whose_log_is_read_by_a_program_is_told_in_the_log(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(Installer, "find", lambda: Borrowed(None))
    config = house(tmp_path, "auto_install: true")
    with caplog.at_level(logging.INFO, logger="voice_server.cli.installing"):
        install_what_is_missing(config, logged)
    assert Environment("mini", config).health() is None
    assert any(text.startswith("installing mini: ") for text in caplog.messages)
    assert capsys.readouterr().err == ""


def test_packages_without_their_dependencies_come_second_and_count_as_requirements(
    tmp_path: Path,
) -> None:
    config = house(tmp_path)
    bare = tmp_path / "backends" / "mini" / "requirements-no-deps.txt"
    bare.write_text("numpy\n")
    told: list[str] = []
    environment(config).install(told.append)
    asked = [Path(line.split()[-1]).name for line in told if line.startswith("installing ")]
    assert asked == ["requirements.txt", "requirements-no-deps.txt"]
    assert environment(config).health() is None
    bare.write_text("numpy>=2\n")
    assert "changed since it was installed" in str(environment(config).health())


def test_what_is_not_marked_auto_install_is_installed_only_when_allowed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Installer, "find", lambda: Borrowed(None))
    config = house(tmp_path)
    with pytest.raises(BackendNotInstalled, match="mini › it is not installed"):
        ensure_installed("mini", config)
    assert ensure_installed("mini", config, is_allowed=True).backend == "mini"


def test_a_failed_install_leaves_nothing_that_counts_and_the_next_one_wipes_it(
    tmp_path: Path,
) -> None:
    config = house(tmp_path)
    failing = "import sys; print('error: it broke'); sys.exit(3)"
    with pytest.raises(BackendNotInstalled, match="it broke"):
        environment(config, failing).install()
    mini = environment(config)
    assert mini.venv is not None
    assert not (mini.venv / STATE).exists()
    assert "interrupted" in str(mini.health())
    (mini.venv / "leftover").mkdir()
    (mini.venv / "leftover" / "file").write_text("x")
    mini.install()
    assert mini.health() is None
    assert not (mini.venv / "leftover").exists()


def lose_packages(mini: Environment) -> None:
    for borrowed in mini.python.parents[1].glob("lib/python*/site-packages/borrowed.pth"):
        borrowed.unlink()


def lose_python(mini: Environment) -> None:
    mini.python.unlink()
    mini.python.mkdir()


def lose_state(mini: Environment) -> None:
    state = mini.python.parents[1] / STATE
    state.unlink()
    state.mkdir()


@pytest.mark.parametrize("damage", [lose_packages, lose_python, lose_state])
def test_an_install_repairs_what_was_damaged_since_the_last_one(
    tmp_path: Path, damage: Callable[[Environment], None]
) -> None:
    mini = environment(house(tmp_path))
    mini.install()
    damage(mini)
    if damage is not lose_state:
        with pytest.raises(BackendNotInstalled):
            mini.greet()
    assert mini.install() is True
    assert mini.greet().backend == "mini"
    assert mini.health() is None


def test_why_a_resolver_refused_is_told(tmp_path: Path) -> None:
    said = "print('error: No solution found'); print('  cause: Because toy-engine was not found')"
    with pytest.raises(BackendNotInstalled, match="Because toy-engine was not found"):
        environment(house(tmp_path), f"{said}; raise SystemExit(1)").install()


def test_an_install_that_is_killed_does_not_count_and_can_be_repeated(tmp_path: Path) -> None:
    config = house(tmp_path)
    mini = environment(config)
    assert mini.venv is not None
    marker = tmp_path / "began"
    script = textwrap.dedent(f"""
        from pathlib import Path
        from tests.integration.test_environments import environment
        from voice_server.config import load_config
        config = load_config(backends_file=Path({str(tmp_path / "backends.yaml")!r}))
        code = "import time; open({str(marker)!r}, 'w'); time.sleep(600)"
        environment(config, code).install()
    """)
    process = subprocess.Popen([sys.executable, "-c", script], start_new_session=True)
    try:
        wait_for(marker.exists)
        os.kill(process.pid, signal.SIGKILL)
        process.wait(60)
        # The installer that it had started is still there, and holds the lock.
        assert f"process {process.pid} is installing it" in str(mini.health())
        with pytest.raises(BackendNotInstalled, match=f"process {process.pid} is installing it"):
            mini.install(patience=0)
    finally:
        os.killpg(process.pid, signal.SIGKILL)
    wait_for(lambda: "interrupted" in str(mini.health()))
    assert mini.install(patience=120) is True
    assert mini.health() is None


def test_of_two_installs_at_once_one_waits_and_finds_it_done(tmp_path: Path) -> None:
    config = house(tmp_path)
    go = tmp_path / "go"
    code = f"import os, time\nwhile not os.path.exists({str(go)!r}): time.sleep(0.02)"
    results: list[bool] = []
    first = threading.Thread(target=lambda: results.append(environment(config, code).install()))
    first.start()
    try:
        venv = environment(config).venv
        assert venv is not None
        wait_for(lambda: (venv / LOCK).is_file() and bool((venv / LOCK).read_text()))
        told: list[str] = []

        def progress(line: str) -> None:
            told.append(line)
            go.touch()

        assert environment(config).install(progress, patience=120) is False
    finally:
        go.touch()
        first.join(120)
    assert results == [True]
    assert f"waiting for process {os.getpid()}" in told[0]


def test_a_folder_that_somebody_else_made_is_left_alone(tmp_path: Path) -> None:
    config = house(tmp_path, "venv: mine")
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").write_text("years of work")
    with pytest.raises(BackendNotInstalled, match="was not made here"):
        environment(config).install()
    assert (tmp_path / "mine" / "thesis.txt").read_text() == "years of work"


@pytest.mark.parametrize(
    ("adapter", "told"),
    [
        ("import a_module_that_is_not_there", "No module named 'a_module_that_is_not_there'"),
        ("import sys; sys.exit('weights are missing')", "weights are missing"),
        ("import os; os._exit(0)", "it ended at once"),
        ("import os; os.close(0); print('x' * 300_000); raise SystemExit('full')", "full"),
        ("import time; time.sleep(60)", "longer than its load_timeout"),
    ],
)
def test_an_adapter_that_does_not_greet_is_not_installed(
    tmp_path: Path, adapter: str, told: str
) -> None:
    seconds = 2 if "sleep" in adapter else 60
    config = house(tmp_path, f"load_timeout: {seconds}", adapter)
    mini = environment(config)
    with pytest.raises(BackendNotInstalled) as caught:
        mini.install()
    assert told in str(caught.value)
    assert mini.venv is not None
    assert not (mini.venv / STATE).exists()


def test_a_backend_that_prints_much_before_it_greets_is_well(tmp_path: Path) -> None:
    noise = "import sys; print('x' * 200_000); sys.stderr.write('y' * 200_000)\n"
    mini = environment(house(tmp_path, adapter=noise + ADAPTER))
    assert mini.install() is True


def test_a_backend_without_adapter_or_requirements_is_a_mistake_in_the_configuration(
    tmp_path: Path,
) -> None:
    config = house(tmp_path, adapter=None)
    assert "no adapter" in str(environment(config).health())
    with pytest.raises(ConfigError, match=r"backends.mini › expected .*backend.py"):
        environment(config).install()
    with pytest.raises(ConfigError, match="there is no adapter"):
        spec_for("mini", config)
    with pytest.raises(ConfigError, match="there is no adapter"):
        ensure_installed("mini", config)
    (tmp_path / "backends" / "mini" / "backend.py").write_text(ADAPTER)
    with pytest.raises(ConfigError, match=r"requirements.txt, which is not there"):
        environment(config).install()
    with pytest.raises(UnknownBackend, match="did you mean 'mini'"):
        Environment("minni", config)


def test_a_backend_may_live_outside_with_its_adapter_in_one_file_of_backends(
    tmp_path: Path,
) -> None:
    outside = tmp_path / "tts_backends" / "mini"
    outside.mkdir(parents=True)
    (outside / "requirements.txt").write_text("msgpack\nnumpy\n")
    inside = tmp_path / "repository"
    (inside / "backends").mkdir(parents=True)
    (inside / "backends" / "mini.py").write_text(ADAPTER)
    listing = "default: mini\nbackends: {mini: {path: ../tts_backends/mini}}\n"
    (inside / "backends.yaml").write_text(listing)
    config = load_config(backends_file=inside / "backends.yaml")
    mini = environment(config)
    mini.install()
    assert mini.venv is not None
    assert mini.venv.resolve() == outside / ".venv"
    assert spec_for("mini", config).entry == inside / "backends" / "mini.py"
    # An adapter in the folder outside is nearer.
    (outside / "backend.py").write_text(ADAPTER)
    assert spec_for("mini", config).entry.resolve() == outside / "backend.py"


def test_an_interpreter_named_in_the_file_is_used_as_it_is(tmp_path: Path) -> None:
    config = house(tmp_path, f"python: {sys.executable}")
    mini = Environment("mini", config)
    assert mini.health() is None
    assert spec_for("mini", config).python == Path(sys.executable)
    assert mini.greet().python.startswith("3.")
    with pytest.raises(ConfigError, match="names an interpreter"):
        mini.install()
    missing = Environment("mini", house(tmp_path, "python: nowhere/bin/python"))
    assert "nowhere/bin/python, which cannot be run" in str(missing.health())


def test_a_venv_whose_interpreter_or_python_version_is_gone_is_unhealthy(tmp_path: Path) -> None:
    mini = environment(house(tmp_path))
    mini.install()
    other = Environment("mini", house(tmp_path, "python_version: '3.9'"))
    assert "not 3.9" in str(other.health())
    mini.python.unlink()
    assert "is gone" in str(mini.health())
    assert mini.venv is not None
    (mini.venv / STATE).write_text("{")
    assert "interrupted" in str(mini.health())


@pytest.mark.parametrize(
    ("said", "entry", "wants"),
    [
        (">=3.40", "", f"needs Python 3.40 or newer, and this is 3.{sys.version_info.minor}."),
        (">=3.10,<3.11", "", "needs Python 3.10, and this is 3."),
        (">=3.11,<3.13", "python_version: '3.13'", "python_version in backends.yaml is 3.13: set"),
        (">=3.11,<3.13", "python_version: '3.10.4'", "needs Python 3.11 to 3.12, and"),
    ],
)
def test_a_python_that_will_not_do_is_refused_in_one_line(
    tmp_path: Path, said: str, entry: str, wants: str
) -> None:
    config = house(tmp_path, entry)
    (tmp_path / "backends" / "mini" / "requires-python.txt").write_text(f"{said}\n")
    mini = environment(config)
    with pytest.raises(BackendNotInstalled) as failure:
        mini.install()
    assert wants in str(failure.value)
    oldest = said.partition(",")[0].removeprefix(">=")
    assert str(failure.value).endswith(
        f'set python_version: "{oldest}" under mini in backends.yaml'
    )
    assert mini.venv is not None
    assert not mini.venv.exists()


def test_a_python_that_will_do_is_taken(tmp_path: Path) -> None:
    config = house(tmp_path)
    file = tmp_path / "backends" / "mini" / "requires-python.txt"
    file.write_text(f">=3.10,<3.{sys.version_info.minor + 1}\n")
    assert environment(config).install()


def test_a_range_of_pythons_that_makes_no_sense_is_told(tmp_path: Path) -> None:
    config = house(tmp_path)
    (tmp_path / "backends" / "mini" / "requires-python.txt").write_text("3.11")
    with pytest.raises(ConfigError, match=r"expected a line like >=3\.11,<3\.13, got '3\.11'"):
        environment(config).install()


def wait_for(condition: Callable[[], bool], seconds: float = 120.0) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it did not come true in time"
        time.sleep(0.02)
