"""Settings of which classes are novel."""

from dataclasses import dataclass, field


@dataclass
class SplitConfig:
    name: str = "S1"  # of the data set's splits (mal/methods/simformer/splits.yaml)
    classes: list[str] = field(default_factory=list)  # names of the novel classes, instead; tables then say `own`
