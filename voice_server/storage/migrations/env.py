"""What alembic runs: the migrations, on the connection that database.py hands it."""

from __future__ import annotations

from alembic import context

from voice_server.storage.schema import metadata

context.configure(
    connection=context.config.attributes["connection"],
    target_metadata=metadata,
    # SQLite cannot alter most things in place.
    render_as_batch=True,
)
context.run_migrations()
