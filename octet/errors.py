"""What a command itself may find wrong. The message is one line for a person."""


class CommandError(Exception):
    """The command cannot be done."""
