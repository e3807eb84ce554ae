"""Which stages a run asks for: views → labels → mask quality, segmenters → AP → retention; or what its method says."""

from collections.abc import Iterator

import torch

from mal import evaluation, needs
from mal.config import Config
from mal.context import Context
from mal.data.census import words
from mal.data.headers import read_headers, turned_sentence
from mal.data.sources import Split
from mal.engine.graph import Stage
from mal.engine.store import Store
from mal.errors import ConfigError
from mal.methods.mal import looks
from mal.methods.registry import NONE, find
from mal.methods.spec import Method
from mal.methods.stages import label
from mal.segmenters.stages import Segmenters


class Graph:
    """
    Args:
        config: checked.
        store: its root holds the cache of file fingerprints.
        device: decides the precision, which is part of a result's identity.

    Raises:
        MalError: a split that the run needs is missing.
        ConfigError: what the data holds is nothing for the method.
    """

    def __init__(self, config: Config, store: Store, device: torch.device) -> None:
        self.config, self.context = config, Context(config, store, device)
        self.segmenters = Segmenters(self.context)
        self.method = None if config.labeler.name == NONE else find(config.labeler.name)
        self.compared = [find(name) for name in config.compare if name != NONE]
        if config.data.format == "maps" and not self.ends_elsewhere:
            raise ConfigError(
                f"data={config.data.name} holds class maps (data.format=maps); labeler={config.labeler.name} learns "
                "from annotated objects; choose labeler=simformer, or data in COCO's format"
            )
        self.val, self.test = self.context.val, self.context.test
        self.train = self._labelled_train()  # None where the run looks at validation images alone
        if not self.trains_nothing:  # fail here where a split is missing
            _ = self.context.required_val if self.train is None else self.train
            _ = self.context.labeler_train if self.learns else None

    @property
    def trains_nothing(self) -> bool:
        """Whether the run only evaluates a published segmenter."""
        return self.config.segmenter.name != "none" and self.config.segmenter.weights == "published"

    @property
    def ends_elsewhere(self) -> bool:
        """Whether the method says itself what a run of it ends in: not in instance masks."""
        return self.method is not None and self.method.targets is not None

    @property
    def learns(self) -> bool:
        """Whether a method is trained: for its masks, or for the features of its encoder."""
        looked = (self.config.clustering, self.config.attention)
        trained = self.method is not None and self.method.train is not None
        return trained or any(look.enabled and look.encoder == "trained" for look in looked)

    @property
    def splits(self) -> list[Split]:
        """What is labelled."""
        if self.ends_elsewhere:
            return []
        return [split for split in (self.train, self.val) if split is not None]

    def labelled(self) -> Iterator[tuple[Split, Method]]:
        """The splits of the run and who labels each: the labeler, and on validation images those that it is compared
        with."""
        for split in self.splits:
            compared = self.compared if needs.compares(split, self.config) else []
            for method in self.named(split, compared):
                if method.has(self.context, split.name):
                    yield split, method

    def _labelled_train(self) -> Split | None:
        if self.trains_nothing or self.method is None or not self.method.has(self.context, "train"):
            return None
        return self.context.train

    def data(self) -> list[Stage]:
        """The stages that read and check the splits. They come first: what is wrong with the data is known at once."""
        if self.trains_nothing:
            return [self.context.view(self.context.required_val, "boxes")]
        if self.ends_elsewhere:
            return []  # its stages read the data first
        learned = [self.context.labeler_train] if self.learns else []
        view = "boxes" if self.method is None else self.method.view
        return [self.context.view(split, view) for split in [*self.splits, *learned]]

    def targets(self) -> list[Stage]:
        """The stages a run asks for; their inputs follow from them."""
        if self.method is not None and self.method.targets is not None:
            return self.method.targets(self.context)
        context, config, stages = self.context, self.config, self.data()
        if self.trains_nothing:
            return [*stages, self._score(self.segmenters.published())]
        for split, method in self.labelled():
            labels = label(context, split, method)
            stages.append(evaluation.quality(context, split, labels) if needs.compares(split, config) else labels)
        detect = None if self.method is None else self.method.detect
        if detect is not None and self.val is not None and needs.compares(self.val, config):
            stages.append(evaluation.score(context, detect(context), own=True))
        if self.trains_segmenters:
            trained = [self.segmenters.human()]
            if config.segmenter.mask_head:  # a detector without it is the same whatever the masks
                trained.append(self.segmenters.train(self.labels(context.train)))
            scores = [self._score(segmenter) for segmenter in trained]
            stages += scores[:1] if len(scores) == 1 else [evaluation.retention(context, scores[1], scores[0])]
            if self.test is not None and config.segmenter.mask_head:
                stages += [self.segmenters.predict_test(segmenter, self.test) for segmenter in trained]
        if self.method is not None and self.val is not None:
            stages += self.method.looks(context)
        if config.clustering.enabled and self.val is not None and needs.compares(self.val, config):
            stages.append(looks.clustering(context))
        if config.attention.enabled and self.val is not None:
            stages.append(looks.attention(context))
        return stages

    def labelled_by_its_method(self) -> list[Split]:
        """The splits for which the labeler has masks."""
        if self.trains_nothing or self.method is None:
            return []
        return [split for split in self.splits if self.method.has(self.context, split.name)]

    def _score(self, segmenter: Stage) -> Stage:
        """AP of a segmenter's predictions."""
        columns = self.segmenters.printed_columns(segmenter)
        return evaluation.score(self.context, self.segmenters.detect(segmenter), columns=columns)

    def labels(self, split: Split) -> Stage:
        """The labeler's masks of a split."""
        assert self.method is not None  # a run without a labeler asks for none
        return label(self.context, split, self.method)

    def named(self, split: Split, compared: list[Method] | None = None) -> list[Method]:
        """The labeler and, on validation images, those it is compared with: all that the config names, or these."""
        beside = [] if split.name != "val" else self.compared if compared is None else compared
        return list(dict.fromkeys([*([] if self.method is None else [self.method]), *beside]))

    def censuses(self) -> list[str]:
        """What each split in files holds, in a line."""
        return [f"{name}: {words(split.census)}" for name, split in self._named_files() if split.census is not None]

    def check(self) -> None:
        """Refuse what would stop the run, or make it worthless, only after its trainings. Nothing is computed.

        Raises:
            AnnotationError, ConfigError.
        """
        config = self.config
        if self.ends_elsewhere:
            self._check_ends()
            return
        for split in self.files():
            needs.check_boxes(split)
        for split, method in [] if self.trains_nothing else self.labelled():
            if method.view in ("boxes", "expressions"):
                needs.check_all_boxes(split, labeler=method.name)
        for method in self._methods():
            method.check_files(self.context, self.files())
        for split in self.splits:
            for method in [m for m in self.named(split) if m.human and not self.trains_nothing]:
                purpose = f"labeler {method.name} copies them"
                needs.check_masks(split, purpose=purpose, way_out="or choose another labeler")
                needs.check_some_masks(split, purpose=purpose)
        if self.trains_nothing:
            needs.check_scores(self.context.required_val, config)
        elif self.wants_segmenters:
            train, val = self.context.train, self.val
            if config.segmenter.mask_head:
                for split in filter(None, (train, val)):
                    needs.check_real_masks(split)
            if self.trains_segmenters and val is not None:
                if config.segmenter.mask_head and config.segmenter.human_checkpoint is None:
                    needs.check_masks(train, purpose="a segmenter learns from all of them")
                needs.check_scores(val, config)
                if not config.data.class_agnostic:
                    needs.check_categories(train, val)
        elif self.val is not None:
            needs.check_selection(self.val, config)

    def _check_ends(self) -> None:
        """Refuse what only a run that ends in instance masks could do, and files that lack what class maps are made of.

        Raises:
            AnnotationError, ConfigError.
        """
        config = self.config
        asked = {
            f"segmenter={config.segmenter.name}": config.segmenter.name != "none",
            f"compare=[{','.join(config.compare)}]": bool(self.compared),
            "clustering.enabled=true": config.clustering.enabled,
            "attention.enabled=true": config.attention.enabled,
        }
        if wrong := [name for name, on in asked.items() if on]:
            raise ConfigError(
                f"labeler={config.labeler.name} ends in class maps, which {' and '.join(wrong)} can do nothing with; "
                "leave it out, or set segmenter=none compare=[]"
            )
        for split in self.files():
            needs.check_masks(
                split,
                purpose="class maps are made of all of them",
                way_out="or choose other data (python -m mal.semantic coco makes tags of annotations without a mask)",
            )
            needs.check_some_masks(split, purpose="class maps are made of them")
        if self.val is not None:
            needs.check_selection(self.val, config)

    def turned_images(self) -> list[str]:
        """A note for each split whose images a viewer turns, so that boxes may have been drawn on another view of them
        than is read. At most `census.SEEN` headers are read for each."""
        found, texts = [], any(method.view == "expressions" for method in self._methods())
        for name, split in self._named_files():
            if split.census is not None:
                sample = read_headers(split.census.sample, split.images)
                found += [f"{name}: {said}" for said in filter(None, [turned_sentence(sample, texts=texts)])]
        return found

    def _methods(self) -> list[Method]:
        """The labeler, and those that it is compared with somewhere."""
        if self.trains_nothing:
            return []
        own = [] if self.method is None else [self.method]
        return list({method.name: method for method in [*own, *(method for _, method in self.labelled())]}.values())

    def files(self) -> list[Split]:
        """The splits that are files of the user's."""
        return [split for _, split in self._named_files()]

    def _named_files(self) -> list[tuple[str, Split]]:
        """The splits this run reads that are files of the user's, under their names in the config."""
        train, learned = self.train, self.context.labeler_train if self.learns and not self.trains_nothing else None
        named = [("train", train), ("val", self.val)]
        if learned is not None and learned != train:
            named.append(("train" if learned.dataset is None else "labeler_train", learned))
        return [(name, split) for name, split in named if split is not None and split.drawn is None]

    @property
    def wants_segmenters(self) -> bool:
        """Whether the config asks for segmenters to be trained."""
        return not self.trains_nothing and self.method is not None and self.config.segmenter.name != "none"

    @property
    def trains_segmenters(self) -> bool:
        """Whether they can be: with a mask head both splits need human masks, the training images' unless a published
        segmenter stands for one trained on them."""
        if not self.wants_segmenters or self.val is None:
            return False
        human = self.context.train.has_masks or self.config.segmenter.human_checkpoint is not None
        return not self.config.segmenter.mask_head or (human and self.val.has_masks)
