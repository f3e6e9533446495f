"""MLflow's server, answering no page but its own: what ``isoflop ui`` serves.

MLflow lets every page of this machine change what it holds, whatever port it was loaded from. Any
program here can serve one, and a browser follows a link to it; so what would change something is
answered only where the page that asks was loaded from this very address. MLflow finds the app by
the entry point ``isoflop`` of its group ``mlflow.app``.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any, TypeAlias
from urllib.parse import urlsplit

Scope: TypeAlias = MutableMapping[str, Any]
Receive: TypeAlias = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send: TypeAlias = Callable[[MutableMapping[str, Any]], Awaitable[None]]
App: TypeAlias = Callable[[Scope, Receive, Send], Awaitable[None]]

NAME = "isoflop"
"""Of the entry point."""

READS = frozenset({"GET", "HEAD", "OPTIONS"})
"""Methods that change nothing."""

OWN_SITES = frozenset({"same-origin", "none"})
"""What a browser says of requests by the page itself, or by a person."""

REFUSED = b"isoflop: only the page of this address may change what it holds"


class OwnOrigin:
    """An ASGI app that refuses what another page asks to be changed."""

    def __init__(self, inner: App | None = None) -> None:
        self._inner = inner

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer, or refuse with 403."""
        if scope["type"] == "http" and not is_own(scope["method"], headers_of(scope)):
            head = {"status": 403, "headers": [(b"content-type", b"text/plain")]}
            await send({"type": "http.response.start", **head})
            await send({"type": "http.response.body", "body": REFUSED})
            return
        await self._app()(scope, receive, send)

    def _app(self) -> App:
        if self._inner is None:  # imported where it serves, not where it is looked up
            from mlflow.server.fastapi_app import app as inner

            self._inner = inner
        return self._inner


def headers_of(scope: Scope) -> dict[str, str]:
    """By name, in lower case."""
    return {name.decode("latin-1"): value.decode("latin-1") for name, value in scope["headers"]}


def is_own(method: str, headers: dict[str, str]) -> bool:
    """Whether a request changes nothing, comes from no page, or from the page of this address."""
    if method in READS:
        return True
    site, origin = headers.get("sec-fetch-site"), headers.get("origin")
    if site is not None and site not in OWN_SITES:
        return False
    return origin is None or urlsplit(origin).netloc == headers.get("host")


app = OwnOrigin()
