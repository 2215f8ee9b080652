"""What goes wrong with processes."""


class ProcessError(Exception):
    """A process failed, or could not be started or stopped. The message is one line for the user."""


class CancelledError(ProcessError):
    """The user interrupted `pulumi up`."""
