"""The errors a user can cause. Each is one line: what is wrong, where, and what to do about it."""


class PipelineError(Exception):
    """A fault with a known cause; `cli.run` prints its message as one line and exits with 1."""


class StorageError(PipelineError):
    """The storage cannot be read or written (full, read-only, missing)."""


class DataError(PipelineError):
    """A data file is missing, damaged, or not what it claims to be."""


class CheckpointError(PipelineError):
    """A checkpoint is missing, damaged, or belongs to another model."""


class ModelError(PipelineError):
    """A model file is damaged, has the wrong interface, or disagrees with PyTorch."""


class GateError(PipelineError):
    """A quality gate is not met: accuracy too low or latency too high."""


class ServerError(PipelineError):
    """The inference server cannot be reached, started, or answers with an error."""


class AcceleratorError(PipelineError):
    """The GPU that was asked for is not there."""


class InterruptedStageError(PipelineError):
    """The stage was asked to stop (SIGINT or SIGTERM)."""
