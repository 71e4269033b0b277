"""What becomes of a job whose worker was lost: another attempt, a cut, or an error."""

from __future__ import annotations

import logging
from typing import Final

from voice_server.core.errors import PoisonText, VoiceServerError, WorkerDied
from voice_server.core.poison import Quarantine
from voice_server.workers.job import Job
from voice_server.workers.worker import Worker

logger = logging.getLogger(__name__)

MAX_ATTEMPTS: Final = 16


class Recovery:
    """One backend's memory of texts that kill. Its verdicts are errors; None is "try again"."""

    def __init__(self, backend: str) -> None:
        self._backend = backend
        self._quarantine = Quarantine()
        self._kills = 0

    def __len__(self) -> int:
        return len(self._quarantine)

    def refusal(self, job: Job, now: float) -> PoisonText | None:
        """Is this text one that has killed two workers lately?"""
        if not self._quarantine.may_hold(job.chars):
            return None
        return _poison() if self._quarantine.holds(job.text, _voice_key(job), now) else None

    def note_kill(self) -> None:
        """A worker was killed from outside. Called after ``after_death`` for its jobs, if any."""
        self._kills += 1

    def after_death(
        self, jobs: list[Job], weight: float, reason: str, now: float
    ) -> list[tuple[Job, VoiceServerError | None]]:
        """The verdict about each of the jobs that were running on one worker when it was lost."""
        suspects = sum(job.blame.is_suspect for job in jobs)
        verdicts: list[tuple[Job, VoiceServerError | None]] = []
        for job in jobs:
            error: VoiceServerError | None
            company = suspects if job.blame.is_suspect else len(jobs)
            if job.blame.died(weight, job.delivered, company, self._kills):
                self._quarantine.add(job.text, _voice_key(job), now)
                logger.error("%s: job %d has killed two workers", self._backend, job.number)
                error = _poison()
            else:
                error = _limit(job, reason, now)
            verdicts.append((job, error))
        return verdicts

    def after_mismatch(self, job: Job, worker: Worker, now: float) -> VoiceServerError | None:
        """The verdict when a new worker made other sound than what was delivered. Cuts the job."""
        if not job.cut(has_word_timing=worker.info.word_timing):
            return WorkerDied(
                f"{self._backend}: a worker died, and the next one does not make the same sound"
                " from the same seed; the rest of this segment is lost"
            )
        return _limit(job, f"{self._backend}: the second run made other sound", now)


def may_join(job: Job, worker: Worker) -> bool:
    """May this job run on that worker? Suspects of a death are kept apart, to find the one."""
    if not job.blame.is_suspect:
        return True
    others = [other.blame for other in worker.jobs.values() if other.blame.is_suspect]
    return len(others) < min([job.blame.company, *(blame.company for blame in others)])


def _limit(job: Job, reason: str, now: float) -> WorkerDied | None:
    if job.attempt >= MAX_ATTEMPTS:
        return WorkerDied(f"{reason}; gave up after {job.attempt} attempts")
    if job.deadline is not None and now >= job.deadline:
        return WorkerDied(f"{reason}; it was too late to try again")
    return None


def _voice_key(job: Job) -> str:
    return "|".join(str(job.voice.get(key)) for key in ("speaker", "digest", "design"))


def _poison() -> PoisonText:
    return PoisonText(
        "this text in this voice has killed two workers and is refused for some minutes;"
        " say it in other words"
    )
