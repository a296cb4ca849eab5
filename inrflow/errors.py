"""The one exception that means: the user can mend this."""


class UserError(Exception):
    """A mistake in what the user gave: one sentence saying what was found, what was expected and what to do.

    The command line prints the sentence on stderr without a traceback and exits with code 2.
    """
