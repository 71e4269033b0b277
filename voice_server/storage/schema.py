"""The tables. A change here needs a migration in migrations/versions; a test compares the two."""

from __future__ import annotations

from sqlalchemy import (
    JSON,
    BigInteger,
    Column,
    Float,
    ForeignKey,
    Index,
    Integer,
    MetaData,
    String,
    Table,
    Text,
)

metadata = MetaData(
    naming_convention={
        "ix": "ix_%(column_0_label)s",
        "uq": "uq_%(table_name)s_%(column_0_name)s",
        "fk": "fk_%(table_name)s_%(column_0_name)s",
        "pk": "pk_%(table_name)s",
    }
)

# The columns of voices and samples are the fields of core.voices.Voice and Sample.
voices = Table(
    "voices",
    metadata,
    Column("id", String(64), primary_key=True),
    Column("name", String(200), nullable=False),
    Column("kind", String(16), nullable=False),
    Column("display_name", String(200), nullable=False),
    Column("description", Text, nullable=False),
    Column("language", String(64), nullable=False),
    Column("source", Text, nullable=False),
    Column("design", Text, nullable=False),
    Column("design_language", String(64), nullable=False),
    Column("casting_notes", Text, nullable=False),
    Column("model_used", Text, nullable=False),
    Column("consent", JSON(none_as_null=True), nullable=True),
    Column("created_at", String(40), nullable=False),
    Column("updated_at", String(40), nullable=False),
    Column("tags", JSON, nullable=False),
    Column("owner", String(200), nullable=False),
)

samples = Table(
    "samples",
    metadata,
    Column("id", String(64), primary_key=True),
    Column("voice_id", String(64), ForeignKey("voices.id", ondelete="CASCADE"), nullable=False),
    Column("position", Integer, nullable=False),
    Column("sha256", String(64), nullable=False),
    Column("transcript", Text, nullable=True),
    Column("duration", Float, nullable=False),
    Column("sample_rate", Integer, nullable=False),
    Column("loudness", Float, nullable=True),
    Column("notes", JSON, nullable=False),
    Column("original", String(200), nullable=False),
    Index("ix_samples_voice_id", "voice_id"),
)

generations = Table(
    "generations",
    metadata,
    Column("id", String(64), primary_key=True),
    # No foreign key: what was spoken outlives the voice that spoke it.
    Column("voice_id", String(64), nullable=False),
    Column("text", Text, nullable=False),
    Column("language", String(64), nullable=False),
    Column("backend", String(64), nullable=False),
    Column("duration", Float, nullable=False),
    Column("seed", BigInteger, nullable=True),
    Column("created_at", String(40), nullable=False),
    Index("ix_generations_created_at", "created_at"),
    Index("ix_generations_voice_id", "voice_id"),
)

projects = Table(
    "projects",
    metadata,
    Column("id", String(64), primary_key=True),
    Column("name", String(200), nullable=False),
    Column("data", JSON, nullable=False),
    Column("created_at", String(40), nullable=False),
    Column("updated_at", String(40), nullable=False),
)

keys = Table(
    "keys",
    metadata,
    Column("id", String(64), primary_key=True),
    Column("name", String(200), nullable=False),
    Column("sha256", String(64), nullable=False, unique=True),
    Column("scopes", JSON, nullable=False),
    Column("rate", String(64), nullable=False),
    Column("created_at", String(40), nullable=False),
)
