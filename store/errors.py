"""Errors of the cache. Each names what was expected, what came, where, and what to do next.

Every class derives from `CacheError` and from the builtin that a caller would expect, so that
`except CacheError` catches all of ours and `except ValueError` goes on working.
"""

from __future__ import annotations


class CacheError(Exception):
    """Base of every error that is a message to the user, not a bug: one line, no stack trace."""


class InputError(CacheError, ValueError):
    """A dataset table, option or file that the user gave can't be used."""


class UnknownNameError(CacheError, LookupError):
    """A dataset, teacher, student, recipe, signal, split or view that does not exist."""


class MissingFileError(CacheError, FileNotFoundError):
    """A file that has to be there is not; the message says what to place where."""


class LeftOutError(MissingFileError):
    """A partial copy was pulled without it; the message holds the command that brings it."""


class IncompleteCacheError(CacheError, RuntimeError):
    """The cache is planned or half dumped; finish the dump before reading it."""


class IdentityError(CacheError, ValueError):
    """Two things that must be the same differ; the message names the field and both values."""


class DamagedCacheError(CacheError, OSError):
    """Stored bytes are not what was written; the message names the object."""


class SignatureError(CacheError, ValueError):
    """A cache is not signed by those whom the user trusts; the message says by whom it is, if by anybody."""


class NotShareableError(CacheError, PermissionError):
    """The card of a cache says share: no, and nobody said that it may be shared all the same."""


class RemoteError(CacheError, OSError):
    """Another machine did not give or take an object; the message names both and says what to do."""


class LockedCacheError(CacheError, RuntimeError):
    """Another process is writing this cache."""


class NonFiniteError(CacheError, ValueError):
    """A teacher or a loss gave NaN, infinity or what its encoding can not hold; names row or step."""


class UndecodableVideoError(CacheError, ValueError):
    """A video file yields no frames; the message is the reason without any path, for the cache to store."""
