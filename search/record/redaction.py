"""How do secrets in addresses stay out of messages, ledger and MLflow?"""

from __future__ import annotations

import re

_SCHEME = r"(?P<scheme>[a-zA-Z][a-zA-Z0-9+.-]*://)"
_PASSWORD = re.compile(
    _SCHEME + r"[^\s/@:'\"]*:(?!\d+(?:[\s;,)]|$))(?:(?!://)[^\"\\\r\n]|\\.)*@",
)
"""User and password, up to the last @: a password may hold an @, a slash, a quote or a blank. A
number that a sentence goes on after is a port."""
_USER = re.compile(_SCHEME + r"[^/\s'\":]+@")
_QUERY = re.compile(
    r"(?P<key>(?:[?&;][\w-]*(?:token|secret|password|passwd|pwd|key|signature|credential)[\w-]*"
    r"|\b(?:access_token|auth_token|api_key|password|passwd|pwd|sig))=)[^&\s'\";,)]+",
    re.IGNORECASE,
)
_HEADER = re.compile(r"(?P<kind>\b(?:Bearer|Basic)\s+)[A-Za-z0-9._~+/=-]{8,}")


def redact(text: str) -> str:
    """The text without user, password and secret parameters of the addresses in it, and without
    the tokens of headers.

    >>> redact("https://me:sec/r@t@host/path?access_token=abc&page=1")
    'https://***@host/path?access_token=***&page=1'
    """
    text = _USER.sub(r"\g<scheme>***@", _PASSWORD.sub(r"\g<scheme>***@", text))
    return _HEADER.sub(r"\g<kind>***", _QUERY.sub(r"\g<key>***", text))
