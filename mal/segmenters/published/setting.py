"""How a config asks for a published segmenter, so that what is said of it names the setting that the user wrote."""

from dataclasses import dataclass
from pathlib import Path

from mal.segmenters.config import SegmenterConfig


@dataclass(frozen=True)
class Asked:
    """The parts of sentences that depend on it.

    Attributes:
        by: the setting and its value.
        file: the setting that names a file.
        instead: what to do where no file can serve.
    """

    by: str
    file: str
    instead: str

    def source(self, file: Path) -> str:
        """A file, after the setting that led to it."""
        return f"{self.file}={file}"


def asked(config: SegmenterConfig) -> Asked:
    """By `segmenter.human_checkpoint` where it is set, or else by `segmenter.weights=published`."""
    if config.human_checkpoint is None:
        return Asked("segmenter.weights=published", "segmenter.checkpoint", "train with segmenter.weights=trained")
    return Asked(
        f"segmenter.human_checkpoint={config.human_checkpoint}",
        "segmenter.human_checkpoint",
        "leave segmenter.human_checkpoint out, and a segmenter is trained on human masks",
    )
