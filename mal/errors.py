"""Failures a user can act on. The message is a sentence: the value, the place, the way out."""


class MalError(Exception):
    """Something in the request, the data or the machine; never a bug of ours."""


class ConfigError(MalError):
    """A setting that cannot be used."""


class AnnotationError(MalError):
    """An annotation file that cannot be trusted; names the file and the entry."""


class ImageError(MalError):
    """An image that cannot be read, or is not the one its annotation describes."""


class WeightsError(MalError):
    """Weights that cannot be reached or do not fit the model."""


class TrainingError(MalError):
    """Training that went wrong, such as a loss that is not a number."""


class Stopped(MalError):
    """Work that left cleanly before its end, checkpoint written; the same command goes on."""


class TakenOverError(MalError):
    """Work whose folder another process owns by now, as happens to a process that was stopped for minutes."""


class DamagedFileError(MalError, ValueError):
    """A file of ours that is not what was written."""
