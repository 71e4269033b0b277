"""``cli.py backends new``: the folder of a backend that speaks already, and its entry."""

from __future__ import annotations

import re
import tempfile
from pathlib import Path

from voice_server.config import Config, load_backends
from voice_server.core.errors import ConfigError

SKELETON = Path(__file__).with_name("skeleton")
ENTRY = """
  {name}:
    load_timeout: 300
    first_chunk_timeout: 30
    gap_timeout: 30
"""


def write_skeleton(name: str, config: Config) -> Path:
    """The new folder, beside the others of ``config``.

    Raises ConfigError for a name that is taken, or a folder that cannot be written.
    """
    folder = config.backends_file.parent / "backends" / name
    if name in config.backends or folder.exists():
        raise ConfigError(f"{name} › there is a backend of this name; choose another")
    title = name.replace("_", " ").replace("-", " ").title()
    try:
        folder.mkdir(parents=True)
        for template in sorted(SKELETON.iterdir()):
            if template.is_file():
                text = template.read_text("utf-8").replace("class Skeleton", f"class {_noun(name)}")
                text = text.replace("serve(Skeleton())", f"serve({_noun(name)}())")
                text = text.replace("Skeleton", title).replace("skeleton", name)
                (folder / template.name).write_text(text, "utf-8")
    except OSError as exc:
        raise ConfigError(f"{folder} › cannot be written: {exc.strerror}") from None
    return folder


def add_entry(name: str, path: Path) -> bool:
    """Append the entry to a backends.yaml, comments and all. False, and nothing is changed, where
    the file does not end with its backends."""
    before, listed = path.read_text("utf-8"), load_backends(path)
    after = before.rstrip("\n") + "\n" + ENTRY.format(name=name)
    with tempfile.NamedTemporaryFile("w", encoding="utf-8", suffix=path.suffix) as trial:
        trial.write(after)
        trial.flush()
        try:
            if load_backends(Path(trial.name)).backends.keys() != {*listed.backends, name}:
                return False
        except ConfigError:
            return False
    try:
        path.write_text(after, "utf-8")
    except OSError:
        return False
    return True


def is_name(name: str) -> bool:
    """Whether a backend may be called that."""
    return re.fullmatch(r"[a-z][a-z0-9_-]{0,40}", name) is not None


def _noun(name: str) -> str:
    return "".join(part.title() for part in re.split(r"[_-]", name))
