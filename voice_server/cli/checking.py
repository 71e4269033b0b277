"""``cli.py backends check``: a worker of an engine on trial, told line by line."""

from __future__ import annotations

import asyncio
import time
from typing import Any

import typer

from voice_server.config import Config
from voice_server.contract.suite import Outcome, Verdict, run
from voice_server.contract.terms import Plan
from voice_server.core.errors import BackendNotInstalled, SynthesisFailed
from voice_server.core.wire import Configure
from voice_server.workers.environments import Environment, spec_for

CHECK_TEXT = "This is a check. It takes a moment."
_COLOURS = {Outcome.KEPT: "green", Outcome.BROKEN: "red", Outcome.SKIPPED: None}


def check(name: str, config: Config) -> None:
    """Start a worker, have it load and speak. Raises what goes wrong."""
    environment = Environment(name, config)
    if reason := environment.health():
        raise BackendNotInstalled(f"{name} › {reason}")
    _tell(name, "adapter", str(environment.entry))
    _tell("", "interpreter", str(environment.python))
    began = time.perf_counter()
    try:
        hello = environment.greet()
    except BackendNotInstalled as exc:
        remedy = f"`cli.py backends install {name}` repairs what its venv lost"
        raise BackendNotInstalled(f"{exc}; {remedy}" if environment.venv else str(exc)) from None
    _tell("", "greets", f"in {time.perf_counter() - began:.2f} s, Python {hello.python}")
    asyncio.run(_check_speech(name, config))


def check_fully(name: str, config: Config, plan: Plan) -> bool:
    """Hold the engine to its contract. False where it breaks it; raises BackendNotInstalled."""
    return asyncio.run(_check_fully(name, config, plan))


async def _check_fully(name: str, config: Config, plan: Plan) -> bool:
    spec = spec_for(name, config)
    _tell(name, "adapter", str(spec.entry))
    began, broken, kept = time.perf_counter(), 0, 0
    async for verdict in run(spec, plan):
        broken += verdict.outcome is Outcome.BROKEN
        kept += verdict.outcome is Outcome.KEPT
        _tell_verdict(verdict)
    took = time.perf_counter() - began
    says = f"breaks its contract in {broken} of {broken + kept} points"
    _tell("", "", says if broken else f"keeps its contract: {kept} points in {took:.1f} s")
    return not broken


def _tell_verdict(verdict: Verdict) -> None:
    word = typer.style(f"{verdict.outcome.value:<7}", fg=_COLOURS[verdict.outcome], bold=True)
    typer.echo(f"{'':<12}{verdict.name:<16}{word}{verdict.about}")
    if verdict.remedy:
        typer.echo(f"{'':<35}{typer.style('→ ', bold=True)}{verdict.remedy}")


async def _check_speech(name: str, config: Config) -> None:
    from voice_server.cli.engine import engine
    from voice_server.cli.report import Report
    from voice_server.cli.speak import show_errors, speak

    began = time.perf_counter()
    async with engine(config) as service:
        await service.pools[name].wait_ready(config.backend(name).load_timeout)
        info = service.pools[name].info
        assert info is not None
        took = time.perf_counter() - began
        has = f"{len(info.speakers)} voices, {len(info.languages)} languages, {info.slots} slots"
        _tell("", "loads", f"in {took:.2f} s on {info.device}: {info.sample_rate} Hz, {has}")
        abilities = ("clones", "designs", "instructs", "dialogue", "word_timing", "streams_text")
        able = [ability.replace("_", " ") for ability in abilities if getattr(info, ability)]
        _tell("", "can", ", ".join([*able, *(f"[{tag}]" for tag in info.tags)]) or "speak")
        _tell("", "options", ", ".join(info.options) or "none")
        report = Report()
        told: list[dict[str, Any]] = []
        await speak(service, CHECK_TEXT, Configure(), (), told.append, report)
        if info.clones and not info.speakers and _refused(told) == {"unknown_voice"}:
            _tell("", "speaks", "in cloned voices alone; with --full it is given one")
            return
        for message in told:
            show_errors(message)
        if report.errors or not report.samples:
            raise SynthesisFailed(f"{name} › it did not speak {CHECK_TEXT!r}")
        _tell("", "speaks", report.line())


def _refused(told: list[dict[str, Any]]) -> set[str]:
    return {message["code"] for message in told if message["type"] == "error"}


def _tell(name: str, what: str, about: str) -> None:
    typer.echo(f"{typer.style(f'{name:<12}', bold=True)}{what:<16}{about}")
