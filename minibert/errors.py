"""Every exception that minibert raises on purpose, in one tree, below everything else.

A message is one line that names the argument (or the file and the field), what was required and
what came. The command line prints that line and exits with the class's ``exit_code``; nothing else
catches these.
"""


class MinibertError(Exception):
    """Base of all errors that a user can cause or mend."""

    exit_code = 1


class SettingsError(MinibertError, ValueError):
    """A setting or an argument has the wrong name, type or range."""

    exit_code = 2


class CorpusError(MinibertError, ValueError):
    """The data are missing, unreadable, or not what a corpus must be."""

    exit_code = 3


class DownloadError(CorpusError):
    """A corpus could not be fetched, or what came is not what was published."""


class ArtifactError(MinibertError):
    """A file of a run directory is missing, damaged or not ours, or cannot be written."""

    exit_code = 4


class ResumeError(ArtifactError):
    """A run cannot be resumed exactly: what it computes has changed since, or nothing is left of it."""


class RepeatabilityError(MinibertError):
    """A training step contains an operation whose result may differ from one execution to the next."""

    exit_code = 5


class DivergenceError(MinibertError):
    """The training's loss is no longer a finite number."""


class OutOfMemoryError(MinibertError):
    """A batch needs more memory than its device has left."""


class DeviceError(MinibertError):
    """A required device or backend is not there."""

    exit_code = 6
