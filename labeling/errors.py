"""Errors that a user can act on. Each says what is wrong, with which case, and the way out.

No message may carry report text: a report is patient data, an error ends up in logs.
"""

from __future__ import annotations

__all__ = [
    "ConfigError",
    "GeometryError",
    "InputError",
    "PetgroundError",
    "SchemaError",
    "SuvError",
]


class PetgroundError(Exception):
    """Base of every error that is the user's to mend; the command line prints it without a traceback.

    `case` is the exam id (or file name) it happened to, `fix` one sentence on what to do, `reason` the
    code written to the tables (lower case, underscores) when the error ends a case.
    """

    reason = "failed"

    def __init__(self, message: str, *, case: str | None = None, fix: str | None = None, reason: str | None = None):
        self.message = message
        self.case = case
        self.fix = fix
        if reason is not None:
            self.reason = reason
        super().__init__(message, case, fix)

    def __str__(self) -> str:
        text = f"{self.case}: {self.message}" if self.case else self.message
        return f"{text} ({self.fix})" if self.fix else text

    def __reduce__(self) -> tuple[object, ...]:
        return _rebuild, (type(self), self.message, self.case, self.fix, self.reason)


def _rebuild(cls: type[PetgroundError], message: str, case: str | None, fix: str | None, reason: str) -> PetgroundError:
    """Errors cross process borders; keyword-only arguments do not survive pickle without this."""
    return cls(message, case=case, fix=fix, reason=reason)


class InputError(PetgroundError):
    """A file is missing, unreadable or does not hold what it should."""

    reason = "bad_input"


class SuvError(PetgroundError):
    """A PET series cannot be converted to SUVbw; the message names the DICOM attribute."""

    reason = "no_suv"


class GeometryError(PetgroundError):
    """Two images that must share a grid do not, or an affine is not usable."""

    reason = "geometry"


class SchemaError(PetgroundError):
    """A table has another version or other columns than this release reads."""

    reason = "schema"


class ConfigError(PetgroundError):
    """A setting is unknown, of the wrong type or out of range."""

    reason = "config"
