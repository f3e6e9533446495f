"""Who may write to a home? The one driver that holds its lease.

The holder renews its lease all the time. It is passed on when the holder lets go, when its process
provably runs no more, or, to whoever insists (``--take-over``), once it has not been renewed for
`LEASE_SECONDS`: a frozen driver that wakes later finds that it may not write.
"""

from __future__ import annotations

import time
import uuid
from dataclasses import asdict, dataclass

from sqlalchemy import Connection, delete, insert, select, update

from search.record.ledger_schema import LEASE
from search.record.processes import Process, this_process
from spaces.errors import RequestError

LEASE_SECONDS = 30.0
RENEWAL_SECONDS = 5.0


class LeaseLost(Exception):
    """Another driver holds the home now; nothing was written."""


@dataclass(frozen=True, kw_only=True)
class Holder:
    """A driver that holds, or held, a home."""

    token: str
    """Proof of holding: writes need it."""
    process: Process
    """Who."""
    since: float
    """Unix seconds."""
    renewed_at: float
    """Unix seconds."""

    @property
    def has_ended(self) -> bool:
        """Whether it was not renewed in time."""
        return time.time() > self.renewed_at + LEASE_SECONDS

    def __str__(self) -> str:
        since = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(self.since))
        return f"process {self.process.pid} on {self.process.host} since {since}"


def find_holder(connection: Connection) -> Holder | None:
    """Whoever is written down as the holder."""
    row = connection.execute(select(LEASE)).mappings().first()
    if row is None:
        return None
    process = Process(
        host=row["host"], machine=row["machine"], pid=row["pid"], started=row["started"]
    )
    return Holder(
        token=row["token"], process=process, since=row["since"], renewed_at=row["renewed_at"]
    )


def take_lease(connection: Connection, *, take_over: bool) -> str:
    """Become the holder; returns the token. Raises `RequestError` that names another holder."""
    holder = find_holder(connection)
    if holder is not None and not holder.process.is_gone:
        _refuse(holder, take_over=take_over)
    now, token = time.time(), uuid.uuid4().hex
    connection.execute(delete(LEASE))
    connection.execute(
        insert(LEASE).values(id=1, token=token, since=now, renewed_at=now, **asdict(this_process()))
    )
    return token


def _refuse(holder: Holder, *, take_over: bool) -> None:
    """Explain why the lease is not to be had, unless it is."""
    if not holder.has_ended:
        raise RequestError(
            f"one driver at a time works on a home, and {holder} does; wait for it, stop it, or "
            f"use another --home"
        )
    if not take_over:
        silent = time.time() - holder.renewed_at
        raise RequestError(
            f"{holder} works on this home but has given no sign of life for {silent:.0f} s, and "
            f"from here it cannot be seen whether it is gone; if it is, add --take-over"
        )


def renew_lease(connection: Connection, token: str) -> bool:
    """Show life; False where another driver holds the home now."""
    renewed = connection.execute(
        update(LEASE).where(LEASE.c.token == token).values(renewed_at=time.time())
    )
    return bool(renewed.rowcount)


def release_lease(connection: Connection, token: str) -> None:
    """Let the home go."""
    connection.execute(delete(LEASE).where(LEASE.c.token == token))


def check_lease(connection: Connection, token: str | None) -> None:
    """Raises `LeaseLost` where a driver other than the token's holds the home, or has held it
    since; without a token, where any does."""
    holder = find_holder(connection)
    if (holder.token if holder else None) == token:
        return
    now = f"{holder} does" if holder else "another one took it over since, and has ended"
    raise LeaseLost(
        f"only the driver that holds a home writes to it, and {now}; this one wrote nothing more: "
        f"end it, and give the same command again once no other runs"
    )
