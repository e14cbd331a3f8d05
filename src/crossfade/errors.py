"""Every error that Crossfade raises on purpose, in one tree.

::

    CrossfadeError
    ├── SpaceMismatch        vectors of two spaces met without an adapter between them
    ├── InvalidVectors       NaN, infinity, zero rows, a wrong dimension, an empty set
    ├── InvalidIds           duplicate ids, or as many ids as rows do not exist
    ├── PairingError         ids that do not join; captions without images and the reverse
    ├── FitError             fewer pairs than a method needs, a modality it was not fitted on
    │   └── TrainingError    a loss that is not a number, a batch that does not fit into memory
    ├── EvaluationError      nothing to evaluate, labels or positives that are missing
    ├── DatasetError         a data set on disk that cannot be read as what it was said to be
    │   └── CorruptItem      one item of it: the rest can go on
    ├── EncoderError         a model that cannot be loaded, or that failed while encoding
    │   ├── EndpointError    an embeddings endpoint that refused, or kept failing
    │   └── OutOfMemory      a batch that did not fit; a smaller one may
    ├── FormatError          a file or an artifact that is damaged or not of the named format
    │   ├── UnsafeFormat     it would need pickle to be read
    │   └── NewerFormat      it was written by a later Crossfade
    ├── StoreError           a vector store that did not do what it was asked
    │   ├── Unreachable      it does not answer, or refuses the credentials
    │   ├── Unsupported      it cannot do that at all: a capability that it does not declare
    │   └── StoreChanged     the collection or a field of it is gone, or has another shape than before
    ├── UpgradeRefused       a step of an upgrade that does not follow, or that nothing proves to be an improvement
    ├── StorageError         it could not be written (disk full, no permission)
    ├── ExportError          an exported model that does not give the original's output
    ├── MissingExtra         an optional package is not installed
    └── ConfigError          a job file or a set of options that contradicts itself

Each message gives the rule, the value found, and the way out.
"""

from __future__ import annotations

__all__ = [
    "ConfigError",
    "CorruptItem",
    "CrossfadeError",
    "DatasetError",
    "EncoderError",
    "EndpointError",
    "EvaluationError",
    "ExportError",
    "FitError",
    "FormatError",
    "InvalidIds",
    "InvalidVectors",
    "MissingExtra",
    "NewerFormat",
    "OutOfMemory",
    "PairingError",
    "SpaceMismatch",
    "StorageError",
    "StoreChanged",
    "StoreError",
    "TrainingError",
    "Unreachable",
    "UnsafeFormat",
    "Unsupported",
    "UpgradeRefused",
]


class CrossfadeError(Exception):
    """Base of every error in this module: catch it to catch them all."""


class SpaceMismatch(CrossfadeError, ValueError):
    """Vectors of two spaces met without an adapter between them."""


class InvalidVectors(CrossfadeError, ValueError):
    """Vectors that are NaN, infinite, zero, of a wrong dimension, or absent."""


class InvalidIds(CrossfadeError, ValueError):
    """Ids that repeat, or that are not as many as the rows they name."""


class PairingError(CrossfadeError, ValueError):
    """Two sets of ids that do not join."""


class FitError(CrossfadeError, ValueError):
    """Pairs that a method cannot be fitted on, or an adapter used outside what it was fitted for."""


class TrainingError(FitError):
    """A training that cannot go on.

    Args:
        message: what happened.
        samples: numbers of the samples of the step where it happened.
    """

    def __init__(self, message: str, *, samples: tuple[int, ...] = ()) -> None:
        super().__init__(message)
        self.samples = samples


class EvaluationError(CrossfadeError, ValueError):
    """Queries, galleries or judgements that cannot be evaluated."""


class DatasetError(CrossfadeError, ValueError):
    """A data set on disk that cannot be read as what it was said to be."""


class CorruptItem(DatasetError):
    """One unreadable item; the others can go on."""


class EncoderError(CrossfadeError, RuntimeError):
    """A model that cannot be loaded, or that failed while encoding."""


class EndpointError(EncoderError):
    """An embeddings endpoint that refused the request, or kept failing."""


class OutOfMemory(EncoderError):
    """A batch that did not fit into the device's memory; a smaller one may."""


class FormatError(CrossfadeError, ValueError):
    """A file or an artifact that is damaged, or not of the format it was named as."""


class UnsafeFormat(FormatError):
    """A file that only pickle could read. Crossfade never unpickles."""


class NewerFormat(FormatError):
    """A file written by a later Crossfade than this one."""


class StoreError(CrossfadeError, RuntimeError):
    """A vector store that did not do what it was asked."""


class Unreachable(StoreError):
    """A store that does not answer, or that refuses the credentials."""


class Unsupported(StoreError):
    """What a store cannot do at all."""


class StoreChanged(StoreError):
    """A collection or a field of it that is gone, or has another shape than before."""


class UpgradeRefused(CrossfadeError, RuntimeError):
    """A step of an upgrade that does not follow the present one, or that nothing proves to be an improvement."""


class StorageError(CrossfadeError, OSError):
    """A file that could not be written; what stood there before still stands."""


class ExportError(CrossfadeError, RuntimeError):
    """An exported model whose output is not the original's."""


class ConfigError(CrossfadeError, ValueError):
    """A job file or a set of options that contradicts itself."""


class MissingExtra(CrossfadeError, ImportError):
    """An optional package is not installed.

    Args:
        package: what could not be imported, for example ``open_clip``.
        extra: the extra of Crossfade that brings it, for example ``open-clip``.
        feature: what the user asked for that needs it.
    """

    def __init__(self, package: str, *, extra: str, feature: str) -> None:
        super().__init__(
            f"{feature} needs the package '{package}', which is not installed. "
            f"Install it with: pip install 'crossfade[{extra}]'"
        )
        self.package = package
        self.extra = extra
