"""The faults that keep a server from starting."""


class StartupError(Exception):
    """The server cannot start; the message is one sentence for the person who started it."""


class BundleError(StartupError):
    """The bundle is missing, damaged or not what the server understands."""


def cause(error: Exception) -> str:
    """The words of an error of the operating system, or of one that stands for it."""
    return (isinstance(error, OSError) and error.strerror) or str(error)
