"""``python -c "from database import init_db; init_db()"``, in this folder, as documented.

A server makes its tables when it first needs them, so that nobody has to.
"""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path

# Run in here, Python does not look one folder up.
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from voice_server.config import load_config
from voice_server.storage.database import database_of


def init_db() -> None:
    """Make, or migrate, the tables of the database that the settings name. Raises ConfigError."""

    async def opened() -> None:
        settings = load_config().settings
        await asyncio.to_thread(settings.data_dir.mkdir, parents=True, exist_ok=True)
        database = database_of(settings)
        await database.open()
        await database.close()

    asyncio.run(opened())
