"""The one error type that is shown to a person as a sentence.

Knows nothing of where it is raised or shown.
"""


class UserError(Exception):
    """A problem at the program's edge: one sentence with what, the value, and what to do (exit code 2)."""
