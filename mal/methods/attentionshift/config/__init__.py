"""All settings of AttentionShift, as a run's config has them: one part per part of the method."""

from dataclasses import dataclass, field

from mal.methods.attentionshift.config.detector import DetectorConfig
from mal.methods.attentionshift.config.looks import LooksConfig
from mal.methods.attentionshift.config.network import (
    LabellingConfig,
    LearningConfig,
    QueryingConfig,
    ScaleConfig,
    TokensConfig,
)
from mal.methods.attentionshift.config.steps import StepsConfig


@dataclass
class AttentionShiftConfig:
    tokens: TokensConfig = field(default_factory=TokensConfig)
    querying: QueryingConfig = field(default_factory=QueryingConfig)
    steps: StepsConfig = field(default_factory=StepsConfig)
    detector: DetectorConfig = field(default_factory=DetectorConfig)
    scale: ScaleConfig = field(default_factory=ScaleConfig)
    learning: LearningConfig = field(default_factory=LearningConfig)
    labelling: LabellingConfig = field(default_factory=LabellingConfig)
    looks: LooksConfig = field(default_factory=LooksConfig)
