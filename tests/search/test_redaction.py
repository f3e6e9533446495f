"""Secrets in addresses are not repeated."""

from __future__ import annotations

import pytest

from search.record.redaction import redact


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("http://me:secret@host:5000/x", "http://***@host:5000/x"),
        (
            "postgresql+psycopg2://u:p%40ss@db/mlflow failed",
            "postgresql+psycopg2://***@db/mlflow failed",
        ),
        ("https://ghp_token@host and ray://a:b@c:1", "https://***@host and ray://***@c:1"),
        ("https://h/p?api_token=abc&page=2", "https://h/p?api_token=***&page=2"),
        ("sqlite:////home/me@work/mlflow.sqlite", "sqlite:////home/me@work/mlflow.sqlite"),
        ("a mail to me@host stays", "a mail to me@host stays"),
        ('{"address": "ray://me:secret@head:10001"}', '{"address": "ray://***@head:10001"}'),
        ("http://me:p@ss/w'o rd@host:5000/x down", "http://***@host:5000/x down"),
        ("at http://host:5000; a mail to me@host", "at http://host:5000; a mail to me@host"),
        ("https://h/p?access_token=a&sig=b&sv=1", "https://h/p?access_token=***&sig=***&sv=1"),
        ("server=h;uid=me;pwd=abc;", "server=h;uid=me;pwd=***;"),
        ("Authorization: Bearer abcdef.ghi-123=", "Authorization: Bearer ***"),
        ("tokens=4096, design=2", "tokens=4096, design=2"),
    ],
)
def test_user_password_and_secret_parameters_are_masked(text: str, expected: str) -> None:
    assert redact(text) == expected
