"""The doors of the control plane, and what they need while the application runs."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from starlette.datastructures import State
from starlette.routing import BaseRoute

from voice_server.config import Config, Settings
from voice_server.control.dropped import DroppedVoices
from voice_server.control.models import Models
from voice_server.control.plane import ControlPlane
from voice_server.control.preparing import Preparing
from voice_server.control.transcription import Transcriber, not_installed
from voice_server.speech.service import SpeechService
from voice_server.storage.catalogue import Catalogue
from voice_server.storage.database import database_of
from voice_server.storage.keyring import Keyring
from voice_server.web import (
    generation,
    keys,
    lifecycle,
    models,
    onboarding,
    packages,
    profiles,
    projects,
)
from voice_server.workers.environments import Environment, spec_for
from voice_server.workers.pool import WorkerPool
from voice_server.workers.process import WorkerSpec

TRANSCRIBER = "whisper"
"""The backend that writes down what recordings say."""

DOORS = (profiles, generation, projects, lifecycle, onboarding, packages, models, keys)


def routes() -> list[BaseRoute]:
    return [route for door in DOORS for route in door.routes()]


def catalogue_of(settings: Settings) -> Catalogue:
    """The catalogue that the settings describe; nothing is read yet."""
    return Catalogue(settings.data_dir, database=database_of(settings))


@asynccontextmanager
async def running(state: State, config: Config) -> AsyncIterator[ControlPlane]:
    """Load the catalogue, watch the samples folder, serve the doors; end all of it afterwards.

    The caller owns the data folder. ``state`` holds ``catalogue``, ``keyring`` and ``speech``, and
    gets the rest.
    """
    settings = config.settings
    catalogue: Catalogue = state.catalogue
    keyring: Keyring = state.keyring
    transcriber = Transcriber(
        lambda: _transcribing_pool(config), is_installed=lambda: _has_transcriber(config)
    )
    pools = state.speech.pools
    plane = ControlPlane(
        settings,
        catalogue,
        keyring,
        transcriber.text,
        lambda: {name: pool.info for name, pool in pools.items() if pool.info is not None},
    )
    state.control, state.transcriber = plane, transcriber
    state.batches = generation.Batches()
    state.models = _models(config, state.speech)
    await asyncio.gather(catalogue.load(is_owner=True), keyring.load())
    dropped = DroppedVoices(settings.voice_samples_dir, catalogue)
    dropped.start()
    plane.start()
    state.models.start()
    preparing = Preparing(catalogue, state.speech.pools)
    preparing.start()
    try:
        yield plane
    finally:
        await preparing.stop()
        await state.models.stop()
        await transcriber.stop()
        await plane.stop()
        await dropped.stop()
        await catalogue.close()


def _has_transcriber(config: Config) -> bool:
    return TRANSCRIBER in config.backends and Environment(TRANSCRIBER, config).health() is None


def _transcribing_pool(config: Config) -> WorkerPool:
    if TRANSCRIBER not in config.backends:
        return not_installed()
    return WorkerPool(spec_for(TRANSCRIBER, config), 1)


def _models(config: Config, speech: SpeechService) -> Models:
    def make(spec: WorkerSpec, old: WorkerPool) -> WorkerPool:
        info = old.info if spec == old.spec else None
        lead_limit = config.limits.lead_limit
        return WorkerPool(spec, old.size, spare=old.spare, lead_limit=lead_limit, info=info)

    return Models(speech.pools, make, speech.turns_on, config.settings.model_idle_unload)
