"""All settings of AttentionShift, as a run's config has them."""

from dataclasses import dataclass, field

from mal.methods.attentionshift.config import StepsConfig
from mal.methods.attentionshift.detector_config import DetectorConfig
from mal.methods.attentionshift.network_config import (
    LabellingConfig,
    LearningConfig,
    QueryingConfig,
    ScaleConfig,
    TokensConfig,
)


@dataclass
class AttentionShiftConfig:
    tokens: TokensConfig = field(default_factory=TokensConfig)
    querying: QueryingConfig = field(default_factory=QueryingConfig)
    steps: StepsConfig = field(default_factory=StepsConfig)
    detector: DetectorConfig = field(default_factory=DetectorConfig)
    scale: ScaleConfig = field(default_factory=ScaleConfig)
    learning: LearningConfig = field(default_factory=LearningConfig)
    labelling: LabellingConfig = field(default_factory=LabellingConfig)
