"""The stage graph of a run: boxes → labeler → pseudo-labels → mask quality, segmenters → AP → retention.

Each file holds the stages of one part, in the order of the data's flow: data, labeler, segmenter, encoder.
"""

from mal.census import words
from mal.graph import Stage
from mal.headers import read_headers, turned_sentence
from mal.labelers.file import path_for
from mal.sources import Split, label_join
from mal.stages import needs
from mal.stages.encoder import EncoderSource, attention_stage, clustering_stage, encoder_source
from mal.stages.segmenter import SegmenterStages


class Graph(SegmenterStages):
    """Which stages a run asks for."""

    def data(self) -> list[Stage]:
        """The stages that read and check the splits. They come first: what is wrong with the data is known at once."""
        if self.trains_nothing:
            return [self.boxes(self._val())]
        learned = self.labeler_train if self.learns else None
        return [self.boxes(split) for split in filter(None, (self.train, self.val, learned))]

    def targets(self) -> list[Stage]:
        """The stages a run asks for; their inputs follow from them."""
        if self.trains_nothing:
            scored = self.score(self.detect(self.published_segmenter()))
            return [*self.data(), scored]
        config, stages = self.config, self.data()
        for split in filter(None, (self.train, self.val)):
            compares = needs.compares(split, config)
            compared = config.compare if split.name == "val" and compares else []
            for name in dict.fromkeys([config.labeler.name, *compared]):
                if not self.labels(split.name, name):
                    continue
                labels = self.label(split, name)
                stages.append(self.quality(split, labels) if compares else labels)
        if self._trains_segmenters():
            trained = [self.human_segmenter()]
            if config.segmenter.mask_head:  # a detector without it is the same whatever the masks
                trained.append(self.train_segmenter(self.label(self.required_train, config.labeler.name)))
            scores = [self.score(self.detect(segmenter)) for segmenter in trained]
            stages += scores[:1] if len(scores) == 1 else [self.retention(scores[1], scores[0])]
            if self.test is not None and config.segmenter.mask_head:
                stages += [self.predict_test(segmenter, self.test) for segmenter in trained]
        if config.clustering.enabled and self.val is not None and needs.compares(self.val, config):
            stages.append(self.clustering())
        if config.attention.enabled and self.val is not None:
            stages.append(self.attention())
        return stages

    def notes(self) -> list[str]:
        """What this run leaves out, and why."""
        if self.trains_nothing:
            return ["segmenter.weights=published: nothing is trained or labelled, a published segmenter is evaluated"]
        notes = []
        if (file := self.config.segmenter.human_checkpoint) is not None and self._trains_segmenters():
            published = self.found_segmenter.printed
            what = self.found_segmenter.layout.title if published is None else published.name
            what = what if self.printed_here is None else self.printed_here.words
            notes.append(
                f"segmenter.human_checkpoint={file}: no segmenter is trained on human masks; {what} stands for it"
            )
        if small := self._stand_ins():
            notes.append(f"{self.config.experiment}: in place of the paper's models, small ones: {', '.join(small)}")
        for split in self._files():
            notes += needs.notes(split, self.config)
        for split in filter(None, (self.train, self.val)):
            if not split.has_masks and split.census is not None:
                notes.append(needs.without_masks(split) + self._lost_without_masks(split))
        notes += self._label_remarks()
        if self.val is None:
            notes.append(
                "no validation split is named (data.val.annotations, data.val.images): nothing is scored on one"
            )
        if self.config.labeler.name == "none":
            notes.append("labeler=none: the run makes no masks")
        elif self.config.segmenter.name == "none":
            notes.append("segmenter=none: the run ends at mask quality")
        looked_at = [part.encoder for part in (self.config.clustering, self.config.attention) if part.enabled]
        if "pretrained" in looked_at and not self.config.encoder.pretrained and self.config.encoder.checkpoint is None:
            notes.append(f"encoder={self.config.encoder.name} has no pre-trained weights: its features are random ones")
        return notes

    def _label_remarks(self) -> list[str]:
        """How another program's label files are joined to the boxes, where not simply by annotation id."""
        remarks = []
        for split in [s for s in (self.train, self.val) if s is not None and s.drawn is None]:
            named = [self.config.labeler.name, *(self.config.compare if split.name == "val" else [])]
            path = path_for(self.config.labeler, split.name) if "file" in named else None
            if path is not None:
                remarks.append(label_join(path, split, self.fingerprints)[1])
        return [remark for remark in remarks if remark]

    def _stand_ins(self) -> list[str]:
        """The small models that an experiment of the paper's uses in place of the paper's."""
        config = self.config
        if not (config.experiment or "").startswith(("tab", "fig")):
            return []
        models = {"encoder": config.encoder.name, "segmenter": config.segmenter.name}
        return [f"{group}={name}" for group, name in models.items() if name.endswith(("_nano", "_tiny"))]

    def censuses(self) -> list[str]:
        """What each split in files holds, in a line."""
        return [f"{name}: {words(split.census)}" for name, split in self._named_files() if split.census is not None]

    def check(self) -> None:
        """Refuse what would stop the run, or make it worthless, only after its trainings. Nothing is computed.

        Raises:
            AnnotationError, ConfigError.
        """
        config = self.config
        for split in self._files():
            needs.check_boxes(split)
        for split in filter(None, (self.train, self.val)):
            copied = [config.labeler.name, *(config.compare if split.name == "val" else [])]
            if "gt" in copied and not self.trains_nothing:
                purpose = "labeler gt copies them"
                needs.check_masks(split, purpose=purpose, way_out="or choose another labeler")
                needs.check_some_masks(split, purpose=purpose)
        if self.trains_nothing:
            needs.check_scores(self._val(), config)
        elif self._wants_segmenters():
            train, val = self.required_train, self.val
            if config.segmenter.mask_head:
                for split in filter(None, (train, val)):
                    needs.check_real_masks(split)
            if self._trains_segmenters() and val is not None:
                if config.segmenter.mask_head and config.segmenter.human_checkpoint is None:
                    needs.check_masks(train, purpose="a segmenter learns from all of them")
                needs.check_scores(val, config)
                if not config.data.class_agnostic:
                    needs.check_categories(train, val)
        elif self.val is not None:
            needs.check_selection(self.val, config)

    def turned_images(self) -> list[str]:
        """A note for each split whose images a viewer turns, so that boxes may have been drawn on another view of them
        than is read. At most `census.SEEN` headers are read for each."""
        found = []
        for name, split in self._named_files():
            if split.census is not None:
                sample = read_headers(split.census.sample, split.images)
                found += [f"{name}: {sentence}" for sentence in filter(None, [turned_sentence(sample)])]
        return found

    def _files(self) -> list[Split]:
        return [split for _, split in self._named_files()]

    def _named_files(self) -> list[tuple[str, Split]]:
        """The splits this run reads that are files of the user's, under their names in the config."""
        train, learned = self.train, self.labeler_train if self.learns and not self.trains_nothing else None
        named = [("train", train), ("val", self.val)]
        if learned is not None and learned != train:
            named.append(("train" if learned.dataset is None else "labeler_train", learned))
        return [(name, split) for name, split in named if split is not None and split.drawn is None]

    def _lost_without_masks(self, split: Split) -> str:
        """What a run does without because a split has no human masks."""
        if not self._wants_segmenters() or not self.config.segmenter.mask_head:
            return ""
        measured = ", nor to measure mask AP on" if split.name == "val" else ""
        return f"{measured}, so no segmenter is trained"

    def clustering(self) -> Stage:
        """Clustering score of the encoder's features (Eq. 6, Table 6)."""
        return clustering_stage(self.config, *self._looked_at(self.config.clustering.encoder), device=self.device)

    def attention(self) -> Stage:
        """Attention maps of the encoder's layers (Figure 5)."""
        return attention_stage(self.config, *self._looked_at(self.config.attention.encoder))

    def _looked_at(self, which: str) -> tuple[Split, Stage, EncoderSource]:
        """The validation images, their boxes, and the encoder as given or as trained here."""
        split, labeler = self._val(), self.train_labeler() if which == "trained" else None
        encoder = {"encoder": self.config.encoder.name}
        columns = labeler.columns if labeler is not None else {**self._columns(), **encoder}
        source = encoder_source(
            self.config, labeler, device=self.device, fingerprints=self.fingerprints, columns=columns
        )
        return split, self.boxes(split), source

    def _wants_segmenters(self) -> bool:
        """Whether the config asks for segmenters to be trained."""
        return not self.trains_nothing and "none" not in (self.config.segmenter.name, self.config.labeler.name)

    def _trains_segmenters(self) -> bool:
        """Whether they can be: with a mask head both splits need human masks, the training images' unless a published
        segmenter stands for one trained on them."""
        if not self._wants_segmenters() or self.val is None:
            return False
        human = self.required_train.has_masks or self.config.segmenter.human_checkpoint is not None
        return not self.config.segmenter.mask_head or (human and self.val.has_masks)
