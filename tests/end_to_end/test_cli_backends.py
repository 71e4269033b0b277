"""``backends new``, ``backends check --full`` and ``compare``, as they are typed."""

from __future__ import annotations

import base64
import io
import re
import sys
import wave
from html.parser import HTMLParser
from pathlib import Path

import pytest
import yaml

from tests.end_to_end.cli_process import run_cli

QUICK = ("--segments", "6", "--cancels", "3", "--chars", "200")


def test_a_new_backend_keeps_the_contract_before_a_model_is_in_it(tmp_path: Path) -> None:
    listing = f"# mine\ndefault: tone\nbackends:\n  tone: {{python: {sys.executable}}} # beeps\n"
    (tmp_path / "backends.yaml").write_text(listing)
    done = run_cli(tmp_path, "backends", "new", "my_engine")
    assert done.returncode == 0, done.stderr
    folder = tmp_path / "backends" / "my_engine"
    names = {"backend.py", "requirements.txt", "README.md"}
    assert {path.name for path in folder.iterdir()} == names
    assert not any("keleton" in path.read_text("utf-8") for path in folder.iterdir())
    assert "class MyEngine(vw.Backend):" in (folder / "backend.py").read_text("utf-8")
    entry = (tmp_path / "backends.yaml").read_text()
    assert entry.startswith(listing)
    assert set(yaml.safe_load(entry)["backends"]) == {"tone", "my_engine"}
    # Its entry is the last thing in the file; nothing is installed for an interpreter of one's own.
    (tmp_path / "backends.yaml").write_text(f"{entry}    python: {sys.executable}\n")
    checked = run_cli(tmp_path, "backends", "check", "my_engine", "--full", *QUICK)
    assert checked.returncode == 0, checked.stdout + checked.stderr
    assert "keeps its contract" in checked.stdout
    again = run_cli(tmp_path, "backends", "new", "my_engine")
    assert (again.returncode, "choose another" in again.stderr) == (2, True)


@pytest.mark.parametrize(
    "listing", ["backends: {tone: }\ndefault: tone\n", "default: tone\nbackends: {tone: }\n"]
)
def test_a_file_that_does_not_end_with_its_backends_is_left_alone(
    tmp_path: Path, listing: str
) -> None:
    (tmp_path / "backends.yaml").write_text(listing)
    done = run_cli(tmp_path, "backends", "new", "mine")
    assert done.returncode == 0, done.stderr
    assert "under backends:" in done.stdout
    assert "  mine:\n    load_timeout: 300" in done.stdout
    assert (tmp_path / "backends.yaml").read_text() == listing


@pytest.mark.parametrize("name", ["../mine", "Mine", "", "7up", "a" * 42, "a b"])
def test_a_name_that_cannot_be_one_writes_nothing(tmp_path: Path, name: str) -> None:
    done = run_cli(tmp_path, "backends", "new", name)
    assert (done.returncode, "expected a name of" in done.stderr) == (2, True)
    assert not (tmp_path / "backends").exists()


def test_a_folder_that_is_not_there_is_refused_and_not_made(tmp_path: Path) -> None:
    for command in ("install", "check"):
        done = run_cli(tmp_path, "backends", command, f"{tmp_path}/engines/tone")
        assert (done.returncode, "there is no such folder" in done.stderr) == (2, True)
    assert not (tmp_path / "engines").exists()


def test_a_folder_is_checked_without_an_entry_and_its_faults_are_the_exit_status(
    tmp_path: Path,
) -> None:
    folder = tmp_path / "engines" / "mini"
    folder.mkdir(parents=True)
    good = Path("voice_server/cli/skeleton/backend.py").read_text("utf-8")
    (folder / "backend.py").write_text(good.replace("job.seed", "None"), "utf-8")
    (tmp_path / "backends.yaml").write_text(
        f"default: mini\nbackends:\n  mini: {{python: {sys.executable}, path: elsewhere}}\n"
    )
    done = run_cli(tmp_path, "backends", "check", f"{folder}", "--full", *QUICK)
    assert done.returncode == 1, done.stdout + done.stderr
    lines = {line.split()[0]: line for line in done.stdout.splitlines() if " FAILS " in line}
    assert set(lines) == {"seed", "resume", "noise"}
    assert "→ draw every random number from job.seed" in done.stdout
    assert "breaks its contract in 3 of" in done.stdout


PARROT = """
import voice_worker as vw

class Parrot(vw.Backend):
    name = "parrot"

    def load(self, options):
        return vw.BackendInfo(sample_rate=24_000, clones=options.get("clones", True))

    def synthesize(self, job):
        raise vw.BackendError("choose a voice with a recording", code="unknown_voice")
        yield

if __name__ == "__main__":
    vw.serve(Parrot())
"""


def test_a_backend_without_a_voice_of_its_own_is_no_fault(tmp_path: Path) -> None:
    folder = tmp_path / "engines" / "parrot"
    folder.mkdir(parents=True)
    (folder / "backend.py").write_text(PARROT)
    (tmp_path / "backends.yaml").write_text(
        f"default: parrot\nbackends:\n  parrot: {{python: {sys.executable}, path: {folder}}}\n"
    )
    done = run_cli(tmp_path, "backends", "check", "parrot")
    assert done.returncode == 0, done.stderr
    assert "in cloned voices alone; with --full" in done.stdout
    mute = run_cli(tmp_path, "backends", "check", "parrot", "--option", "clones=false")
    assert (mute.returncode, "choose a voice with a recording" in mute.stderr) == (1, True)


def test_options_reach_the_backend_that_is_checked(tmp_path: Path) -> None:
    listing = f"default: chaos\nbackends:\n  chaos: {{python: {sys.executable}}}\n"
    (tmp_path / "backends.yaml").write_text(listing)
    done = run_cli(tmp_path, "backends", "check", "chaos", "--full", "--option", "refuse=true")
    assert done.returncode == 1
    assert "could not load: RuntimeError: no GPU here" in done.stdout
    assert "speech" not in done.stdout
    plain = run_cli(tmp_path, "backends", "check", "chaos", "--option", "load_exit=3")
    assert (plain.returncode, "could not load" in plain.stderr) == (1, False)
    wrong = run_cli(tmp_path, "backends", "check", "chaos", "--option", "refuse")
    assert (wrong.returncode, "expected name=value" in wrong.stderr) == (2, True)


class Page(HTMLParser):
    """Its tags with their attributes, and its text."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        self.text += data


def test_engines_are_compared_on_one_page_that_needs_nothing_else(tmp_path: Path) -> None:
    text = '<script>alert("x")</script> & hello & </blockquote>'
    path = tmp_path / "page.html"
    flags = ("--backends", "tone,chaos", "--voice", "tone=high", "--voice", "wild")
    done = run_cli(tmp_path, "compare", text, *flags, "--output", str(path))
    assert done.returncode == 0, done.stderr
    page = Page(path.read_text("utf-8"))
    assert text in page.text
    assert "script" not in {tag for tag, _ in page.tags}
    sources = [attrs["src"] for tag, attrs in page.tags if tag == "audio"]
    assert len(sources) == 2
    for source in sources:
        assert source is not None
        kind, _, data = source.partition(",")
        assert kind == "data:audio/wav;base64"
        with wave.open(io.BytesIO(base64.b64decode(data, validate=True))) as sound:
            assert (sound.getframerate(), sound.getnchannels()) == (24_000, 1)
            assert sound.getnframes() > 0
    addresses = re.findall(r'(?:src|href)="(?!data:)', path.read_text("utf-8"))
    assert not addresses
    for wanted in ("tone", "high", "chaos", "wild", "RTF", "memory, MB", "first sound, ms"):
        assert wanted in page.text


def test_an_engine_that_cannot_is_told_on_the_page_and_costs_the_others_nothing(
    tmp_path: Path,
) -> None:
    path = tmp_path / "page.html"
    flags = ("--backends", "tone,chaos", "--voice", "tone=<b>nobody</b>", "--output", str(path))
    done = run_cli(tmp_path, "compare", "Hello.", *flags)
    assert done.returncode == 1
    page = Page(path.read_text("utf-8"))
    assert "has no voice '<b>nobody</b>'" in page.text
    assert [tag for tag, _ in page.tags if tag in ("audio", "b")] == ["audio"]


def test_an_engine_that_refuses_each_text_for_the_same_reason_says_it_once(tmp_path: Path) -> None:
    path = tmp_path / "page.html"
    flags = ("--backends", "tone", "--opt", "speed=99", "--output", str(path))
    done = run_cli(tmp_path, "compare", "Hello.", *flags)
    assert (done.returncode, done.stderr.count("speed must be")) == (1, 1), done.stderr


@pytest.mark.parametrize(
    ("flags", "says"),
    [
        (("Hello.", "--backends", "tnoe"), "did you mean 'tone'?"),
        (("Hello.", "--backends", " , "), "expected something to say"),
        (("  ", "--backends", "tone"), "expected something to say"),
        (("Hello.", "--backends", "tone", "--opt", "speed"), "expected name=value"),
        (("Hello.", "--backends", "tone", "--language", "!"), "language"),
    ],
)
def test_a_comparison_that_makes_no_sense_is_refused(
    tmp_path: Path, flags: tuple[str, ...], says: str
) -> None:
    done = run_cli(tmp_path, "compare", *flags, "--output", str(tmp_path / "page.html"))
    assert (done.returncode, says in done.stderr) == (2, True), done.stderr
    assert not (tmp_path / "page.html").exists()
