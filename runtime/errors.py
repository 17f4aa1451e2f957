"""Errors that a user can cause."""


class CharedgeError(Exception):
    """One sentence that names the file or argument that is wrong and says what to do.

    Arguments are in backquotes, as in `temperature`; the command line shows them as options, and exits with status 1.
    """


class InvalidOption(CharedgeError, ValueError):
    """An argument has a value that it cannot have; the command line exits with status 2.

    Attributes:
        field: the name of the argument, or of the field of a dataclass.
    """

    def __init__(self, field: str, problem: str) -> None:
        """
        Args:
            field: the name of the argument.
            problem: the rest of the sentence, for example "-1 must be at least 0.".
        """
        super().__init__(f"`{field}` {problem}")
        self.field = field
