"""What can go wrong in expected ways: each error tells what is wrong, where, and what to do."""

from __future__ import annotations


class RepowatchError(Exception):
    """Expected trouble. Its text is for the operator; the command ends with `exit_code`."""

    exit_code = 1


class UsageError(RepowatchError):
    """Wrong usage or configuration, or another writer holds the repository."""

    exit_code = 2


class BadPackage(RepowatchError):
    """A file that is not a whole, readable RPM package; the text is the reason, in one line."""


class BadMetadata(RepowatchError):
    """A file of groups, modules or advisories that clients could not use; the text tells line and reason."""

    def __init__(self, reason: str, *, line: int | None = None) -> None:
        super().__init__(reason if line is None else f"line {line}: {reason}")


class Nameless(RepowatchError):
    """Nothing has the name that was asked for."""


class Misunderstood(RepowatchError):
    """What was asked for can not be understood; the text says how to ask."""


class Conflict(RepowatchError):
    """It can not be done as things are now; nothing was changed."""


class Forbidden(RepowatchError):
    """Whoever asks may not do this; nothing was changed."""


class Unfinished(RepowatchError):
    """A change that was made, and that the disk then failed to make sure of or to show."""

    def __init__(self, error: OSError) -> None:
        super().__init__(f"the change was made, but may not last: {(error.strerror or str(error)).lower()}")
        self.error = error


class ChangedWhileRead(RepowatchError):
    """The file changed between the first and the last look at it; it has to settle again."""
