"""The database of a study: opened, made safe for several processes, and a trial queued again in it."""

from __future__ import annotations

import random
import re
import time
import warnings
from typing import Any

import optuna
from optuna.exceptions import ExperimentalWarning, OptunaError
from optuna.storages import RDBStorage
from optuna.trial import FrozenTrial, TrialState
from sqlalchemy import event, make_url
from sqlalchemy.exc import ArgumentError, IntegrityError, SQLAlchemyError

from dissect.errors import DissectError

#: A process that has not been heard of for this many beats is dead.
BEATS = 4
#: How often a trial is given to another process after its own has died; it may be the trial that kills them.
DEATHS = 2
#: Seconds that a process waits for a database file that another one writes to.
TIMEOUT = 60
#: How often to try again where two processes make a study's tables at once.
ATTEMPTS = 10


def requeue(study: optuna.Study, trial: FrozenTrial, died: bool = True) -> None:
    """Queue a trial again, with the same values, unless too many processes have died of it."""
    deaths = trial.user_attrs.get("deaths", 0) + died
    if deaths > DEATHS:
        return
    again = [*trial.user_attrs.get("again_for", []), trial.number]
    study.add_trial(
        optuna.create_trial(
            state=TrialState.WAITING, params=trial.params, distributions=trial.distributions,
            user_attrs={"again_for": again, "deaths": deaths},
        )
    )  # fmt: skip


def open_storage(address: str, heartbeat: int) -> RDBStorage:
    """Open the database at a SQLAlchemy address, and make its tables where they are not there.

    Raises
    ------
    DissectError
        If it is no address, its driver is not installed, or it can't be opened.
    """
    shown = re.sub(r"(://[^:/@]*:).*@", r"\1***@", address)  # never a password, whatever is in it
    try:
        url = make_url(address)
        url.get_dialect()
    except ArgumentError as error:
        raise DissectError(
            f"--storage {shown!r} is no SQLAlchemy address, such as sqlite:///FILE or "
            f"postgresql://USER:PASSWORD@HOST/NAME ({line_of(error)})"
        ) from None
    sqlite = url.get_backend_name() == "sqlite"
    if sqlite and url.database in (None, "", ":memory:"):
        raise DissectError(f"--storage {shown} is in memory, and gone when the command ends; name a file")
    options: Any = {"connect_args": {"timeout": TIMEOUT}} if sqlite else {"pool_pre_ping": True}
    for left in reversed(range(ATTEMPTS)):
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", ExperimentalWarning)
                storage = RDBStorage(
                    address.replace("{", "{{").replace("}", "}}"),  # it is a template to Optuna
                    options, heartbeat_interval=heartbeat, grace_period=BEATS * heartbeat,
                    heartbeat_stale_trial_callback=requeue,
                )  # fmt: skip
            if sqlite:
                _write_lock(storage.engine)
            return storage
        except ImportError as error:
            raise DissectError(f"--storage {shown}: install its driver ({line_of(error.__cause__ or error)})") from None
        except RuntimeError as error:  # tables of another version of Optuna
            raise DissectError(f"--storage {shown}: {line_of(error)}") from None
        except (SQLAlchemyError, OptunaError) as error:
            # Of two processes that make the tables at once, one finds some there that were not when it looked.
            if not left or not (isinstance(error, IntegrityError) or "already exists" in str(error)):
                raise DissectError(f"can't open --storage {shown}: {line_of(error)}", 1) from None
            time.sleep(random.uniform(0.1, 0.5))
    raise AssertionError("the last attempt returns or raises")


def _write_lock(engine: Any) -> None:
    """Have each transaction on a SQLite file begin with the lock to write.

    SQLite has no SELECT FOR UPDATE, by which Optuna has one process alone take a waiting trial: two that look at the
    same time would both find it waiting, and both run it.
    """

    @event.listens_for(engine, "connect")
    def ours(connection: Any, _: Any) -> None:
        connection.isolation_level = None  # or the driver begins transactions when it thinks best

    @event.listens_for(engine, "begin")
    def begin(connection: Any) -> None:
        connection.exec_driver_sql("BEGIN IMMEDIATE")

    engine.dispose()  # connections that were made before


def line_of(error: BaseException) -> str:
    """The first line of an error's text."""
    return str(error).strip().split("\n")[0]
