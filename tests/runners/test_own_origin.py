"""Is a page of another address kept from changing what the UI holds?"""

from __future__ import annotations

import asyncio

import pytest

from runners.mlflow.own_origin import OwnOrigin, is_own

HOST = {"host": "127.0.0.1:5000"}


@pytest.mark.parametrize(
    ("method", "headers", "own"),
    [
        ("GET", {"origin": "http://evil.example"}, True),
        ("POST", {}, True),
        ("POST", {"origin": "http://127.0.0.1:5000", "sec-fetch-site": "same-origin"}, True),
        ("POST", {"origin": "http://127.0.0.1:5001"}, False),
        ("POST", {"origin": "http://localhost:5000"}, False),
        ("POST", {"origin": "null"}, False),
        ("DELETE", {"origin": "http://127.0.0.1"}, False),
        ("PATCH", {"sec-fetch-site": "cross-site"}, False),
        ("POST", {"origin": "http://127.0.0.1:5000", "sec-fetch-site": "same-site"}, False),
    ],
)
def test_who_may_change_something(method: str, headers: dict[str, str], own: bool) -> None:
    assert is_own(method, HOST | headers) is own


def test_what_is_refused_never_reaches_the_server() -> None:
    reached, sent = [], []

    async def inner(scope, receive, send) -> None:
        reached.append(scope["type"])

    async def send(message) -> None:
        sent.append(message)

    async def ask(method: str) -> None:
        headers = [(b"host", b"127.0.0.1:5000"), (b"origin", b"http://127.0.0.1:5001")]
        scope = {"type": "http", "method": method, "headers": headers}
        await OwnOrigin(inner)(scope, None, send)

    asyncio.run(ask("POST"))
    assert (reached, sent[0]["status"]) == ([], 403)
    asyncio.run(ask("GET"))
    assert reached == ["http"]
