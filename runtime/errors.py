"""The errors that a user can cause."""


class CharedgeError(Exception):
    """One sentence that names the file or option that is wrong and says what to do. The command line prints it and exits 1."""


class InvalidOption(CharedgeError, ValueError):
    """A value that an option cannot have: a usage error, for which the command line exits 2."""
