"""``python -m uvicorn app.main:app``, for whoever brings a server of their own.

That one has the address and the logs then, and cuts what is being said when it is told to stop.
``python -m app`` does not.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from voice_server.web.app import Application


def __getattr__(name: str) -> Application:
    """Make ``app`` when it is asked for: nothing happens at import."""
    if name != "app":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from voice_server.cli.serve import prepare
    from voice_server.config import load_config
    from voice_server.web.app import create_app

    config = load_config()
    prepare(config)
    return create_app(config)
