"""All methods: `labeler=` is one of these, or none."""

from mal.errors import ConfigError
from mal.methods import baselines
from mal.methods.attentionshift.stages import ATTENTIONSHIFT
from mal.methods.bestie.stages import BESTIE
from mal.methods.mal.stages import MAL
from mal.methods.partialres.stages import PARTIALRES
from mal.methods.simformer.stages import SIMFORMER
from mal.methods.spec import Method

METHODS: dict[str, Method] = {
    method.name: method for method in (MAL, ATTENTIONSHIFT, BESTIE, SIMFORMER, PARTIALRES, *baselines.METHODS)
}
NONE = "none"  # labeler=none makes no masks


def find(name: str) -> Method:
    """
    Raises:
        ConfigError: there is none of that name.
    """
    if name not in METHODS:
        raise ConfigError(f"labeler={name} is unknown; choose one of {', '.join([*METHODS, NONE])}")
    return METHODS[name]
