"""How do secrets in addresses stay out of messages, ledger and MLflow?"""

from __future__ import annotations

import re

_USER = re.compile(r"(?P<scheme>[a-zA-Z][a-zA-Z0-9+.-]*://)[^/\s@'\"]+@")
_QUERY = re.compile(
    r"(?P<key>[?&;](?:[\w-]*(?:token|secret|password|passwd|key|signature|credential)[\w-]*)=)"
    r"[^&\s'\"]+",
    re.IGNORECASE,
)


def redact(text: str) -> str:
    """The text without user, password and secret parameters of the addresses in it.

    >>> redact("https://me:secret@host/path?token=abc&page=1")
    'https://***@host/path?token=***&page=1'
    """
    return _QUERY.sub(r"\g<key>***", _USER.sub(r"\g<scheme>***@", text))
