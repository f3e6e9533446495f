"""What can a home be, and how do paths inside it outlive a move?

A folder that is there or can be made, whose name the address of a database can hold. What lies in
it is written down relative to it; older releases wrote whole paths, of which what follows the home
is still true once the home was moved or copied.
"""

from __future__ import annotations

import errno
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

from search.record.trial import Outcome
from spaces.errors import RequestError

SWEEPS_FOLDER = "sweeps"
"""Of a home: a folder for each sweep, with its checkpoints, weights and figures."""

UNFIT = {
    errno.ENOENT: "it is not there",
    errno.ENOTDIR: "what should be a folder is a file",
    errno.EEXIST: "what should be a folder is a file",
    errno.EACCES: "you may not write there",
    errno.EPERM: "you may not write there",
    errno.EROFS: "it lies on a disk that is read only",
    errno.ENAMETOOLONG: "its name is too long",
    errno.ELOOP: "it is a link to itself",
}
"""Why a folder will not do, by what the system says; anything else is no matter of the request."""


def require_plain(home: Path) -> None:
    """Raise `RequestError` where a home's path is none that a folder can have, or that the address
    of a database can hold."""
    if strange := set("?%\0") & set(str(home)) or set("?%") & set(str(home.resolve())):
        shown = " and ".join(sorted(repr(each) if each == "\0" else each for each in strange))
        raise RequestError(
            f"{str(home)!r} holds {shown}, which the address of a database cannot; use another "
            f"--home"
        )
    with explaining_home(home):
        if home.exists() and not home.is_dir():
            raise RequestError(f"a home is a folder, but {home} is a file; use another --home")


def make_home(home: Path) -> None:
    """Make the folder unless it is there. Raises `RequestError` where it cannot be."""
    with explaining_home(home):
        home.mkdir(parents=True, exist_ok=True)


@contextmanager
def explaining_home(home: Path) -> Iterator[None]:
    """What the system refuses to do in a home as a wrong request that says why."""
    try:
        yield
    except OSError as error:
        why = UNFIT.get(error.errno or 0)
        if why is None or not _concerns(error, home):
            raise
        raise RequestError(
            f"a home is a folder that can be written, but {error.filename}: {why}; use another "
            f"--home, or make this one writable"
        ) from error


def _concerns(error: OSError, home: Path) -> bool:
    """Whether an error is about a home, what lies in it, or a folder that it lies in."""
    if not isinstance(error.filename, str):
        return False
    place, here = Path(error.filename).absolute(), home.absolute()
    return here in (place, *place.parents) or place in here.parents


def stored_in(home: Path, outcome: Outcome) -> Outcome:
    """An outcome as the ledger of a home keeps it: a path inside the home relative to it."""
    if outcome.weights_path is None:
        return outcome
    place = Path(outcome.weights_path)
    if not place.is_relative_to(home.resolve()):
        return outcome
    return replace(outcome, weights_path=str(place.relative_to(home.resolve())))


def read_from(home: Path, outcome: Outcome) -> Outcome:
    """An outcome of a home's ledger with its path as it is now."""
    if outcome.weights_path is None:
        return outcome
    return replace(outcome, weights_path=str(_place_now(home.resolve(), outcome.weights_path)))


def _place_now(home: Path, stored: str) -> Path:
    """Where a file is that was stored under a path: in the home, be it whole or where it was."""
    place = Path(stored)
    if not place.is_absolute():
        return home / place
    if SWEEPS_FOLDER in place.parts:
        last = len(place.parts) - 1 - place.parts[::-1].index(SWEEPS_FOLDER)
        inside = home.joinpath(*place.parts[last:])
        if inside.exists() or not place.exists():
            return inside
    return place
