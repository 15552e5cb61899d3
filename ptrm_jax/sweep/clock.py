"""Watches the units of a sweep as they run: what the one in flight still takes, and a trace."""

import contextlib
import os
import time
from collections.abc import Iterator, Sequence

import jax

from ptrm_jax.sweep.plan import Unit
from ptrm_jax.sweep.run import Progress

_TRACED = (1, 4)
"""First and stop of the units that a profile shows: without the first, which compiles."""


class Clock:
    """A `Progress` that passes every call on.

    Args:
      units: that are going to be run, in order.
      progress: to call as well.
      profile: folder for a `jax.profiler` trace of the second to the fourth unit, or of the only
        one; None for no trace.
    """

    def __init__(
        self, units: Sequence[Unit], progress: Progress, profile: str | os.PathLike[str] | None
    ) -> None:
        self._units, self._progress, self._profile = units, progress, profile
        self._done, self._tracing = 0, False
        self._begun, self._rate = 0.0, 0.0

    def __call__(self, steps: int, what: str) -> None:
        now = time.monotonic()
        if steps == 0:
            self._begun = now
            if self._profile is not None and self._done == min(_TRACED[0], len(self._units) - 1):
                options = jax.profiler.ProfileOptions()
                options.python_tracer_level = 0  # Python's calls would fill the trace
                jax.profiler.start_trace(self._profile, profiler_options=options)
                self._tracing = True
        else:
            self._rate = steps / max(now - self._begun, 1e-6)
            self._done += 1
            if self._done == _TRACED[1]:
                self._stop()
        self._progress(steps, what)

    def seconds_left(self) -> float | None:
        """What the unit in flight still takes, at the rate of the last one; None before its end."""
        if not self._rate:
            return None
        if self._done == len(self._units):
            return 0.0
        whole = self._units[self._done].rollout_steps / self._rate
        return max(0.0, whole - (time.monotonic() - self._begun))

    @contextlib.contextmanager
    def running(self) -> Iterator[None]:
        """The units run within this context, which ends a trace that they leave open."""
        try:
            yield
        finally:
            self._stop()

    def _stop(self) -> None:
        if self._tracing:
            self._tracing = False
            jax.profiler.stop_trace()
