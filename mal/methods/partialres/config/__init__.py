"""All settings of Partial-RES, as a run's config has them: one part per part of the method."""

from dataclasses import dataclass, field

from mal.methods.partialres.config.learning import FewConfig, PseudoConfig, RecConfig, ResConfig, TestingConfig
from mal.methods.partialres.config.network import NetworkConfig, PartsConfig
from mal.methods.partialres.config.sequence import ImageConfig, SequenceConfig


@dataclass
class PartialresConfig:
    network: NetworkConfig = field(default_factory=NetworkConfig)
    parts: PartsConfig = field(default_factory=PartsConfig)
    sequence: SequenceConfig = field(default_factory=SequenceConfig)
    image: ImageConfig = field(default_factory=ImageConfig)
    few: FewConfig = field(default_factory=FewConfig)
    rec: RecConfig = field(default_factory=RecConfig)
    res: ResConfig = field(default_factory=ResConfig)
    pseudo: PseudoConfig = field(default_factory=PseudoConfig)
    testing: TestingConfig = field(default_factory=TestingConfig)
