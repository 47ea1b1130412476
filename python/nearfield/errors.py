"""Every error a user can cause, as one clear line: what was given, what was expected, where, how to mend it."""

from __future__ import annotations


class NearfieldError(Exception):
    """Base of all nearfield errors. ``str(error)`` is the one line a user reads."""


class InputError(NearfieldError, ValueError):
    """What was given cannot be used: a missing file, wrong columns, a NaN in row 7. The command line exits with 2."""


class FormatError(InputError):
    """A file or a bundle that cannot be opened: bad magic, unknown version, wrong checksum, truncated, a path that escapes."""


class FingerprintError(InputError):
    """An index and an encoder that do not belong together."""


class MissingExtraError(NearfieldError, ImportError):
    """A feature whose optional dependencies are not installed; the message names the ``pip install`` that brings them."""

    def __init__(self, feature: str, extra: str, missing: str, note: str = "") -> None:
        super().__init__(f"{feature} needs {missing}, which is not installed: pip install 'nearfield[{extra}]'{note and ' '}{note}")
