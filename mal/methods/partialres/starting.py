"""A training's initial network: new weights, or those of the network that learned boxes, as far as they fit."""

from collections.abc import Sequence
from pathlib import Path

from mal.config import Config
from mal.engine.findings import some
from mal.engine.runtime import load_checkpoint
from mal.errors import WeightsError
from mal.methods.partialres.checkpoint import FILE, PARTS, WEIGHTS, Network, build
from mal.methods.partialres.network import load_fitting
from mal.methods.partialres.objects import Referred
from mal.methods.partialres.text.lexicon import Lexicon, lexicon_of, restored
from mal.methods.partialres.text.vocabulary import Vocabulary


def starting_network(
    config: Config, objects: Sequence[Referred], *, rec: bool, start: Path | None
) -> tuple[Network, Lexicon]:
    """A network for the words of some objects.

    Args:
        rec: of the training of boxes that one of masks starts from.
        start: folder of the network whose weights it takes over, as far as they fit.

    Raises:
        ConfigError: the settings describe no network.
        WeightsError: the encoder or the text encoder cannot be had, or the start has other words.
    """
    read = config.partialres.network.text.words
    texts = [words[:read] for each in objects for words in each.expressions]
    state = None if start is None else load_checkpoint(start / FILE, parts=PARTS)
    lexicon = lexicon_of(config.partialres, texts) if state is None else restored(state["words"])
    network = build(config, lexicon=lexicon, rec=rec, load=start is None)
    if start is not None and state is not None:
        every = {word for words in texts for word in words} if isinstance(lexicon, Vocabulary) else set()
        if unknown := sorted(word for word in every if not lexicon.knows(word)):
            raise WeightsError(
                f"{start / FILE} does not know all words of the training file ({some(unknown)}); train both on the "
                "same objects"
            )
        load_fitting(network, state[WEIGHTS[config.partialres.res.start_from]])
    return network, lexicon
