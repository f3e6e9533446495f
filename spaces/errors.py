"""How does the program say that a request cannot be met?"""


class RequestError(ValueError):
    """The request was wrong (exit code 2); the message states law, values and remedy."""


class InfeasibleError(RequestError):
    """No shape or number of tokens satisfies the request; the message states the law and values."""
