"""The errors of this service, independent of HTTP and drivers."""


class StoreUnavailable(Exception):
    """PostgreSQL is unavailable. The message names the driver's error, for the log only."""


class StoreTooSlow(StoreUnavailable):
    """PostgreSQL did not finish in time. A smaller request may succeed."""


class RowRefused(Exception):
    """PostgreSQL rejects these rows permanently. Nothing of the batch was written."""


class StreamUnavailable(Exception):
    """Redis is unavailable. The message names the driver's error, for the log only."""


class InvalidField(Exception):
    """A well-formed request whose `field` has an invalid value."""

    def __init__(self, field: str, message: str) -> None:
        super().__init__(message)
        self.field = field
        self.message = message


class VersionConflict(Exception):
    """The document changed since the caller read it."""


class TooManyFollowers(Exception):
    """The live stream has its maximum of followers."""


class TooManyOfOneClient(Exception):
    """A client has its maximum of streams."""


class AssetDamaged(Exception):
    """A file of the dashboard differs from the one this service was built with. The message names it."""
