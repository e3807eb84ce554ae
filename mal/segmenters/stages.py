"""Phase 2: pseudo-labels or human masks → segmenter → predictions."""

import dataclasses
from collections.abc import Callable
from functools import cached_property
from typing import Any

from mal import segmenters
from mal.context import Context, Json
from mal.data.annotations import read as read_annotations
from mal.data.remembered import remembered
from mal.data.sources import Split
from mal.data.stages import readable
from mal.data.submission import write_submission
from mal.engine import ranks
from mal.engine.files import write_json
from mal.engine.graph import Result, Stage, Workdir
from mal.engine.precision import network_dtype
from mal.engine.settings import settings
from mal.errors import ConfigError
from mal.segmenters import published, reads
from mal.segmenters.backends import BACKENDS
from mal.segmenters.published import Found
from mal.segmenters.published.setting import asked
from mal.segmenters.published.zoo import Printed, is_measured_on

PUBLISHED = "published_segmenter"


class Segmenters:
    """The stages of one run's segmenters."""

    def __init__(self, context: Context) -> None:
        self.context = context

    def human(self) -> Stage:
        """What stands for human masks: a segmenter trained on them here, or a published one
        (`segmenter.human_checkpoint`). Without a mask head nothing can: that detector learns from boxes."""
        segmenter = self.context.config.segmenter
        given = segmenter.human_checkpoint is not None and segmenter.mask_head
        return self.published() if given else self.train(None)

    def train(self, labels: Stage | None) -> Stage:
        """A segmenter on pseudo-labels, or on human masks (labels=None): same seed, order and schedule."""
        context, config, split = self.context, self.context.config, self.context.train
        backend = BACKENDS[config.segmenter.backend]
        read = {**reads.TRAINING, **backend.reads}
        found: Json = {"seed": config.seed, "segmenter": settings(self._trained(), read, former=reads.FORMER)}
        found["segmenter"]["precision"] = str(network_dtype(config.segmenter.precision, context.device))
        for part, marks in backend.marks.items():
            found["segmenter"][part] |= marks
        sources = dict(split.sources)
        if config.segmenter.checkpoint:
            sources["backbone"] = context.fingerprints.file(config.segmenter.checkpoint)

        def work(workdir: Workdir) -> Result:
            from mal.segmenters import training  # and torchvision, which a dry run need not wait for

            pseudo = None if labels is None else workdir.inputs["labels"] / "labels.json"
            training.train(
                annotations=readable(split, workdir, pseudo),
                images=split.images,
                config=self._trained(),
                seed=config.seed,
                folder=workdir.folder,
                device=workdir.device,
            )
            return Result()

        inputs = {} if labels is None else {"labels": labels}
        inputs |= {**split.inputs, **context.skipped(split)}
        return Stage("train_segmenter", 1, found, work, inputs, sources, self._columns(labels), shared=True)

    def published(self) -> Stage:
        """Somebody else's trained segmenter, as training would have left it.

        Raises:
            ConfigError, WeightsError: there is none, its weights cannot be had, or the data is not COCO's.
        """
        val, by = self.context.val, asked(self.context.config.segmenter)
        if val is None or val.drawn is not None or not val.has_masks:
            raise ConfigError(
                f"{by.by} is measured on COCO's validation images with their masks, or on LVIS v1's where the model is "
                "one of LVIS; set data=coco or data=lvis and data.root, or data.val.annotations and data.val.images"
            )
        found, config = self.found, self._fitted()
        if val.census is not None:
            categories = [dataclasses.asdict(category) for category in val.census.categories]
            classes = found.facts["classes"]
            published.check_categories({"categories": categories}, source=val.annotations, classes=classes, by=by)
        read = reads.CONVERTED if config.weights == published.CONVERTED else reads.PUBLISHED
        chosen = {"segmenter": settings(config, read, former=reads.FORMER)}
        chosen["segmenter"]["precision"] = str(network_dtype(config.precision, self.context.device))

        def work(workdir: Workdir) -> Result:
            published.write(self._as_given(), found=found, folder=workdir.folder)
            return Result()

        sources = {"weights": self.context.fingerprints.file(found.file)}
        columns = {**self.context.columns(), "segmenter": segmenters.title(config), "supervision": "published"}
        columns["published_file"] = found.name
        return Stage(PUBLISHED, 1, chosen, work, {}, sources, columns)

    def detect(self, segmenter: Stage) -> Stage:
        """The segmenter's predictions on the validation images, in COCO's results format."""
        context, config = self.context, self._config_of(segmenter)
        split = context.required_val
        read = settings(config, reads.PREDICTION)

        def work(workdir: Workdir) -> Result:
            from mal.segmenters import inference

            results = inference.predict(
                checkpoint=workdir.inputs["segmenter"] / "segmenter.pt",
                annotations=readable(split, workdir),
                images=split.images,
                config=config,
                device=workdir.device,
            )
            if segmenter.name == PUBLISHED:
                results = published.known(results, read_annotations(split.annotations, masks=False))
            ranks.on_first(lambda: write_json(workdir.folder / "predictions.json", results))
            return Result({"predictions": len(results)})

        inputs = {"segmenter": segmenter, **split.inputs, **context.skipped(split)}
        return Stage("detect_val", 1, read, work, inputs, dict(split.sources), segmenter.columns, shared=True)

    def predict_test(self, segmenter: Stage, split: Split) -> Stage:
        """The segmenter's predictions on the test images, packed for COCO's evaluation server."""
        config = self._config_of(segmenter)
        read = settings(config, reads.PREDICTION)

        def work(workdir: Workdir) -> Result:
            from mal.segmenters import inference

            results = inference.predict(
                checkpoint=workdir.inputs["segmenter"] / "segmenter.pt",
                annotations=split.annotations,
                images=split.images,
                config=config,
                device=workdir.device,
            )
            by = segmenter.columns.get("labeler", "published" if segmenter.name == PUBLISHED else "human")
            algorithm = f"{segmenter.columns['segmenter']}-{by}-{workdir.folder.name[:8]}"
            packed = ranks.on_first(
                lambda: write_submission(results, workdir.folder, images=split.annotations, algorithm=algorithm)
            )
            return Result({"predictions": len(results), "megabytes": packed.stat().st_size / 1e6})

        inputs = {"segmenter": segmenter}
        return Stage("predictions_test", 1, read, work, inputs, dict(split.sources), segmenter.columns, shared=True)

    @cached_property
    def found(self) -> Found:
        """The published segmenter that is evaluated.

        Raises:
            ConfigError, WeightsError: there is none, or its weights cannot be had.
        """
        config = self._as_given()
        file = published.locate(config)

        def remember(compute: Callable[[], Any]) -> Any:
            return ranks.on_first(lambda: remembered("published", 2, [file], compute, self.context.fingerprints))

        return published.identify(config, file, remember=remember)

    @property
    def printed_here(self) -> Printed | None:
        """What is printed of the published segmenter, where it is evaluated on what the printed AP was measured on."""
        printed, data = self.found.printed, self.context.config.data
        if printed is None or data.val_images != "all" or data.class_agnostic or data.on_bad_image == "skip":
            return None
        census, federated = self.context.required_val.census, data.format == "lvis"
        return printed if is_measured_on(printed, census, federated=federated) else None

    def printed_columns(self, segmenter: Stage) -> Json:
        """What a table says of a printed AP beside that of a published segmenter."""
        if segmenter.name != PUBLISHED or (printed := self.printed_here) is None:
            return {}
        return {"printed_mask_ap": printed.mask_ap, "printed_by": printed.words}

    def _trained(self) -> Any:
        config = self.context.config
        return dataclasses.replace(config.segmenter, class_agnostic=config.data.class_agnostic)

    def _as_given(self) -> Any:
        config = self._trained()
        if config.human_checkpoint is None:
            return config
        return dataclasses.replace(config, weights="published", checkpoint=config.human_checkpoint)

    def _fitted(self) -> Any:
        """The published segmenter's config, fitted to its file."""
        return self.found.fitted(self._as_given())

    def _config_of(self, segmenter: Stage) -> Any:
        return self._fitted() if segmenter.name == PUBLISHED else self._trained()

    def _columns(self, labels: Stage | None) -> Json:
        columns = self.context.columns() if labels is None else {**labels.columns, "seed": self.context.config.seed}
        segmenter = self.context.config.segmenter
        supervision = "pseudo" if labels is not None else "human" if segmenter.mask_head else "boxes"
        return {**columns, "segmenter": segmenters.title(segmenter), "supervision": supervision}
