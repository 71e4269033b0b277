"""Where a model's files are: in a folder, in the hub's cache, or to be fetched from the hub.

For backends whose venv holds ``huggingface_hub``; it is imported when a file is asked for.
"""

from __future__ import annotations

import importlib
import threading
import urllib.error
import urllib.request
from collections.abc import Callable
from functools import partial
from pathlib import Path

from voice_worker.backend import BackendError

# The hub's own client tries for half a minute, per file, before it says that there is no network.
PATIENCE = 5.0


def locate(repo: str, name: str, revision: str | None = None, folder: Path | None = None) -> Path:
    """The local path of the file ``name`` of the hub's repository ``repo``.

    ``folder``: laid out as the repository is (``hf download REPO --local-dir FOLDER``); with it
    nothing else is looked at. Without it the cache is, and then the network.

    Raises BackendError ``model_missing``, within seconds, with what to download where.
    """
    wanted = f"{repo} {name}"
    if folder is not None:
        if (folder / name).is_file():
            return folder / name
        raise _missing(f"{folder} has no {name}", wanted)
    if (path := _cached(repo, name, revision)) is not None:
        return path
    hub = importlib.import_module("huggingface_hub")
    download = partial(hub.hf_hub_download, repo, name, revision=revision)
    return _fetched(f"{name} of {repo}", wanted, download)


def snapshot(repo: str, is_complete: Callable[[Path], bool], revision: str | None = None) -> Path:
    """The local folder of all that is in the hub's repository ``repo``.

    The one in the cache, where that ``is_complete``; else it is fetched, and a download that was
    interrupted goes on where it stopped.

    Raises BackendError ``model_missing``, within seconds, with what to download where.
    """
    hub = importlib.import_module("huggingface_hub")
    errors = importlib.import_module("huggingface_hub.errors")
    download = partial(hub.snapshot_download, repo, revision=revision)
    try:
        folder = Path(download(local_files_only=True))
    except errors.HFValidationError as exc:
        raise BackendError(f"{repo!r} names no model: {exc}", code="model_missing") from exc
    except errors.LocalEntryNotFoundError:
        return _fetched(repo, repo, download)
    return folder if is_complete(folder) else _fetched(f"all of {repo}", repo, download)


def damaged(folder: Path, repo: str, cause: Exception, files: str = "it") -> BackendError:
    """The error of a model in ``folder`` that is there and does not load; ``files``: fetch them."""
    said = str(cause).strip().splitlines() or [type(cause).__name__]
    return BackendError(
        f"the model in {folder} cannot be loaded ({said[0]:.300}): fetch {files} again with"
        f" `hf download {repo} --local-dir FOLDER`",
        code="model_incomplete",
    )


def _fetched(what: str, wanted: str, download: Callable[[], str]) -> Path:
    errors = importlib.import_module("huggingface_hub.errors")
    if importlib.import_module("huggingface_hub.constants").HF_HUB_OFFLINE:
        raise _missing(f"{what} is not in the cache, and HF_HUB_OFFLINE is set", wanted)
    if not _is_reachable():
        raise _missing(f"{what} is not in the cache, and there is no network", wanted)
    try:
        return Path(download())
    except errors.GatedRepoError as exc:
        repo = wanted.split()[0]
        raise BackendError(
            f"{repo} is gated: accept its terms at https://huggingface.co/{repo}, then log in with"
            " `hf auth login` as the user who runs the server",
            code="model_missing",
        ) from exc
    except (errors.HfHubHTTPError, OSError) as exc:
        raise _missing(f"{what} could not be fetched ({exc})", wanted) from exc


def _cached(repo: str, name: str, revision: str | None = None) -> Path | None:
    """As ``locate``, from the cache alone; None where it is not in there."""
    found = importlib.import_module("huggingface_hub").try_to_load_from_cache(
        repo, name, revision=revision
    )
    return Path(found) if isinstance(found, str) else None


def _missing(what: str, wanted: str) -> BackendError:
    return BackendError(
        f"{what}: where there is a network, run `hf download {wanted} --local-dir FOLDER`,"
        " and set options.model in backends.yaml to FOLDER",
        code="model_missing",
    )


def _is_reachable() -> bool:
    """Whether anything answers at the hub's address, through a proxy if the environment names one.

    In a thread: a resolver that does not answer heeds no timeout.
    """
    endpoint: str = importlib.import_module("huggingface_hub.constants").ENDPOINT
    answers: list[bool] = []

    def ask() -> None:
        request = urllib.request.Request(endpoint, method="HEAD")
        try:
            urllib.request.urlopen(request, timeout=PATIENCE).close()
        except urllib.error.HTTPError:
            pass  # an answer, whatever it says
        except (OSError, ValueError):
            return
        answers.append(True)

    thread = threading.Thread(target=ask, name="hub", daemon=True)
    thread.start()
    thread.join(PATIENCE)
    return bool(answers)
