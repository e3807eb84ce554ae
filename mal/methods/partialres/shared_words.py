"""Whether validation expressions have a word of the training's, found in the files before anything is trained."""

from mal.context import Context
from mal.data.expressions import words
from mal.data.remembered import remembered
from mal.data.sources import Split
from mal.data.views import VIEWS, read_for
from mal.errors import ConfigError
from mal.methods.partialres.unknown import all_strange
from mal.methods.partialres.vocabulary import Vocabulary

VERSION = 1


def check_files(context: Context, _: list[Split]) -> None:
    """Nothing is computed of drawn scenes, nor of a language model, which brings its own words.

    Raises:
        AnnotationError: a file cannot be read, or its expressions.
        ConfigError: no validation expression has a word of the training's.
    """
    train, val, config = context.labeler_train, context.val, context.config
    text, kind = config.partialres.network.text, config.data.expressions.kind
    if val is None or val.drawn is not None or train.drawn is not None or text.encoder != "gru":
        return

    def texts(split: Split) -> list[list[str]]:
        coco = read_for("expressions", split.annotations, split.images)
        view = VIEWS["expressions"](coco, kind=kind, source=split.annotations, tell=lambda _: None)
        return [words(text) for annotation in view["annotations"] for text in annotation["expressions"]]

    def fault() -> str | None:
        return all_strange(texts(val), Vocabulary.build(each[: text.words] for each in texts(train)), text.words)

    about = f"shared-words-{kind}-{text.words}"
    if found := remembered(about, VERSION, [train.annotations, val.annotations], fault, context.fingerprints):
        raise ConfigError(found)
