"""Errors named after what happens next.

An adapter turns each foreign error into one of these; the bus acts on the type alone.
No message may contain a secret: it ends up in logs, dead letters and comments.
"""


class MillraceError(Exception):
    """Base of all errors that Millrace raises on purpose; ``str()`` is a sentence for people."""


class Later(MillraceError):  # noqa: N818  named after what happens next
    """It may work on another try.

    Args:
        why: what happened, to what.
        seconds: the shortest wait before the next try; ``None`` leaves it to the caller's backoff.
        kind: a stable name for metrics and for the final comment, such as ``model_overloaded``.
    """

    def __init__(self, why: str, *, seconds: float | None = None, kind: str = "unavailable") -> None:
        super().__init__(why)
        self.seconds = seconds
        self.kind = kind


class Refused(MillraceError):  # noqa: N818
    """It will not work however often it is tried: the run ends truthfully with this reason.

    Args:
        why: what happened, to what, what a person can do next.
        kind: a stable name, such as ``model_key_rejected`` or ``needs_permission``.
    """

    def __init__(self, why: str, *, kind: str = "refused") -> None:
        super().__init__(why)
        self.kind = kind


class Unreadable(MillraceError):  # noqa: N818
    """Bytes that no version of a contract explains: rejected once, to the dead letters."""


class Conflict(MillraceError):  # noqa: N818
    """Another writer appended to the run first: fold again, decide again."""


class Misconfigured(MillraceError):  # noqa: N818
    """A setting, a file or a machine is not as it must be: refuse to start, say what to change."""
