"""Partial-RES on a file of one's own: a labeler.pt's network draws what expressions mean, inside the given boxes."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from mal.config import Config
from mal.context import Json
from mal.data.annotations import CocoDict
from mal.data.expressions import words
from mal.engine.findings import NOTE, STOPS, Finding, number, some
from mal.errors import ConfigError
from mal.methods.labelling import ShardLabeler
from mal.methods.partialres.text.lexicon import is_plain, restored
from mal.methods.partialres.text.subwords import Subwords
from mal.methods.partialres.text.vocabulary import Vocabulary
from mal.methods.spec import OwnFiles
from mal.methods.weights import usable

NAMED = 10  # words that a message names
LONGEST = 40  # letters of such a word


def wrote(state: Any) -> bool:
    """Whether that is a network of Partial-RES's, as its training leaves one."""
    kinds = {"config": str, "partialres": dict, "ema": dict, "task": str}
    if not isinstance(state, dict) or not all(isinstance(state.get(name), kind) for name, kind in kinds.items()):
        return False
    return is_plain(state.get("words"))


def look(state: Json, config: Config, coco: CocoDict) -> list[Finding]:
    """What of a view of expressions the network cannot label (`STOPS`), and what else its user may not expect (`NOTE`).

    Args:
        state: as `wrote` accepts it.
    """
    lexicon, found, most = restored(state["words"]), [], config.partialres.network.text.words
    texts = [words(text) for annotation in coco["annotations"] for text in annotation["expressions"]]
    if not texts:
        text = f"none of its {number(len(coco['annotations']), 'object')} has an expression; "
        return [Finding(STOPS, text + 'give each its own, as "expressions": ["the red star", …]')]
    strange = sorted(word for word in {word for text in texts for word in text[:most]} if not lexicon.knows(word))
    blank = sum(lexicon.all_unknown(text[:most]) for text in texts)
    if blank == len(texts):
        named = lexicon.words if isinstance(lexicon, Vocabulary) else ()
        knows = f"; it knows {_named(named)}" if named else ""
        return [
            Finding(
                STOPS,
                f"this labeler knows no word of any expression's first {most} ({_named(strange)}){knows}: "
                "use words that it knows, or train on expressions like yours",
            )
        ]
    if strange:
        what = number(len(strange), "word is", "words are")
        found.append(Finding(NOTE, f"{what} new to this labeler, and read as unknown: {_named(strange)}"))
    if blank:
        what = number(blank, "expression has", "expressions have")
        found.append(Finding(NOTE, f"{what} no known word: nothing says which object is meant"))
    if bare := sum(not (a["expressions"] or a.get("iscrowd")) for a in coco["annotations"]):
        what = number(bare, "object has", "objects have")
        found.append(Finding(NOTE, f"{what} no expression: the filled box is its mask, flagged"))
    if long := sum(len(text) > most for text in texts):
        what = number(long, "expression has", "expressions have")
        found.append(Finding(NOTE, f"{what} more than {most} words, of which the others are not read"))
    return found


def _named(words: Sequence[str]) -> str:
    """The first few words, those that are long cut."""
    return some([word if len(word) <= LONGEST else f"{word[:LONGEST]}…" for word in words], most=NAMED)


def check(state: Json, _: Config, path: Path) -> None:
    """
    Raises:
        ConfigError: the network learned boxes alone; its tokenizer is damaged.
    """
    lexicon = restored(state["words"])
    if isinstance(lexicon, Subwords) and (fault := lexicon.fault()):
        raise ConfigError(f"{path}: {fault}; copy the labeler.pt again")
    if state["task"] == "box":
        raise ConfigError(f"{path} learned boxes and no masks; give the labeler.pt of a train_res stage")


def labeler(state: Json, config: Config, device: torch.device, _: CocoDict, path: Path) -> ShardLabeler:
    """
    Raises:
        ConfigError: the weights are not those of the network that the config describes, or no numbers.
    """
    from mal.methods.partialres import label
    from mal.methods.partialres.checkpoint import trained

    network = usable(lambda: trained(state, config, device, path=path, weights=config.partialres.testing.weights), path)
    return label.labeler(network, config)


OWN_FILES = OwnFiles(wrote, labeler, check=check, look=look)
