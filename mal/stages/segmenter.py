"""Phase 2: pseudo-labels or human masks → segmenter → predictions → AP → retention."""

import dataclasses
import math
from collections.abc import Callable
from functools import cached_property
from typing import Any

from mal import ranks, segmenters
from mal.annotations import read
from mal.errors import ConfigError
from mal.files import read_json, write_json
from mal.graph import Result, Stage, Workplace
from mal.metrics.ap import average_precision
from mal.metrics.bootstrap import retention
from mal.metrics.masks import select_images
from mal.metrics.matches import MatchArrays
from mal.precision import network_dtype
from mal.remembered import remembered
from mal.segmenters import published
from mal.segmenters.published_zoo import Printed, is_measured_on
from mal.sources import Split
from mal.stages.data import Json
from mal.stages.labeler import LabelerStages
from mal.stages.settings import without, without_former
from mal.submission import write_submission

PUBLISHED = "published_segmenter"
HUMAN_MASKS = "human masks"  # a retention's denominator where no published file stands for a segmenter trained on them


class SegmenterStages(LabelerStages):
    """The stages of phase 2."""

    def human_segmenter(self) -> Stage:
        """What stands for human masks: a segmenter trained on them here, or a published one
        (`segmenter.human_checkpoint`)."""
        given = self.config.segmenter.human_checkpoint
        return self.train_segmenter(None) if given is None else self.published_segmenter()

    def train_segmenter(self, labels: Stage | None) -> Stage:
        """A segmenter on pseudo-labels, or on human masks (labels=None): same seed, order and schedule."""
        config, split = self.config, self.required_train
        settings: Json = {"seed": config.seed, "segmenter": dataclasses.asdict(self._segmenter())}
        settings["segmenter"]["precision"] = str(network_dtype(config.segmenter.precision, self.device))
        unread = [name for name, backends in segmenters.OWN_PARTS.items() if config.segmenter.backend not in backends]
        at_test = ("test", "scale.test_short_side", "scale.test_long_side")
        without(settings["segmenter"], "running", "weights", "human_checkpoint", *at_test, *unread)
        without_former(settings)
        if config.segmenter.backend == "transformers":
            # its heads once started as the installed version of the library has them, from other draws
            settings["segmenter"]["queries"]["start"] = "ours"
        sources = dict(split.sources)
        if settings["segmenter"].pop("checkpoint"):
            sources["backbone"] = self.fingerprints.file(config.segmenter.checkpoint or "")

        def work(place: Workplace) -> Result:
            pseudo = None if labels is None else place.inputs["labels"] / "labels.json"
            segmenters.backend(config.segmenter).train(
                annotations=self._readable(split, place, pseudo),
                images=split.images,
                config=self._segmenter(),
                seed=config.seed,
                folder=place.folder,
                device=place.device,
            )
            return Result()

        inputs = {} if labels is None else {"labels": labels}
        inputs |= {**split.inputs, **self._skipped(split)}
        return Stage(
            "train_segmenter", 1, settings, work, inputs, sources, self._segmenter_columns(labels), shared=True
        )

    def published_segmenter(self) -> Stage:
        """Somebody else's trained segmenter, as training would have left it.

        Raises:
            ConfigError, WeightsError: there is none, its weights cannot be had, or the data is not COCO's.
        """
        val = self.val
        if val is None or val.drawn is not None or not val.has_masks:
            raise ConfigError(
                "segmenter.weights=published is measured on COCO's validation images with their masks, or on LVIS v1's "
                "where the model is one of LVIS; set data=coco or data=lvis and data.root, or data.val.annotations "
                "and data.val.images"
            )
        found, config = self.found_segmenter, self._published()
        if val.census is not None:
            categories = [dataclasses.asdict(category) for category in val.census.categories]
            classes = found.facts["classes"]
            published.check_categories({"categories": categories}, source=val.annotations, classes=classes)
        whole = dataclasses.asdict(config)
        parts = ["name", "backend", "pyramid", "proposals", "heads", "queries", "mask_head", "dcn"]
        if config.weights == published.CONVERTED:
            parts += ["cascade", "grid"]
        settings: Json = {"segmenter": {part: whole[part] for part in parts}}
        settings["segmenter"]["precision"] = str(network_dtype(config.precision, self.device))
        without(settings["segmenter"], *segmenters.TO_TRAIN)
        without_former(settings)

        def work(place: Workplace) -> Result:
            published.write(self._published_as_given(), found=found, folder=place.folder)
            return Result()

        sources = {"weights": self.fingerprints.file(found.file)}
        columns = {**self._columns(), "segmenter": segmenters.title(config), "supervision": "published"}
        columns["published_file"] = found.name
        return Stage(PUBLISHED, 1, settings, work, {}, sources, columns)

    def detect(self, segmenter: Stage) -> Stage:
        """The segmenter's predictions on the validation images, in COCO's results format."""
        split, config = self._val(), self._config_of(segmenter)
        settings = {"test": dataclasses.asdict(config.test), "scale": dataclasses.asdict(config.scale)}

        def work(place: Workplace) -> Result:
            results = segmenters.backend(config).predict(
                checkpoint=place.inputs["segmenter"] / "segmenter.pt",
                annotations=self._readable(split, place),
                images=split.images,
                config=config,
                device=place.device,
            )
            if segmenter.name == PUBLISHED:
                results = published.known(results, read(split.annotations, masks=False))
            ranks.on_first(lambda: write_json(place.folder / "predictions.json", results))
            return Result({"predictions": len(results)})

        inputs = {"segmenter": segmenter, **split.inputs, **self._skipped(split)}
        return Stage("detect_val", 1, settings, work, inputs, dict(split.sources), segmenter.columns, shared=True)

    def predict_test(self, segmenter: Stage, split: Split) -> Stage:
        """The segmenter's predictions on the test images, packed for COCO's evaluation server."""
        config = self._config_of(segmenter)
        settings = {"test": dataclasses.asdict(config.test), "scale": dataclasses.asdict(config.scale)}

        def work(place: Workplace) -> Result:
            results = segmenters.backend(config).predict(
                checkpoint=place.inputs["segmenter"] / "segmenter.pt",
                annotations=split.annotations,
                images=split.images,
                config=config,
                device=place.device,
            )
            by = segmenter.columns.get("labeler", "published" if segmenter.name == PUBLISHED else "human")
            algorithm = f"{segmenter.columns['segmenter']}-{by}-{place.folder.name[:8]}"
            packed = ranks.on_first(
                lambda: write_submission(results, place.folder, images=split.annotations, algorithm=algorithm)
            )
            return Result({"predictions": len(results), "megabytes": packed.stat().st_size / 1e6})

        inputs = {"segmenter": segmenter}
        return Stage("predictions_test", 1, settings, work, inputs, dict(split.sources), segmenter.columns, shared=True)

    def score(self, predictions: Stage) -> Stage:
        """AP of masks and boxes, and the per-image matches behind it."""
        split, which = self._val(), self.config.data.val_images
        agnostic, limit = self.config.data.class_agnostic, self.config.segmenter.test.max_detections
        settings = {"images": which, "class_agnostic": agnostic, "max_detections": limit}
        federated = self.config.data.format == "lvis"
        settings |= {"federated": True} if federated else {}
        kinds = (("segm", "mask"), ("bbox", "box")) if self.config.segmenter.mask_head else (("bbox", "box"),)

        def work(place: Workplace) -> Result:
            masks = self.config.segmenter.mask_head
            human = select_images(read(self._readable(split, place), masks=masks), which)
            kept = {image["id"] for image in human["images"]}
            listed = {category["id"] for category in human["categories"]}
            # a category that only the training images list has no object there: nothing learned it
            results = [
                r
                for r in read_json(place.inputs["predictions"] / "predictions.json")
                if r["image_id"] in kept and (agnostic or r["category_id"] in listed)
            ]
            metrics: dict[str, float] = {}
            for kind, prefix in kinds:
                figures, matches = average_precision(
                    human,
                    results,
                    iou_type=kind,
                    max_detections=limit,
                    class_agnostic=agnostic,
                    federated=federated,
                )
                matches.save(place.folder / f"matches_{kind}.npz")
                metrics |= {f"{prefix}_{name}": value for name, value in figures.items()}
            return Result(metrics, {"": len(kept)})

        inputs = {"predictions": predictions, **split.inputs, **self._skipped(split)}
        columns = dict(predictions.columns)
        if columns["supervision"] == "published" and (printed := self.printed_here) is not None:
            columns |= {"printed_mask_ap": printed.mask_ap, "printed_by": printed.words}
        return Stage("ap_val", 1, settings, work, inputs, dict(split.sources), columns)

    def retention(self, pseudo: Stage, human: Stage) -> Stage:
        """Mask AP with pseudo-labels ÷ mask AP with human masks, and its paired bootstrap interval over images."""
        settings = {"resamples": self.config.evaluate.bootstrap, "seed": self.config.seed}

        def work(place: Workplace) -> Result:
            both = [MatchArrays.load(place.inputs[name] / "matches_segm.npz") for name in ("pseudo", "human")]
            interval = retention(*both, resamples=settings["resamples"], seed=settings["seed"])
            figures = {"retention": interval.value, "retention_low": interval.low, "retention_high": interval.high}
            finite = all(map(math.isfinite, figures.values()))  # not where the human-mask AP is 0
            return Result(figures if finite else {}, {"": len(both[0].image_ids)})

        columns = {**pseudo.columns, "denominator": human.columns.get("published_file", HUMAN_MASKS)}
        return Stage("retention", 1, settings, work, {"pseudo": pseudo, "human": human}, columns=columns)

    @cached_property
    def found_segmenter(self) -> published.Found:
        """The published segmenter that is evaluated.

        Raises:
            ConfigError, WeightsError: there is none, or its weights cannot be had.
        """
        config = self._published_as_given()
        file = published.locate(config)

        def remember(compute: Callable[[], Any]) -> Any:
            return ranks.on_first(lambda: remembered("published", 1, [file], compute, self.fingerprints))

        return published.identify(config, file, remember=remember)

    @property
    def printed_here(self) -> Printed | None:
        """What is printed of the published segmenter, where it is evaluated on what the printed AP was measured on."""
        printed, data = self.found_segmenter.printed, self.config.data
        if printed is None or data.val_images != "all" or data.class_agnostic or data.on_bad_image == "skip":
            return None
        census, federated = self._val().census, data.format == "lvis"
        return printed if is_measured_on(printed, census, federated=federated) else None

    def _segmenter(self) -> Any:
        return dataclasses.replace(self.config.segmenter, class_agnostic=self.config.data.class_agnostic)

    def _published_as_given(self) -> Any:
        config = self._segmenter()
        if config.human_checkpoint is None:
            return config
        return dataclasses.replace(config, weights="published", checkpoint=config.human_checkpoint)

    def _published(self) -> Any:
        """The published segmenter's config, fitted to its file."""
        return self.found_segmenter.fitted(self._published_as_given())

    def _config_of(self, segmenter: Stage) -> Any:
        return self._published() if segmenter.name == PUBLISHED else self._segmenter()

    def _segmenter_columns(self, labels: Stage | None) -> Json:
        columns = self._columns() if labels is None else {**labels.columns, "seed": self.config.seed}
        segmenter = self.config.segmenter
        supervision = "pseudo" if labels is not None else "human" if segmenter.mask_head else "boxes"
        return {**columns, "segmenter": segmenters.title(segmenter), "supervision": supervision}
