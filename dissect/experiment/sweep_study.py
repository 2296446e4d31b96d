"""A study that several processes share: who runs which trial, and what becomes of one whose process died.

Only two things have to be atomic, and the database gives them: a new trial's number, and that one process alone turns
a waiting trial into a running one. The budget is then held without a lock. Whoever has got a trial counts the trials
of smaller numbers that have not failed; if they are as many as the budget, his is one too many, and he gives it up.
Trials never come back from having failed, so of the finished ones the last to be numbered had fewer than the budget
before it: there are never more than that. And nobody leaves while fewer are finished.
"""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import time
import warnings
import zlib
from collections.abc import Callable, Iterator
from typing import Any

import optuna
from optuna.distributions import BaseDistribution
from optuna.exceptions import ExperimentalWarning, TrialPruned, UpdateFinishedTrialError
from optuna.storages import RDBStorage, fail_stale_trials
from optuna.trial import FrozenTrial, Trial, TrialState

from dissect.errors import DissectError, NotFinite
from dissect.experiment.checkpoint import Interrupted
from dissect.experiment.sweep_storage import line_of, requeue

#: Trials that may fail one after the other before a worker stops: something is wrong with all.
FAILURES = 3
#: Seconds between looks at what the others do.
POLL = 1.0
FINISHED = (TrialState.COMPLETE, TrialState.PRUNED)


class Surplus(Exception):
    """The trial is one more than the budget."""


class Left(Exception):
    """The trial was left because its process was asked to stop."""


class BySeedAndNumber(optuna.samplers.BaseSampler):
    """TPE with random numbers that follow from a seed and the trial's number.

    One generator for all trials would begin anew when a study is taken up again, and be the same in every process:
    the same points would be drawn twice.
    """

    def __init__(self, seed: int, startup: int) -> None:
        self.seed, self.startup = seed, startup
        self._tpe = self._of(0)

    def _of(self, number: int) -> optuna.samplers.TPESampler:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ExperimentalWarning)
            return optuna.samplers.TPESampler(
                n_startup_trials=self.startup, multivariate=True, constant_liar=True,
                seed=zlib.crc32(f"{self.seed} {number}".encode()),
            )  # fmt: skip

    def before_trial(self, study: optuna.Study, trial: FrozenTrial) -> None:
        """Take up this trial's random numbers."""
        self._tpe = self._of(trial.number)

    def infer_relative_search_space(self, study: optuna.Study, trial: FrozenTrial) -> dict[str, Any]:
        """As TPE does."""
        return self._tpe.infer_relative_search_space(study, trial)

    def sample_relative(self, study: optuna.Study, trial: FrozenTrial, search_space: Any) -> dict[str, Any]:
        """As TPE does."""
        return self._tpe.sample_relative(study, trial, search_space)

    def sample_independent(
        self, study: optuna.Study, trial: FrozenTrial, param_name: str, param_distribution: BaseDistribution
    ) -> Any:
        """As TPE does."""
        return self._tpe.sample_independent(study, trial, param_name, param_distribution)


class Worker:
    """One process's share in a study.

    Parameters
    ----------
    storage : RDBStorage
    name : str
        Of the study, which is made where it is not there.
    budget : int
        Finished trials of the whole study, complete or pruned, over all processes.
    seed, startup : int
        Of the sampler; trials that are drawn at random, and complete before one is pruned.
    said : callable
        Takes a line for the user.
    """

    def __init__(
        self, storage: RDBStorage, name: str, budget: int, *, seed: int, startup: int, said: Callable[[str], None]
    ) -> None:
        optuna.logging.set_verbosity(optuna.logging.ERROR)
        self.storage, self.budget, self.said = storage, budget, said
        self.study = optuna.create_study(
            storage=storage, study_name=name, direction="maximize", load_if_exists=True,
            sampler=BySeedAndNumber(seed, startup),
            # Epochs count from 1, and the first prunes nothing: it favours high learning rates.
            pruner=optuna.pruners.MedianPruner(n_startup_trials=startup, n_warmup_steps=2),
        )  # fmt: skip
        self.begun = time.monotonic()
        self.before = self.finished
        self._signal = self._failures = 0
        self._seen: dict[int, float] = {}  # number of a running trial that has not begun -> when first seen
        self._waiting = False

    def trials(self, *states: TrialState) -> list[FrozenTrial]:
        """The study's trials, of some states alone where they are given."""
        return self.study.get_trials(deepcopy=False, states=states or None)

    def _trial(self, number: int) -> FrozenTrial:
        return next(trial for trial in self.trials() if trial.number == number)

    @property
    def finished(self) -> int:
        """Trials complete or pruned."""
        return len(self.trials(*FINISHED))

    @property
    def seconds_left(self) -> float | None:
        """Seconds until the study is finished, at the rate since this process joined it; None before a first trial."""
        finished = self.finished
        new = finished - self.before
        return (time.monotonic() - self.begun) / new * max(self.budget - finished, 0) if new > 0 else None

    def work(self, train: Callable[[Trial], float], after: Callable[[FrozenTrial], None]) -> None:
        """Run trials until the study has its budget; wait for those that others run, for they may die.

        Parameters
        ----------
        train : callable
            ``train(trial)`` gives the value; it may raise `TrialPruned`.
        after : callable
            Called with each trial of this process that has been finished, or has failed.

        Raises
        ------
        DissectError
            When asked to stop by SIGINT or SIGTERM, the trial being queued again; or when one trial after the other
            fails.
        """
        with self._listening():
            while self.finished < self.budget:
                self.leave_if_asked()
                there = self.trials()
                live = [trial for trial in there if trial.state != TrialState.FAIL]
                if len(live) >= self.budget and not any(trial.state == TrialState.WAITING for trial in live):
                    self._wait([trial.number for trial in live if trial.state == TrialState.RUNNING])
                else:
                    self._waiting = False
                    self._one(train, after)
        self.storage.remove_session()

    def _one(self, train: Callable[[Trial], float], after: Callable[[FrozenTrial], None]) -> None:
        number: list[int] = []

        def objective(trial: Trial) -> float:
            number.append(trial.number)
            return self._objective(trial, train)

        try:
            self.study.optimize(objective, n_trials=1, catch=(Exception,))
        except Exception:
            # The trial has been ended by another process, which took this one for dead; Optuna trips over that.
            if not number or self._trial(number[0]).state != TrialState.FAIL:
                raise
            self.said(f"trial {number[0]} has been given to another worker: this one was silent for too long")
            return
        trial = self._trial(number[0])
        if trial.user_attrs.get("surplus"):
            return
        if trial.user_attrs.get("interrupted"):
            requeue(self.study, trial, died=False)
            return
        self._failures = self._failures + 1 if trial.state == TrialState.FAIL else 0
        after(trial)
        if self._failures >= FAILURES:
            error = trial.user_attrs.get("error", "")
            raise DissectError(f"{FAILURES} trials failed one after the other, the last by: {error}", 1)

    def _objective(self, trial: Trial, train: Callable[[Trial], float]) -> float:
        # The first beat comes before the mark, so that who has begun has a heart that can be seen to stop.
        self.storage.record_heartbeat(trial._trial_id)
        trial.set_user_attr("worker", f"{socket.gethostname()}:{os.getpid()}")
        smaller = [other for other in self.trials() if other.number < trial.number]
        if sum(other.state != TrialState.FAIL for other in smaller) >= self.budget:
            trial.set_user_attr("surplus", True)
            raise Surplus
        try:
            self.give_up_if_asked()
            return train(trial)
        except (TrialPruned, UpdateFinishedTrialError):
            raise
        except Interrupted as why:
            self._signal = why.signum
            trial.set_user_attr("interrupted", True)
            raise Left from why  # Optuna ends a trial for an Exception alone
        except DissectError as error:
            trial.set_user_attr("error", str(error))
            if isinstance(error, NotFinite):  # a finding about the values, which a failed trial would not be
                raise TrialPruned from None
            raise
        except Exception as error:
            trial.set_user_attr("error", f"{type(error).__name__}: {line_of(error)}")
            raise

    def _wait(self, running: list[int]) -> None:
        """Wait for other processes' trials, and take over those of the dead."""
        if not self._waiting:
            self.said(f"waiting for trials of other workers: {', '.join(map(str, running))}")
            self._waiting = True
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ExperimentalWarning)
            fail_stale_trials(self.study)
        self._bury()
        time.sleep(POLL)

    def _bury(self) -> None:
        """Fail trials whose process died between taking them and its first heartbeat, which Optuna never finds.

        Their age is measured by this process's clock: those of other machines may be set otherwise.
        """
        assert self.storage.grace_period is not None
        for trial in self.trials(TrialState.RUNNING):
            if "worker" in trial.user_attrs:
                continue
            first = self._seen.setdefault(trial.number, time.monotonic())
            if time.monotonic() - first > self.storage.grace_period:
                with contextlib.suppress(ValueError, UpdateFinishedTrialError):  # another was faster
                    self.study.tell(trial.number, state=TrialState.FAIL)
                    if trial.params:
                        requeue(self.study, trial)

    @contextlib.contextmanager
    def _listening(self) -> Iterator[None]:
        """Note SIGINT and SIGTERM for when nothing is half done; a second one interrupts whatever runs."""

        def listen(number: int, frame: Any) -> None:
            if self._signal:
                raise KeyboardInterrupt
            self._signal = number

        handlers = {number: signal.signal(number, listen) for number in (signal.SIGINT, signal.SIGTERM)}
        try:
            yield
        finally:
            for number, handler in handlers.items():
                signal.signal(number, handler)

    def give_up_if_asked(self) -> None:
        """Raise Interrupted in a trial if this process was asked to stop before the trial listened itself."""
        if self._signal:
            raise Interrupted(-1, self._signal)

    def leave_if_asked(self) -> None:
        """Raise a DissectError where SIGINT or SIGTERM has come."""
        if self._signal:
            raise DissectError("stopped; the same command goes on", 128 + self._signal)
