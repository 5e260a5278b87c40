"""Errors whose message is for the user."""


class InputError(ValueError):
    """The user's input is wrong: the message says place, rule, value and next step, and no traceback is shown."""


class StuckError(Exception):
    """A command cannot go on, for a reason that is nobody's slip: the message says all, and no traceback is shown."""
