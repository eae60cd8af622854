"""The one exception that bad input raises."""


class InputError(ValueError):
    """Something from outside is wrong: a file, a record, a key, a flag.

    The message is one line that says which, what was found, what was expected and what to do.
    Commands print it alone, without a traceback, and exit with status 1.
    """
