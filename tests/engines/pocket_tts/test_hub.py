"""Where files come from: a folder, the cache, a hub that answers, refuses, or cannot be reached.

The hub is a small server on this machine, asked by the real client library.
"""

from __future__ import annotations

import socket
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from tests.integration import raw_worker
from tests.integration.raw_worker import RawWorker
from voice_worker import BackendError, hub
from voice_worker import messages as m

raw_worker.PATIENCE = 240.0

REPO, NAME, COMMIT = "kyutai/pocket-tts", "languages/english/model.safetensors", "c" * 40
CONTENT = b"weights"


class Hub(BaseHTTPRequestHandler):
    """Serves one file of one repository; every other repository is gated."""

    asked: list[str]

    def do_HEAD(self):
        self.do_GET()

    def do_GET(self):
        self.asked.append(f"{self.command} {self.path}")
        if self.path == "/":
            self.send_response(200)
            self.send_header("Content-Length", "0")
            self.end_headers()
        elif self.path.startswith(f"/{REPO}/"):
            self.send_response(200)
            self.send_header("X-Repo-Commit", COMMIT)
            self.send_header("ETag", '"abc"')
            self.send_header("Content-Length", str(len(CONTENT)))
            self.end_headers()
            if self.command == "GET":
                self.wfile.write(CONTENT)
        else:
            self.send_response(403)
            self.send_header("X-Error-Code", "GatedRepo")
            self.send_header("Content-Length", "0")
            self.end_headers()

    def log_message(self, *_):
        pass


@pytest.fixture
def served():
    Hub.asked = []
    server = ThreadingHTTPServer(("127.0.0.1", 0), Hub)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()
    thread.join()


@pytest.fixture
def ask(monkeypatch, tmp_path):
    """``locate`` with the hub at ``address`` and an empty cache."""
    constants = pytest.importorskip("huggingface_hub.constants")
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    for name in ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "http_proxy", "https_proxy"):
        monkeypatch.delenv(name, raising=False)

    def ask(address, repo=REPO, name=NAME, **more):
        monkeypatch.setattr(constants, "ENDPOINT", address)
        monkeypatch.setattr(
            constants,
            "HUGGINGFACE_CO_URL_TEMPLATE",
            address + "/{repo_id}/resolve/{revision}/{filename}",
        )
        return hub.locate(repo, name, **more)

    return ask


def closed_port():
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return f"http://127.0.0.1:{free.getsockname()[1]}"


def test_a_folder_is_believed_and_nobody_is_asked(ask, served, tmp_path):
    path = tmp_path / NAME
    path.parent.mkdir(parents=True)
    path.write_bytes(CONTENT)
    assert ask(served, folder=tmp_path) == path
    with pytest.raises(BackendError, match=rf"hf download {REPO} other --local-dir FOLDER") as bad:
        ask(served, name="other", folder=tmp_path)
    assert bad.value.code == "model_missing"
    assert Hub.asked == []


def test_a_file_is_fetched_once(ask, served):
    path = ask(served, revision=COMMIT)
    assert path.read_bytes() == CONTENT
    asked = len(Hub.asked)
    assert asked >= 2
    assert ask(closed_port(), revision=COMMIT) == path, "without a network, from the cache"
    assert len(Hub.asked) == asked


def test_a_gated_repository_says_how_to_get_in(ask, served):
    with pytest.raises(BackendError, match=r"accept its terms.*hf auth login") as failure:
        ask(served, repo="kyutai/secret")
    assert failure.value.code == "model_missing"


def test_no_network_is_told_without_the_retries_of_the_library(ask, monkeypatch):
    tried = []
    monkeypatch.setattr("huggingface_hub.hf_hub_download", lambda *a, **k: tried.append(a))
    with pytest.raises(BackendError, match="there is no network"):
        ask(closed_port())
    assert not tried


def test_a_hub_that_never_answers_is_not_waited_for(ask, monkeypatch):
    monkeypatch.setattr(hub, "PATIENCE", 0.3)
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        with pytest.raises(BackendError, match="there is no network"):
            ask(f"http://127.0.0.1:{silent.getsockname()[1]}")


def test_offline_by_choice_is_told(ask, monkeypatch, served):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(BackendError, match="HF_HUB_OFFLINE is set"):
        ask(served)
    assert Hub.asked == []


def test_a_worker_without_weights_and_network_refuses_to_load(monkeypatch, tmp_path):
    monkeypatch.setenv("HF_HOME", str(tmp_path))
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    with RawWorker("pocket_tts", {}, python=sys.executable) as worker:
        assert isinstance(worker.ready, m.Failed)
        assert worker.ready.code == "model_missing"
        assert "hf download kyutai/pocket-tts-without-voice-cloning" in worker.ready.error
        assert worker.wait() == 1
