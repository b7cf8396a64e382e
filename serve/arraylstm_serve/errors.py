"""Errors that keep the server from starting."""


class StartupError(Exception):
    """The server cannot start; the message is one sentence for the person who started it."""


class BundleError(StartupError):
    """The bundle is missing, damaged, or in a format that the server does not understand."""


def cause(error: Exception) -> str:
    """Return the operating system's words for an error, or the error's own."""
    return (isinstance(error, OSError) and error.strerror) or str(error)
