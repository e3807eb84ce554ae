"""How the shipped labeler is made: photographs whose licences allow it → boxes → training → a small file, its record.

python experiments/default_labeler.py --data ../shared/data --weights mobilenetv2_100_same_in1k.safetensors

Learns from the boxes of COCO's and LVIS's photographs under CC BY, CC BY-SA or without known restrictions, as one
class, and scores the masks of COCO photographs that it has not seen. Writes mal/methods/mal/default.safetensors and,
beside it, default.json: settings, scores, and every photograph by its address, for the credit that CC BY asks for.
"""

import argparse
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf

from mal.data.annotations import read, write
from mal.engine.files import read_json, write_json
from mal.methods.mal.labeler_file import read_labeler, write_small
from mal.methods.mal.shipped import SHIPPED

Json = dict[str, Any]
ROOT = Path(__file__).resolve().parents[1]
LICENCES = {4: "CC BY 2.0", 5: "CC BY-SA 2.0", 7: "no known copyright restrictions"}  # by COCO's numbers
TRAIN = {  # annotation files → folders of their images
    "coco_mini/annotations/instances_train2017_mini.json": "coco_mini/train2017",
    "lvis_mini/lvis_val_mini.json": "lvis_mini/images",
}
VAL = ("coco_mini/annotations/instances_val2017_mini.json", "coco_mini/val2017")
SETTINGS = ["profile=mini", "data=coco", "data.name=default_labeler", "data.val_images=odd", "segmenter=none",
            "encoder=mobilenetv2", "crf.dilation=2", "train.steps=800", "train.workers=1", "tracking=none"]  # fmt: skip
NETWORKS = ("teacher",)


def allowed_boxes(data: Path) -> Json:
    """The boxes of all allowed photographs as one COCO file of one class. Crowds are left out."""
    held_out = {image["file_name"] for image in read(data / VAL[0], masks=False)["images"]}
    images: list[Json] = []
    annotations: list[Json] = []
    for file, folder in TRAIN.items():
        coco = read(data / file, masks=False)
        for image in sorted(coco["images"], key=lambda image: image["id"]):
            name = Path(image["file_name"]).name
            if image["license"] not in LICENCES or name in held_out:
                continue
            number = len(images) + 1
            kept = {key: image.get(key) for key in ("width", "height", "license", "flickr_url")}
            images.append({"id": number, "file_name": f"{folder}/{name}", **kept})
            for annotation in coco["annotations"]:
                if annotation["image_id"] == image["id"] and not annotation.get("iscrowd"):
                    box = {"id": len(annotations) + 1, "image_id": number, "category_id": 1}
                    annotations.append({**box, "bbox": annotation["bbox"], "iscrowd": 0})
    return {"images": images, "annotations": annotations, "categories": [{"id": 1, "name": "object"}]}


def record(boxes: Json, trained: Json, quality: Json) -> Json:
    """What is worth knowing of the shipped labeler, without the places of the machine it was made on."""
    return {
        "trained on": f"{len(boxes['images'])} photographs, {len(boxes['annotations'])} boxes of one class, no masks",
        "encoder": "MobileNetV2, ImageNet weights of google-coral/test_data (Apache-2.0)",
        "settings": SETTINGS,
        "networks": list(NETWORKS),
        "commit": trained["provenance"]["commit"],
        "packages": trained["provenance"]["packages"],
        "seconds": round(trained["seconds"]),
        "finished": trained["finished"],
        "coco_mini, odd validation images": {name: metric["value"] for name, metric in quality["metrics"].items()},
        "photographs": [
            {"address": image["flickr_url"], "licence": LICENCES[image["license"]]} for image in boxes["images"]
        ],
    }


def portable(config: str) -> str:
    """The settings without this machine's places, for one network."""
    plain = OmegaConf.create(config)
    assert isinstance(plain, DictConfig)
    plain.encoder.update(checkpoint=None, pretrained=False)
    plain.label.network = NETWORKS[0]
    plain.data = {"name": "own"}
    for part in ("store", "tracking", "roots"):
        del plain[part]
    return OmegaConf.to_yaml(plain)


def only(store: Path, stage: str) -> Path:
    """The folder of the one result of a stage."""
    (folder,) = (path.parent for path in (store / stage).glob("*/run.json"))
    return folder


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="folder that holds coco_mini and lvis_mini")
    parser.add_argument("--weights", type=Path, required=True, help="ImageNet weights of the encoder")
    parser.add_argument("--store", type=Path, default=ROOT / "results/runs/default_labeler", help="a store of its own")
    options = parser.parse_args()
    boxes = allowed_boxes(options.data)
    options.store.mkdir(parents=True, exist_ok=True)
    file = options.store / "boxes.json"
    write(file, boxes)
    places = {"data.train.annotations": file, "data.train.images": options.data,
              "data.val.annotations": options.data / VAL[0], "data.val.images": options.data / VAL[1],
              "encoder.checkpoint": options.weights, "store": options.store}  # fmt: skip
    command = [sys.executable, str(ROOT / "experiments/run.py"), *SETTINGS, "compare=[]"]
    subprocess.run([*command, *(f"{key}={Path(path).resolve()}" for key, path in places.items())], check=True, cwd=ROOT)
    labeler = only(options.store, "train_labeler")
    written = record(boxes, read_json(labeler / "run.json"), read_json(only(options.store, "quality_val") / "run.json"))
    made = {"made": json.dumps({key: written[key] for key in ("trained on", "encoder", "commit")})}
    whole = read_labeler(labeler / "labeler.pt")
    write_small(SHIPPED, {**whole, "config": portable(whole["config"])}, networks=NETWORKS, made=made)
    write_json(SHIPPED.with_suffix(".json"), written, indent=1)
    print(f"{SHIPPED}: {SHIPPED.stat().st_size / 1e6:.1f} MB")


if __name__ == "__main__":
    main()
