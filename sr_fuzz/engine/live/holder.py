"""The holder of a live scheduler: one at a time, and another one when that one can play no more."""

from __future__ import annotations

from collections.abc import Callable

from sr_fuzz.engine.live.scheduler import LiveScheduler
from sr_fuzz.engine.process_messages import Done, Execute, Run
from sr_fuzz.script.errors import EngineError, ProcessLost


class LiveHolder:
    """Holds one live scheduler at a time, and starts another one when needed."""

    def __init__(self, start: Callable[[], LiveScheduler]) -> None:
        self._start = start
        self._live: LiveScheduler | None = None
        self._closed = False
        self.played: list[Run | Execute] = []
        """Jobs that the current scheduler has played, the latest one last."""

    @property
    def is_dead(self) -> bool:
        """Whether there is no scheduler that can play."""
        return self._live is None or not self._live.is_usable()

    def ready(self) -> LiveScheduler:
        """Return a scheduler that can play, a new one if the current one cannot. Raises `EngineError`."""
        if self._closed:
            raise EngineError("this engine is closed")
        if self._live is None or not self._live.is_usable():
            self.replace()
        assert self._live is not None
        return self._live

    def replace(self) -> None:
        """Replace the scheduler by a new one."""
        if self._live is not None:
            self._live.close()
            self._live = None
        self.played.clear()
        self._live = self._start()

    def submit(self, job: Run | Execute) -> Done:
        """Play a job. Raises `ProcessLost` also if the scheduler was ended from outside since the last one."""
        if self._live is not None and not self._live.is_usable() and self._live.lost is not None:
            lost, self._live.lost = self._live.lost, None
            raise ProcessLost(f"{lost}, between two scripts")
        live = self.ready()
        self.played.append(job)
        return live.submit(job)

    def log_tail(self) -> str:
        return self._live.log_tail() if self._live is not None else ""

    def close(self) -> None:
        """End the scheduler. Idempotent."""
        self._closed = True
        if self._live is not None:
            self._live.close()
