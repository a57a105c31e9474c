"""Every error that medsynth raises on purpose.

A :class:`UserError` is the user's to mend: its message is one line that names the file, key or row
and the remedy, and a job that meets one prints that line and exits with 2. A :class:`Rejected` is
one bad input or output among many: it never stops a run, it is counted with its reason.
"""

from enum import StrEnum


class MedsynthError(Exception):
    """Root of all errors that medsynth raises on purpose."""


class UserError(MedsynthError):
    """A mistake that the user can mend; the message is one line with the remedy."""


class SpecError(UserError):
    """The spec, or a settings file it names, does not say something that can be done."""


class StorageError(UserError):
    """A URI cannot be read or written: wrong address, no access, or a server that keeps failing."""


class NotFoundError(StorageError):
    """Nothing exists at a URI."""


class CatalogError(UserError):
    """The catalog, or what it is to be made from, is missing, empty or inconsistent."""


class ShortfallError(UserError):
    """The catalog cannot fill the quotas, and the spec says ``on_shortfall: error``."""


class CorpusConflictError(UserError):
    """The output already holds another corpus."""


class CorpusError(UserError):
    """A corpus is incomplete, damaged, or not what it says it is."""


class TrainingError(UserError):
    """A training run cannot be done, or cannot go on, as it was asked for."""


class ScoringError(UserError):
    """Slides cannot be scored as asked, or the output already holds scores made otherwise."""


class SyntheticSplitError(UserError, ValueError):
    """Synthetic images were asked for as validation or test data."""


class Reason(StrEnum):
    """Why an input or an output was refused; the text stands in reject tables and reports."""

    MISSING = "missing"
    STORAGE = "storage_failed"
    UNREADABLE = "unreadable"
    TRUNCATED = "truncated"
    UNSUPPORTED = "unsupported"
    TOO_MANY_PIXELS = "too_many_pixels"
    TOO_SMALL = "too_small"
    SEVERAL_FRAMES = "several_frames"
    CHANGED = "changed_since_catalog"
    UNKNOWN_MPP = "unknown_mpp"
    NO_METADATA = "no_metadata"
    NOT_BRIGHT_FIELD = "not_bright_field"
    NO_TISSUE = "no_tissue"
    NO_SKIN = "no_skin"
    EMPTY = "empty"
    SATURATED = "saturated"
    TONE = "tone_not_as_asked"
    NO_LESION = "no_lesion"
    PATTERN = "pattern_of_no_skin"
    FIELD = "pale_field_in_lesion"
    COPY = "copy_of_a_real_photo"


class Rejected(MedsynthError):
    """One input or output is refused.

    Args:
        reason: the kind of fault, one of a closed list, for counting.
        detail: one line for a person, naming what was found.
    """

    def __init__(self, reason: Reason, detail: str) -> None:
        super().__init__(reason, detail)
        self.reason = reason
        self.detail = detail

    def __str__(self) -> str:
        return f"{self.reason}: {self.detail}"
