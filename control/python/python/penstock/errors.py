"""What can go wrong. Every message says what to do about it.

Each class is also the built-in exception that it is a case of, so that code which knows nothing of Penstock catches it too.
"""


class PenstockError(Exception):
    """Of all of them."""

    #: S3's error code, such as ``NoSuchKey``, when the server has given one.
    code: "str | None" = None
    #: The HTTP status, when the server has answered.
    status: "int | None" = None
    #: Whether the same operation may succeed later.
    retryable: bool = False


class ConfigurationError(PenstockError, ValueError):
    """An argument that can't be, or arguments that don't go together."""


class NotFound(PenstockError, FileNotFoundError):
    """The object, the bucket or the upload is not there."""


class AccessDenied(PenstockError, PermissionError):
    """No credentials, wrong ones, or none that may do this."""


class ExpiredToken(AccessDenied):
    """The credentials were good, and are so no more."""


class Timeout(PenstockError, TimeoutError):
    """Not done within the deadline."""


class Corrupt(PenstockError, OSError):
    """The bytes are not those that were stored, each time that they were read. None were returned."""


class Changed(PenstockError, OSError):
    """The object was replaced each time that it was read."""


class EndpointError(PenstockError, ConnectionError):
    """The server can't be reached, or is no S3 server."""


class WrongSize(PenstockError, ValueError):
    """The destination is not as long as what was to be read, or the object ends before the range does."""


class PreconditionFailed(PenstockError, FileExistsError):
    """A condition did not hold: the object is there already, or is another one by now."""


class RdmaRequired(PenstockError, RuntimeError):
    """RDMA is required and can't be had."""


class ServerError(PenstockError, OSError):
    """The server said no, in S3's words."""


class OutOfMemory(PenstockError, MemoryError):
    """There is no memory for what was to be read."""
