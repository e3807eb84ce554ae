"""Phase 1: boxes → labeler → pseudo-labels → mask quality."""

from mal.data.annotations import CocoDict, write
from mal.data.sources import Split, label_join
from mal.engine import ranks
from mal.engine.files import read_json, write_csv
from mal.engine.graph import Result, Stage, Workplace
from mal.engine.precision import network_dtype
from mal.engine.runtime import load_checkpoint
from mal.methods.baselines import baseline_labeler, file, sam
from mal.methods.baselines.gt import human_labeler
from mal.methods.labelling import ShardLabeler, image_labeler, label_dataset
from mal.methods.mal.label import mal_labeler
from mal.methods.mal.network import load_networks
from mal.methods.mal.shipped import labeler_path
from mal.methods.mal.train import train_labeler
from mal.metrics.masks import mask_quality, select_images
from mal.stages.data import DataStages, Json
from mal.stages.settings import plain, without

# how the work is done, not what it gives
HOW = ("train.checkpoint_seconds", "train.stop_after", "train.workers", "train.compile", "crf.backend")


class LabelerStages(DataStages):
    """The stages of phase 1."""

    def train_labeler(self) -> Stage:
        """Student and teacher learn masks from the training boxes."""
        config, split = self.config, self.labeler_train
        settings = plain(config, "seed", "encoder", "decoder", "roi", "augment", "loss", "crf", "train")
        unused = [f"decoder.{name}" for name in ("fc", "query") if name != config.decoder.name]
        without(settings, *HOW, "roi.label_expansion", *unused)
        if "swin" in config.encoder.timm:
            # a Swin's teacher once averaged its table of relative positions: those results alone are others
            settings["encoder"]["whole_numbers"] = "copied"
        settings["train"]["precision"] = str(network_dtype(config.train.precision, self.device))
        sources = dict(split.sources)
        if settings["encoder"].pop("checkpoint"):
            sources["encoder"] = self.fingerprints.file(config.encoder.checkpoint or "")
        if start := settings["train"].pop("start"):
            sources["start"] = self.fingerprints.file(labeler_path(start))

        def work(place: Workplace) -> Result:
            coco = read_json(place.inputs["boxes"] / "boxes.json")
            figures = train_labeler(coco, split.images, config, folder=place.folder, device=place.device)
            return Result(figures, {"": int(figures["boxes"])})

        inputs = {"boxes": self.boxes(split)}
        columns = self._labeler_columns("mal") | self._columns(split)
        return Stage("train_labeler", 1, settings, work, inputs, sources, columns, shared=True)

    def label(self, split: Split, name: str) -> Stage:
        """A mask for every box."""
        config, sources = self.config, dict(split.sources)
        settings: Json = {"labeler": name, "on_bad_image": config.data.on_bad_image}
        inputs = {"boxes": self.boxes(split)}
        if name == "mal":
            inputs["labeler"] = self.train_labeler()
            settings |= {"label": plain(config, "label")["label"], "label_expansion": config.roi.label_expansion}
            settings["precision"] = str(network_dtype(config.train.precision, self.device))
            without(settings, "label.shard_images", "label.batch")
        elif name == "file":
            path = file.path_for(config.labeler, split.name)
            assert path is not None  # `labels` says so
            sources["labels"] = self.fingerprints.file(path)
            if split.drawn is None and not label_join(path, split, self.fingerprints)[0]:
                settings["joined"] = "by box"  # results from before labels were looked at were of other boxes
        elif name == "sam":
            weights = sam.weight_files(config.labeler.checkpoint)
            sources |= {path.name: self.fingerprints.file(path) for path in weights}
            settings |= {} if weights else {"checkpoint": config.labeler.checkpoint}

        def work(place: Workplace) -> Result:
            coco = read_json(place.inputs["boxes"] / "boxes.json")
            labels = label_dataset(
                coco,
                split.images,
                self._shard_labeler(name, split, coco, place),
                folder=place.folder,
                shard_images=config.label.shard_images,
                name=f"label {split.name} ({name})",
            )
            ranks.on_first(lambda: write(place.folder / "labels.json", labels))
            flagged = sum(a.get("flagged", False) for a in labels["annotations"])
            return Result({"labels": len(labels["annotations"]), "flagged": flagged}, {"": len(labels["annotations"])})

        columns = self._labeler_columns(name)
        if name == "mal" and self.labeler_train.dataset is not None:
            columns["labeler"] = f"mal:{self.labeler_train.dataset}"  # MAL, trained on that
        shared = name in ("mal", "sam")
        return Stage(f"label_{split.name}", 1, settings, work, inputs, sources, columns, shared=shared)

    def quality(self, split: Split, labels: Stage) -> Stage:
        """IoU of the masks against human ones."""
        which = self.config.data.val_images if split.name == "val" else "all"

        def work(place: Workplace) -> Result:
            predicted = read_json(place.inputs["labels"] / "labels.json")
            metrics, instances = mask_quality(predicted, select_images(split.human(), which))
            write_csv(place.folder / "instances.csv", instances)
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

    def _shard_labeler(self, name: str, split: Split, coco: CocoDict, place: Workplace) -> ShardLabeler:
        if name == "gt":
            return human_labeler(split.human())
        if name == "file":
            path = file.path_for(self.config.labeler, split.name)
            assert path is not None
            return file.file_labeler(path, coco)
        if name == "sam":
            return image_labeler(sam.Sam(self.config.labeler.checkpoint, place.device).masks)
        if name != "mal":
            return baseline_labeler(name)
        checkpoint = load_checkpoint(place.inputs["labeler"] / "labeler.pt", parts=("student", "teacher"))
        networks = load_networks(checkpoint, self.config, place.device, crops=len(coco["annotations"]))
        return mal_labeler(networks, self.config, place.device)

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
