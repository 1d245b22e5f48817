"""The named errors of this service; it knows neither HTTP nor any driver."""


class StoreUnavailable(Exception):
    """PostgreSQL cannot be asked now; the message names the driver's error, for the log only."""


class StoreTooSlow(StoreUnavailable):
    """PostgreSQL did not finish in time: with less to do it might."""


class RowRefused(Exception):
    """PostgreSQL will never take these rows as they are; nothing of the batch was written."""


class StreamUnavailable(Exception):
    """Redis cannot be asked now; the message names the driver's error, for the log only."""


class InvalidField(Exception):
    """A request is well-formed but cannot be answered, because of `field`."""

    def __init__(self, field: str, message: str) -> None:
        super().__init__(message)
        self.field = field
        self.message = message


class VersionConflict(Exception):
    """The document changed since the caller read it."""


class TooManyFollowers(Exception):
    """The live stream has as many followers as it takes."""


class TooManyOfOneClient(Exception):
    """One client follows as often as one may."""


class AssetDamaged(Exception):
    """A file of the dashboard is not the one that this service was made with; the message names it."""
