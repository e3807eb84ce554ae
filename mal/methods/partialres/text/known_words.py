"""Whether a network will know words of the expressions, found in the files before anything is trained."""

from pathlib import Path

from mal.context import Context
from mal.data.expressions import words
from mal.data.remembered import remembered
from mal.data.sources import Split
from mal.data.views import VIEWS, read_for
from mal.engine import ranks
from mal.errors import ConfigError
from mal.methods.partialres.text.lexicon import lexicon_of
from mal.methods.partialres.text.subwords import TOKENIZER
from mal.methods.partialres.text.unknown import all_strange

VERSION = 1


def check_files(context: Context, _: list[Split]) -> None:
    """Nothing is read of drawn scenes.

    Raises:
        AnnotationError: a file cannot be read, or its expressions.
        ConfigError: a network would know no word of all validation expressions, or of all training expressions.
        WeightsError: there is no language model where the settings name one.
    """
    train, val, own = context.labeler_train, context.val, context.config.partialres
    if val is None or val.drawn is not None or train.drawn is not None:
        return
    text, kind, flip = own.network.text, context.config.data.expressions.kind, own.image.flip

    def expressions(split: Split) -> list[list[str]]:
        coco = read_for("expressions", split.annotations, split.images)
        view = VIEWS["expressions"](coco, kind=kind, source=split.annotations, tell=lambda _: None)
        return [words(each) for annotation in view["annotations"] for each in annotation["expressions"]]

    def fault() -> str | None:
        learned, asked = expressions(train), expressions(val)
        if not learned:
            return None  # the view's stage says that, and the way out
        lexicon = lexicon_of(own, learned)
        return all_strange(learned, lexicon, text.words, whose="training") or all_strange(asked, lexicon, text.words)

    files = [train.annotations, val.annotations]
    if text.checkpoint is not None:
        files.append(Path(text.checkpoint) / TOKENIZER)
    about = f"known-words-{kind}-{text.words}-{flip}"
    if found := ranks.on_first(lambda: remembered(about, VERSION, files, fault, context.fingerprints)):
        raise ConfigError(found)
