"""The stage graph of a run: boxes → labeler → pseudo-labels → mask quality, segmenters → AP → retention."""

import dataclasses
import math
import shutil
from functools import cached_property
from pathlib import Path
from typing import Any

import torch

from mal import labelling, segmenters, shapes
from mal.annotations import CocoDict, check_images, read, strip, write
from mal.config import Config
from mal.encoder_stages import EncoderSource, attention_stage, clustering_stage, encoder_source
from mal.errors import AnnotationError, ConfigError, MalError
from mal.files import read_json, write_json
from mal.graph import Result, Stage, Workplace
from mal.labelers import file, sam
from mal.labelers.mal import load_networks
from mal.metrics.ap import average_precision
from mal.metrics.bootstrap import retention
from mal.metrics.masks import mask_quality, select_images
from mal.metrics.matches import MatchArrays
from mal.runtime import load_checkpoint
from mal.segmenters import published
from mal.sources import Split, files_split, unreadable
from mal.store import Fingerprints, Store
from mal.submission import write_submission
from mal.train import precision, train_labeler

Json = dict[str, Any]


class Graph:
    """Builds the stages of one run. Each method is one kind of stage: what defines it, and what it does.

    Args:
        config: checked.
        store: its root holds the cache of file fingerprints.
        device: decides the precision, which is part of a result's identity.
    """

    def __init__(self, config: Config, store: Store, device: torch.device) -> None:
        self.config, self.store, self.device = config, store, device
        self.fingerprints = Fingerprints(store.root)
        self.val: Split | None = self._split("val")
        self.test = None if config.data.format == "shapes" else files_split("test", config.data, self.fingerprints)
        if not self.trains_nothing:
            _ = self.train, self.labeler_train  # fail here where there is none

    @property
    def trains_nothing(self) -> bool:
        """Whether the run only evaluates a published segmenter."""
        return self.config.segmenter.name != "none" and self.config.segmenter.weights == "published"

    @cached_property
    def train(self) -> Split:
        """What segmenters learn from. A run that trains nothing needs none."""
        split = self._split("train")
        if split is None:
            raise MalError("this run has no training boxes; set data.train.annotations and data.train.images")
        return split

    @cached_property
    def labeler_train(self) -> Split:
        """What the labeler learns from. It is called `train` whichever data set it is: a labeler of COCO is the same
        whether COCO is labelled with it or LVIS."""
        other = files_split("labeler_train", self.config.data, self.fingerprints)
        if other is None:
            return self.train
        return dataclasses.replace(other, name="train", dataset=self.config.data.labeler_train.name)

    def data(self) -> list[Stage]:
        """The stages that read and check the splits. They come first: what is wrong with the data is known at once."""
        if self.trains_nothing:
            return [self.boxes(self._val())]
        name = self.config.labeler.name
        train = None if name == "none" else self.train
        learned = self.labeler_train if name == "mal" else None
        return [self.boxes(split) for split in filter(None, (train, self.val, learned))]

    def targets(self) -> list[Stage]:
        """The stages a run asks for; their inputs follow from them."""
        if self.trains_nothing:
            scored = self.score(self.detect(self.published_segmenter()))
            return [*self.data(), scored]
        config, stages = self.config, self.data()
        own = [] if config.labeler.name == "none" else [config.labeler.name]
        for split in filter(None, (self.train, self.val)):
            compared = config.compare if split.name == "val" and split.has_masks else []
            for name in dict.fromkeys([*own, *compared]):
                if not self.labels(split, name):
                    continue
                labels = self.label(split, name)
                stages.append(self.quality(split, labels) if split.has_masks else labels)
        if self._trains_segmenters():
            trained = [self.train_segmenter(None)]
            if config.segmenter.mask_head:  # a detector without it is the same whatever the masks
                trained.append(self.train_segmenter(self.label(self.train, config.labeler.name)))
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
        if not self.train.has_masks:
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

    def check_categories(self) -> None:
        """Refuse validation images whose categories no segmenter could learn; the stages of `data` must be done.

        Raises:
            AnnotationError: names the categories.
        """
        if not self._trains_segmenters() or self.config.data.class_agnostic:
            return
        stages = (self.boxes(self.train), self.boxes(self._val()))
        folders = [self.store.folder(stage.name, stage.key) for stage in stages]
        train, val = (read_json(folder / "boxes.json")["categories"] for folder in folders)
        known = {category["id"] for category in val}
        unknown = [f"{category['name']} (id {category['id']})" for category in train if category["id"] not in known]
        if unknown:
            raise AnnotationError(
                f"{self._val().annotations} lacks categories of {self.train.annotations}: {', '.join(unknown)}; give "
                "both splits the same list of categories, or set data.class_agnostic=true or segmenter=none"
            )

    # data

    def draw_shapes(self, split: str) -> Stage:
        """Procedural images with exact masks."""
        options = self.config.data.shapes
        count = options.train_images if split == "train" else options.val_images
        settings: Json = {"images": count, "size": options.size, "seed": options.seed, "split": split}

        def work(place: Workplace) -> Result:
            shapes.generate(place.folder, **settings)
            return Result(
                {"annotations": len(read_json(place.folder / "annotations.json")["annotations"])}, {"": count}
            )

        return Stage(f"shapes_{split}", 1, settings, work, columns=self._data_columns())

    def boxes(self, split: Split) -> Stage:
        """The box-only view: what phase 1 cannot read, it cannot cheat with."""
        skip = self.config.data.on_bad_image == "skip"

        def work(place: Workplace) -> Result:
            coco = strip(read(split.annotations, masks=split.has_masks))  # bad masks are to be known before training
            check_images(coco, split.images)
            bad = unreadable(coco, split.images, workers=self.config.train.workers) if skip else []
            write(place.folder / "boxes.json", {**coco, "unreadable_images": bad} if bad else coco)
            return Result({"boxes": len(coco["annotations"]), "unreadable_images": len(bad)}, {"": len(coco["images"])})

        sources, settings = dict(split.sources), {"skip_unreadable": skip}
        return Stage(f"boxes_{split.name}", 1, settings, work, split.inputs, sources, self._data_columns(split))

    # phase 1

    def train_labeler(self) -> Stage:
        """Student and teacher learn masks from the training boxes."""
        config, split = self.config, self.labeler_train
        settings = _plain(config, "seed", "encoder", "decoder", "roi", "augment", "loss", "crf", "train")
        for key in ("checkpoint_seconds", "stop_after", "workers"):  # how the work is done, not what comes out
            del settings["train"][key]
        del settings["roi"]["label_expansion"]
        for name in {"fc", "query"} - {config.decoder.name}:  # the sizes of decoders that are not used
            del settings["decoder"][name]
        settings["train"]["precision"] = str(precision(config.train.precision, self.device))
        sources = dict(split.sources)
        if settings["encoder"].pop("checkpoint"):
            sources["encoder"] = self.fingerprints.file(config.encoder.checkpoint or "")

        def work(place: Workplace) -> Result:
            coco = read_json(place.inputs["boxes"] / "boxes.json")
            figures = train_labeler(coco, split.images, config, folder=place.folder, device=place.device)
            return Result(figures, {"": int(figures["boxes"])})

        inputs = {"boxes": self.boxes(split)}
        columns = self._labeler_columns("mal") | self._columns(split)
        return Stage("train_labeler", 1, settings, work, inputs, sources, columns)

    def labels(self, split: Split, name: str) -> bool:
        """Whether a labeler has masks for a split: `file` may have them for one alone."""
        return name != "file" or file.path_for(self.config.labeler, split.name) is not None

    def label(self, split: Split, name: str) -> Stage:
        """A mask for every box."""
        config, sources = self.config, dict(split.sources)
        settings: Json = {"labeler": name, "on_bad_image": config.data.on_bad_image}
        inputs = {"boxes": self.boxes(split)}
        if name == "mal":
            inputs["labeler"] = self.train_labeler()
            settings |= {"label": _plain(config, "label")["label"], "label_expansion": config.roi.label_expansion}
            settings["precision"] = str(precision(config.train.precision, self.device))
            del settings["label"]["shard_images"], settings["label"]["batch"]
        elif name == "file":
            sources["labels"] = self.fingerprints.file(str(file.path_for(config.labeler, split.name)))
        elif name == "sam":
            weights = sam.weight_files(config.labeler.checkpoint)
            sources |= {path.name: self.fingerprints.file(path) for path in weights}
            settings |= {} if weights else {"checkpoint": config.labeler.checkpoint}

        def work(place: Workplace) -> Result:
            coco = read_json(place.inputs["boxes"] / "boxes.json")
            labels = labelling.label_dataset(
                coco,
                split.images,
                self._shard_labeler(name, split, coco, place),
                folder=place.folder,
                shard_images=config.label.shard_images,
                name=f"label {split.name} ({name})",
            )
            write(place.folder / "labels.json", labels)
            shutil.rmtree(place.folder / "shards", ignore_errors=True)
            flagged = sum(a.get("flagged", False) for a in labels["annotations"])
            return Result({"labels": len(labels["annotations"]), "flagged": flagged}, {"": len(labels["annotations"])})

        columns = self._labeler_columns(name)
        if name == "mal" and self.labeler_train.dataset is not None:
            columns["labeler"] = f"mal:{self.labeler_train.dataset}"  # MAL, trained on that
        return Stage(f"label_{split.name}", 1, settings, work, inputs, sources, columns)

    def quality(self, split: Split, labels: Stage) -> Stage:
        """IoU of the masks against human ones."""
        which = self.config.data.val_images if split.name == "val" else "all"

        def work(place: Workplace) -> Result:
            predicted = read_json(place.inputs["labels"] / "labels.json")
            metrics, instances = mask_quality(predicted, select_images(split.human(), which))
            instances.to_csv(place.folder / "instances.csv", index=False)
            counts = {
                name: int(metrics[f"n{name.removeprefix('iou')}"])
                for name in metrics
                if f"n{name.removeprefix('iou')}" in metrics
            }
            return Result(
                {k: v for k, v in metrics.items() if not k.startswith("n")}, {"": int(metrics["n"]), **counts}
            )

        inputs = {"labels": labels, **split.inputs}
        return Stage(f"quality_{split.name}", 1, {"images": which}, work, inputs, dict(split.sources), labels.columns)

    # phase 2

    def train_segmenter(self, labels: Stage | None) -> Stage:
        """A segmenter on pseudo-labels, or on human masks (labels=None): same seed, order and schedule."""
        config, split = self.config, self.train
        settings: Json = {"seed": config.seed, "segmenter": dataclasses.asdict(self._segmenter())}
        settings["segmenter"]["precision"] = str(precision(config.segmenter.precision, self.device))
        unread = [name for name, backends in segmenters.OWN_PARTS.items() if config.segmenter.backend not in backends]
        for key in ("running", "test", "weights", *unread):
            del settings["segmenter"][key]
        for key in ("test_short_side", "test_long_side"):
            del settings["segmenter"]["scale"][key]
        sources = dict(split.sources)
        if settings["segmenter"].pop("checkpoint"):
            sources["backbone"] = self.fingerprints.file(config.segmenter.checkpoint or "")

        def work(place: Workplace) -> Result:
            annotations = split.annotations if labels is None else place.inputs["labels"] / "labels.json"
            segmenters.backend(config.segmenter).train(
                annotations=self._readable(annotations, place),
                images=split.images,
                config=self._segmenter(),
                seed=config.seed,
                folder=place.folder,
                device=place.device,
            )
            return Result()

        inputs = {} if labels is None else {"labels": labels}
        inputs |= {**split.inputs, **self._skipped(split)}
        return Stage("train_segmenter", 1, settings, work, inputs, sources, self._segmenter_columns(labels))

    def published_segmenter(self) -> Stage:
        """Somebody else's trained segmenter, as training would have left it.

        Raises:
            ConfigError, WeightsError: there is none, its weights cannot be had, or the data is not COCO's.
        """
        config, val = self._segmenter(), self.val
        if val is None or val.drawn is not None or not val.has_masks:
            raise ConfigError(
                "segmenter.weights=published is measured on COCO's validation images with their masks; set data=coco "
                "and data.root, or data.val.annotations and data.val.images"
            )
        published.check_categories(read(val.annotations, masks=False), source=val.annotations)
        weights, whole = published.locate(config), dataclasses.asdict(config)
        parts = ("name", "backend", "pyramid", "proposals", "heads", "queries", "mask_head", "dcn")
        settings: Json = {"segmenter": {part: whole[part] for part in parts}}
        settings["segmenter"]["precision"] = str(precision(config.precision, self.device))

        def work(place: Workplace) -> Result:
            published.write(config, source=weights, folder=place.folder)
            return Result()

        sources = {"weights": self.fingerprints.file(weights)}
        columns = {**self._columns(), "segmenter": config.name, "supervision": "published"}
        return Stage("published_segmenter", 1, settings, work, {}, sources, columns)

    def detect(self, segmenter: Stage) -> Stage:
        """The segmenter's predictions on the validation images, in COCO's results format."""
        split, config = self._val(), self._segmenter()
        settings = {"test": dataclasses.asdict(config.test), "scale": dataclasses.asdict(config.scale)}

        def work(place: Workplace) -> Result:
            results = segmenters.backend(config).predict(
                checkpoint=place.inputs["segmenter"] / "segmenter.pt",
                annotations=self._readable(split.annotations, place),
                images=split.images,
                config=config,
                device=place.device,
            )
            if self.trains_nothing:
                results = published.known(results, read(split.annotations, masks=False))
            write_json(place.folder / "predictions.json", results)
            return Result({"predictions": len(results)})

        inputs = {"segmenter": segmenter, **split.inputs, **self._skipped(split)}
        return Stage("detect_val", 1, settings, work, inputs, dict(split.sources), segmenter.columns)

    def predict_test(self, segmenter: Stage, split: Split) -> Stage:
        """The segmenter's predictions on the test images, packed for COCO's evaluation server."""
        config = self._segmenter()
        settings = {"test": dataclasses.asdict(config.test), "scale": dataclasses.asdict(config.scale)}

        def work(place: Workplace) -> Result:
            results = segmenters.backend(config).predict(
                checkpoint=place.inputs["segmenter"] / "segmenter.pt",
                annotations=split.annotations,
                images=split.images,
                config=config,
                device=place.device,
            )
            by = segmenter.columns.get("labeler", "human")
            algorithm = f"{segmenter.columns['segmenter']}-{by}-{place.folder.name[:8]}"
            packed = write_submission(results, place.folder, images=split.annotations, algorithm=algorithm)
            return Result({"predictions": len(results), "megabytes": packed.stat().st_size / 1e6})

        inputs = {"segmenter": segmenter}
        return Stage("predictions_test", 1, settings, work, inputs, dict(split.sources), segmenter.columns)

    def score(self, predictions: Stage) -> Stage:
        """AP of masks and boxes, and the per-image matches behind it."""
        split, which = self._val(), self.config.data.val_images
        agnostic, limit = self.config.data.class_agnostic, self.config.segmenter.test.max_detections
        settings = {"images": which, "class_agnostic": agnostic, "max_detections": limit}
        federated = self.config.data.format == "lvis"
        settings |= {"federated": True} if federated else {}
        kinds = (("segm", "mask"), ("bbox", "box")) if self.config.segmenter.mask_head else (("bbox", "box"),)

        def work(place: Workplace) -> Result:
            human = select_images(read(self._readable(split.annotations, place), masks=True), which)
            kept = {image["id"] for image in human["images"]}
            results = [r for r in read_json(place.inputs["predictions"] / "predictions.json") if r["image_id"] in kept]
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
        return Stage("ap_val", 1, settings, work, inputs, dict(split.sources), predictions.columns)

    def retention(self, pseudo: Stage, human: Stage) -> Stage:
        """Mask AP with pseudo-labels ÷ mask AP with human masks, and its paired bootstrap interval over images."""
        settings = {"resamples": self.config.evaluate.bootstrap, "seed": self.config.seed}

        def work(place: Workplace) -> Result:
            both = [MatchArrays.load(place.inputs[name] / "matches_segm.npz") for name in ("pseudo", "human")]
            interval = retention(*both, resamples=settings["resamples"], seed=settings["seed"])
            figures = {"retention": interval.value, "retention_low": interval.low, "retention_high": interval.high}
            finite = all(map(math.isfinite, figures.values()))  # not where the human-mask AP is 0
            return Result(figures if finite else {}, {"": len(both[0].image_ids)})

        return Stage("retention", 1, settings, work, {"pseudo": pseudo, "human": human}, columns=pseudo.columns)

    # the encoder alone

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

    # what the stages above share

    def _split(self, name: str) -> Split | None:
        if self.config.data.format != "shapes":
            return files_split(name, self.config.data, self.fingerprints)
        drawn = self.draw_shapes(name)
        folder = self.store.folder(drawn.name, drawn.key)
        return Split(name, folder / "annotations.json", folder / "images", has_masks=True, drawn=drawn)

    def _val(self) -> Split:
        if self.val is None:
            raise MalError("there is nothing to score on; set data.val.annotations=FILE and data.val.images=FOLDER")
        return self.val

    def _trains_segmenters(self) -> bool:
        if self.trains_nothing:
            return False
        masks = self.train.has_masks and self.val is not None and self.val.has_masks
        return masks and "none" not in (self.config.segmenter.name, self.config.labeler.name)

    def _skipped(self, split: Split) -> dict[str, Stage]:
        """The stage that knows which images cannot be read, as an input of what must do without them."""
        return {"boxes": self.boxes(split)} if self.config.data.on_bad_image == "skip" else {}

    def _readable(self, annotations: Path, place: Workplace) -> Path:
        """The file, or a copy without the images that `data.on_bad_image=skip` skips: AP does not count them."""
        boxes = place.inputs.get("boxes")
        bad = set(read_json(boxes / "boxes.json").get("unreadable_images", ())) if boxes else set()
        if not bad:
            return annotations
        coco = read_json(annotations)
        images = [image for image in coco["images"] if image["id"] not in bad]
        kept = [annotation for annotation in coco["annotations"] if annotation["image_id"] not in bad]
        write(place.folder / "readable.json", {**coco, "images": images, "annotations": kept})
        return place.folder / "readable.json"

    def _segmenter(self) -> Any:
        return dataclasses.replace(self.config.segmenter, class_agnostic=self.config.data.class_agnostic)

    def _shard_labeler(self, name: str, split: Split, coco: CocoDict, place: Workplace) -> labelling.ShardLabeler:
        if name == "gt":
            return labelling.human_labeler(split.human())
        if name == "file":
            path = file.path_for(self.config.labeler, split.name)
            assert path is not None  # `labels` says so
            return labelling.file_labeler(path, coco)
        if name == "sam":
            return labelling.image_labeler(sam.Sam(self.config.labeler.checkpoint, place.device).masks)
        if name != "mal":
            return labelling.baseline_labeler(name)
        networks = load_networks(load_checkpoint(place.inputs["labeler"] / "labeler.pt"), self.config, place.device)
        return labelling.mal_labeler(networks, self.config, place.device)

    def _data_columns(self, split: Split | None = None) -> Json:
        return {"profile": self.config.profile, "data": (split and split.dataset) or self.config.data.name}

    def _columns(self, split: Split | None = None) -> Json:
        return {**self._data_columns(split), "seed": self.config.seed}

    def _labeler_columns(self, name: str) -> Json:
        config = self.config
        learned = {
            "recipe": config.recipe,
            "encoder": config.encoder.name,
            "decoder": config.decoder.name,
            "theta": config.roi.theta,
        }
        return (
            {**self._columns(), "labeler": name, **learned}
            if name == "mal"
            else {**self._data_columns(), "labeler": name}
        )

    def _segmenter_columns(self, labels: Stage | None) -> Json:
        columns = self._columns() if labels is None else {**labels.columns, "seed": self.config.seed}
        segmenter = self.config.segmenter
        supervision = "pseudo" if labels is not None else "human" if segmenter.mask_head else "boxes"
        return {**columns, "segmenter": segmenters.title(segmenter), "supervision": supervision}


def _plain(config: Config, *names: str) -> Json:
    """Parts of the config as plain values."""
    whole = dataclasses.asdict(config)
    return {name: whole[name] for name in names}
