"""How does MLflow get the password of a tracking server? From its environment, never an address.

An address with a password would come back in MLflow's prints, in tracebacks and in tags. So user
and password are taken out of it once, where it is given, and MLflow and libpq read them from the
variables that they have for it.
"""

from __future__ import annotations

import os
from urllib.parse import unquote

os.environ.setdefault("MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT", "true")

HTTP = ("MLFLOW_TRACKING_USERNAME", "MLFLOW_TRACKING_PASSWORD")
POSTGRESQL = ("PGUSER", "PGPASSWORD")
MASKED = "***"
"""What stands in the ledger of an older release where user and password were."""


def take_credentials(uri: str) -> str:
    """The tracking address without user and password, which this process's environment holds from
    then on.

    All that stands before the last @ is user and password, percent-encoded or not. An address of
    another kind of database stays as it is, and is masked wherever it is shown.
    """
    scheme, separator, rest = uri.partition("://")
    credentials, at, place = rest.rpartition("@")
    names = _variables(scheme.lower())
    if not separator or not at or names is None:
        return uri
    if credentials != MASKED:
        user, colon, password = credentials.partition(":")
        os.environ[names[0]] = unquote(user)
        if colon:
            os.environ[names[1]] = unquote(password)
    return f"{scheme}://{place}"


def _variables(scheme: str) -> tuple[str, str] | None:
    """The environment variables of user and password for that kind of address."""
    if scheme in ("http", "https"):
        return HTTP
    return POSTGRESQL if scheme.partition("+")[0] in ("postgresql", "postgres") else None
