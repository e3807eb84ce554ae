"""All settings of SimFormer, as a run's config has them: one part per part of the method."""

from dataclasses import dataclass, field

from mal.methods.simformer.config.augment import AugmentConfig
from mal.methods.simformer.config.distillation import DistillationConfig
from mal.methods.simformer.config.learning import LearningConfig, PseudoConfig, TestingConfig
from mal.methods.simformer.config.losses import LossesConfig
from mal.methods.simformer.config.network import NetworkConfig
from mal.methods.simformer.config.pairs import PairsConfig
from mal.methods.simformer.config.similarity import SimilarityConfig
from mal.methods.simformer.config.split import SplitConfig


@dataclass
class SimformerConfig:
    split: SplitConfig = field(default_factory=SplitConfig)
    network: NetworkConfig = field(default_factory=NetworkConfig)
    losses: LossesConfig = field(default_factory=LossesConfig)
    pairs: PairsConfig = field(default_factory=PairsConfig)
    similarity: SimilarityConfig = field(default_factory=SimilarityConfig)
    distillation: DistillationConfig = field(default_factory=DistillationConfig)
    augment: AugmentConfig = field(default_factory=AugmentConfig)
    learning: LearningConfig = field(default_factory=LearningConfig)
    testing: TestingConfig = field(default_factory=TestingConfig)
    pseudo: PseudoConfig = field(default_factory=PseudoConfig)
