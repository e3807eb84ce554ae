"""The stage graph of a run: boxes → labeler → pseudo-labels → mask quality, segmenters → AP → retention.

Each file holds the stages of one part, in the order of the data's flow: data, labeler, segmenter, encoder.
"""

from mal.errors import AnnotationError
from mal.files import read_json
from mal.graph import Stage
from mal.sources import Split
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
            compared = config.compare if split.name == "val" and split.has_masks else []
            for name in dict.fromkeys([config.labeler.name, *compared]):
                if not self.labels(split.name, name):
                    continue
                labels = self.label(split, name)
                stages.append(self.quality(split, labels) if split.has_masks else labels)
        if self._trains_segmenters():
            trained = [self.train_segmenter(None)]
            if config.segmenter.mask_head:  # a detector without it is the same whatever the masks
                trained.append(self.train_segmenter(self.label(self.required_train, config.labeler.name)))
            scores = [self.score(self.detect(segmenter)) for segmenter in trained]
            stages += scores[:1] if len(scores) == 1 else [self.retention(scores[1], scores[0])]
            if self.test is not None and config.segmenter.mask_head:
                stages += [self.predict_test(segmenter, self.test) for segmenter in trained]
        if config.clustering.enabled and self.val is not None and self.val.has_masks:
            stages.append(self.clustering())
        if config.attention.enabled and self.val is not None:
            stages.append(self.attention())
        return stages

    def notes(self) -> list[str]:
        """What this run leaves out, and why."""
        if self.trains_nothing:
            return ["segmenter.weights=published: nothing is trained or labelled, a published segmenter is evaluated"]
        notes = []
        if small := self._stand_ins():
            notes.append(f"{self.config.experiment}: in place of the paper's models, small ones: {', '.join(small)}")
        if self.train is not None and not self.train.has_masks:
            notes.append(
                f"{self.train.annotations} has boxes only: no masks to compare with, so no segmenter is trained"
            )
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

    def _stand_ins(self) -> list[str]:
        """The small models that an experiment of the paper's uses in place of the paper's."""
        config = self.config
        if not (config.experiment or "").startswith(("tab", "fig")):
            return []
        models = {"encoder": config.encoder.name, "segmenter": config.segmenter.name}
        return [f"{group}={name}" for group, name in models.items() if name.endswith(("_nano", "_tiny"))]

    def check_categories(self) -> None:
        """Refuse validation images whose categories no segmenter could learn; the stages of `data` must be done.

        Raises:
            AnnotationError: names the categories.
        """
        if not self._trains_segmenters() or self.config.data.class_agnostic:
            return
        train, val = self.required_train, self._val()
        stages = (self.boxes(train), self.boxes(val))
        folders = [self.store.folder(stage.name, stage.key) for stage in stages]
        learned, scored = (read_json(folder / "boxes.json")["categories"] for folder in folders)
        known = {category["id"] for category in scored}
        unknown = [f"{category['name']} (id {category['id']})" for category in learned if category["id"] not in known]
        if unknown:
            raise AnnotationError(
                f"{val.annotations} lacks categories of {train.annotations}: {', '.join(unknown)}; give "
                "both splits the same list of categories, or set data.class_agnostic=true or segmenter=none"
            )

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

    def _trains_segmenters(self) -> bool:
        if self.trains_nothing or "none" in (self.config.segmenter.name, self.config.labeler.name):
            return False
        return self.required_train.has_masks and self.val is not None and self.val.has_masks
