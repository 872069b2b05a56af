"""The whole failure vocabulary of the training package. Each message is one line for a person."""


class TrainingError(Exception):
    """A job stopped and has published nothing."""


class DataError(TrainingError):
    """A data set is not there, cannot be fetched, or is not the published one."""


class FitError(TrainingError):
    """The network cannot learn even a few batches by heart: something in it is broken."""


class ExportError(TrainingError):
    """The exported graph does not compute what the PyTorch network computes."""


class GateError(TrainingError):
    """The int8 graph is not good enough to publish. The message names the figure and its bound."""


class PublishError(TrainingError):
    """The bundle cannot be put into the model repository."""


class ReportError(TrainingError):
    """The evaluation report cannot be made."""


class ImportModelError(TrainingError):
    """An ONNX file from somewhere else cannot be made a bundle; the message says why."""
