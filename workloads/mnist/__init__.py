"""What the stages share: storage, data, model, checkpoints, the model repository and the edge they run behind."""

__version__ = "0.1.0"
