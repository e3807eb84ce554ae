"""BESTIE learns from points alone: in every precision, whatever interrupts it, on whatever encoder."""

from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

from mal.config import Config
from mal.data.annotations import CocoDict
from mal.encoders.config import EncoderConfig
from mal.engine.runtime import load_checkpoint, seed_everything
from mal.engine.trainer import loss_scaler
from mal.errors import AnnotationError, ConfigError, MalError, Stopped, WeightsError
from mal.methods.bestie import label, train_classes
from mal.methods.bestie.checkpoint import CLASSES_FILE, FILE, load
from mal.methods.bestie.data import TrainingImages, objects_of, padded, points_of
from mal.methods.bestie.features import Features
from mal.methods.bestie.learners import ClassLearner, InstanceLearner
from mal.methods.bestie.learning import rate_factor, training_step
from mal.methods.bestie.losses import UNKNOWN
from mal.methods.bestie.map_files import path_of, read_map, write_map
from mal.methods.bestie.network import ClassNetwork, InstanceNetwork
from mal.methods.bestie.train import train
from tests.bestie_cases import changed, draw

CPU = torch.device("cpu")
CLASSES = 6
DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}


@pytest.fixture(scope="module")
def drawn(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("parts")


@pytest.fixture(scope="module")
def points(drawn: Path) -> CocoDict:
    return draw(drawn)


@pytest.fixture(scope="module")
def maps(drawn: Path, points: CocoDict) -> Path:
    """Class maps of discs at the points."""
    for entry, annotations in objects_of(points):
        found = np.zeros((entry["height"], entry["width"]), dtype=np.uint8)
        for annotation in annotations:
            x, y = (int(value) for value in annotation["point"])
            cv2.circle(found, (x, y), 9, int(annotation["category_id"]), -1)
        write_map(drawn / "maps", entry, found)
    return drawn / "maps"


def test_points_and_maps_follow_their_image_through_scaling_cropping_flipping_and_padding(
    drawn: Path, points: CocoDict, compose
) -> None:
    """A map that is white where the image is: whatever is shown, both agree, and points lie where they lay."""
    entry = {"id": 1, "file_name": "a.png", "height": 40, "width": 80}
    pixels = np.zeros((40, 80, 3), dtype=np.uint8)
    pixels[18:26, 58:66] = 255
    cv2.imwrite(str(drawn / "a.png"), pixels)
    write_map(drawn / "own", entry, pixels[..., 0] // 255 * 3)
    annotation = {"id": 1, "image_id": 1, "category_id": 3, "points": [[62.0, 22.0], [60.5, 20.5]]}
    coco = {"images": [entry], "annotations": [annotation], "categories": points["categories"]}
    scale = changed(compose, "scale.scales=[.5,1,2]", "scale.short_side=40", "scale.crop=50").bestie.scale
    images = TrainingImages(coco, drawn, scale=scale, seed=0, fill=(0.25, 0.5, 0.75), maps=drawn / "own")
    seen = set()
    for turn in range(40):
        found = images[(turn, 0)]
        assert found.image.shape == (3, 50, 50)
        assert bool((found.class_map[~found.inside] == UNKNOWN).all())
        assert bool((found.image[:, ~found.inside] == torch.tensor([0.25, 0.5, 0.75])[:, None]).all())
        for x, y in found.xy.tolist():
            if 1 <= x < 49 and 1 <= y < 49:
                assert int(found.class_map[int(y), int(x)]) == 3
                assert float(found.image[:, int(y), int(x)].min()) > 0.6
                seen.add(turn)
        white = (found.image.min(dim=0).values > 0.5) & found.inside
        assert int((white != (found.class_map == 3)).sum()) <= 40
        assert found.first.tolist() == [True, False]
        assert found.present.nonzero()[:, 0].tolist() == [2]
    assert 5 < len(seen) < 40


@pytest.mark.parametrize("precision", DTYPES)
def test_three_steps_of_the_class_network_in_every_precision(
    points: CocoDict, drawn: Path, compose, precision: str
) -> None:
    config = changed(compose)
    images = TrainingImages(points, drawn / "images", scale=config.bestie.scale, seed=0)
    _compare(lambda: ClassLearner(ClassNetwork(config, classes=CLASSES), config.bestie), images, precision)


@pytest.mark.parametrize("precision", DTYPES)
def test_three_steps_of_the_instance_network_in_every_precision(
    points: CocoDict, drawn: Path, maps: Path, compose, precision: str
) -> None:
    config = changed(compose, "targets.region=10")
    images = TrainingImages(points, drawn / "images", scale=config.bestie.scale, seed=0, maps=maps)
    losses = _compare(
        lambda: InstanceLearner(InstanceNetwork(config, classes=CLASSES), config.bestie), images, precision
    )
    assert set(losses) == {"classes", "centres", "offsets", "refined"}
    assert all(float(value) > 0 for value in losses.values())


def _compare(build, images: TrainingImages, precision: str) -> dict[str, torch.Tensor]:
    """The losses of a first step in a precision, which are those of float32; three steps are numbers."""
    first = []
    for dtype in dict.fromkeys([torch.float32, DTYPES[precision]]):
        seed_everything(0, "test")
        learner = build().train()
        learner.network.lowered(dtype)
        optimizer, scaler = torch.optim.Adam(learner.parameters(), 1e-3), loss_scaler(CPU, dtype)
        for step in range(3):
            batch = [images[(step, 2 * step % 5)], images[(step, (2 * step + 1) % 5)]]
            losses = training_step(learner, batch, optimizer, scaler, clip=1.0)
            assert all(bool(value.isfinite()) for value in losses.values()), losses
            assert all(value.dtype == torch.float32 for value in losses.values())
            if step == 0:
                first.append(losses)
                assert [name for name, p in learner.named_parameters() if p.requires_grad and p.grad is None] == []
    for name, value in first[0].items():
        assert float(first[-1][name]) == pytest.approx(float(value), rel=0.05, abs=0.05)
    return first[0]


def test_killed_trainings_end_in_the_same_bits(
    points: CocoDict, drawn: Path, maps: Path, compose, tmp_path: Path
) -> None:
    config, halted = changed(compose), changed(compose)
    halted.train.stop_after = 1

    def classes(config: Config, folder: Path) -> None:
        train_classes.train(points, drawn / "images", config, folder=folder, device=CPU)

    def instances(config: Config, folder: Path) -> None:
        train(points, drawn / "images", config, maps=maps, folder=folder, device=CPU)

    for learn, file in ((classes, CLASSES_FILE), (instances, FILE)):
        whole, parted = tmp_path / "whole", tmp_path / "parted"
        learn(config, whole)
        with pytest.raises(Stopped):
            learn(halted, parted)
        learn(config, parted)
        one, other = (load_checkpoint(folder / file)["bestie"] for folder in (whole, parted))
        assert all(torch.equal(value, other[key]) for key, value in one.items())
        assert (whole / "curves.jsonl").read_text() == (parted / "curves.jsonl").read_text()
        for folder in (whole, parted):
            (folder / "checkpoint.pt").unlink(missing_ok=True)
            (folder / "curves.jsonl").unlink()


def test_class_maps_hold_classes_of_their_image_alone_and_go_on_after_a_kill(
    points: CocoDict, drawn: Path, compose, tmp_path: Path
) -> None:
    config = changed(compose)
    train_classes.train(points, drawn / "images", config, folder=tmp_path, device=CPU)
    trained = load(tmp_path / CLASSES_FILE, config, CPU, kind=ClassNetwork)
    assert train_classes.write_maps(trained, points, drawn / "images", config, tmp_path / "maps") == 5
    entries = objects_of(points)
    found = [read_map(tmp_path / "maps", entry) for entry, _ in entries]
    for classes, (_, annotations) in zip(found, entries, strict=True):
        assert set(np.unique(classes)) <= {0, *(annotation["category_id"] for annotation in annotations)}
    path_of(tmp_path / "maps", entries[1][0]).unlink()
    path_of(tmp_path / "maps", entries[2][0]).write_bytes(b"half a map")
    train_classes.write_maps(trained, points, drawn / "images", config, tmp_path / "maps")
    again = [read_map(tmp_path / "maps", entry) for entry, _ in entries]
    assert all(np.array_equal(one, other) for one, other in zip(found, again, strict=True))


def test_labels_follow_the_points_whatever_else_a_file_says(
    points: CocoDict, drawn: Path, maps: Path, compose, tmp_path: Path
) -> None:
    """A points view holds no box and no mask; objects in another order get the same masks under their own ids."""
    assert all(set(a) == {"id", "image_id", "category_id", "iscrowd", "point", "points"} for a in points["annotations"])
    config = changed(compose)
    train(points, drawn / "images", config, maps=maps, folder=tmp_path, device=CPU)
    labeler = label.labeler(load(tmp_path / FILE, config, CPU, kind=InstanceNetwork), config)
    found = labeler(points, drawn / "images")
    assert list(found) == [a["id"] for a in points["annotations"]]
    assert labeler({**points, "annotations": points["annotations"][::-1]}, drawn / "images") == found
    misleading = [{**a, "bbox": [0, 0, 1, 1], "segmentation": [[0, 0, 1, 0, 1, 1]]} for a in points["annotations"]]
    assert labeler({**points, "annotations": misleading}, drawn / "images") == found


def test_bad_input_is_a_sentence(points: CocoDict, drawn: Path, compose, tmp_path: Path) -> None:
    config = changed(compose)
    scale = config.bestie.scale
    for annotations in ([], [{**points["annotations"][0], "iscrowd": 1}]):
        with pytest.raises(AnnotationError, match="nothing to train on"):
            TrainingImages({**points, "annotations": annotations}, drawn / "images", scale=scale, seed=0)
    entry = points["images"][0]
    with pytest.raises(MalError, match="is not a readable class map of its image; delete the folder of its stage"):
        read_map(tmp_path, entry)
    train_classes.train(points, drawn / "images", config, folder=tmp_path, device=CPU)
    with pytest.raises(WeightsError, match="was trained with other settings than this run has"):
        load(tmp_path / CLASSES_FILE, changed(compose, "network.width=16"), CPU, kind=ClassNetwork)
    trained = load(tmp_path / CLASSES_FILE, config, CPU, kind=ClassNetwork)
    zebra = points["annotations"][0] | {"category_id": 1}
    strange = {**points, "categories": [{"id": 1, "name": "zebra"}], "annotations": [zebra]}
    with pytest.raises(AnnotationError, match="has objects of zebra, which the network was not trained on"):
        train_classes.write_maps(trained, strange, drawn / "images", config, tmp_path / "maps")


@pytest.mark.parametrize(
    ("timm", "options", "maps"),
    [
        ("resnet10t", {"channels": [8, 8, 16, 16], "stem_width": 8}, 4),
        ("convnext_tiny", {"depths": [1, 1, 1, 1], "dims": [8, 8, 16, 16]}, 4),
        ("vit_tiny_patch16_224", {"embed_dim": 16, "depth": 1, "num_heads": 2}, 1),
        ("hrnet_w18_small", {}, 4),
        ("swin_tiny_patch4_window7_224", {"embed_dim": 8, "depths": (1, 1, 1, 1), "num_heads": (1, 1, 1, 1)}, 4),
    ],
)
def test_every_kind_of_encoder_sees_images_of_any_size(compose, timm: str, options: dict, maps: int) -> None:
    config = changed(compose)
    config.encoder = EncoderConfig(name="small", timm=timm, pretrained=False, options=options)
    network = InstanceNetwork(config, classes=3).eval()
    assert len(network.features.widths) == maps
    step = network.features.multiple
    for height, width in ((step * 2, step * 4), (step * 6, step * 2)):
        with torch.inference_mode():
            found = network(torch.rand(1, 3, height, width))
        assert found.classes.shape == (1, 4, height, width)
        assert found.centres.shape == (1, 3, height, width)
        assert found.offsets.shape == (1, 2, height, width)


@pytest.mark.parametrize("timm", ["mixer_s32_224", "convit_tiny"])
def test_an_encoder_of_one_size_is_refused_with_a_way_out(timm: str) -> None:
    with pytest.raises(ConfigError, match="encoder=rigid takes images of one size only; choose a plain ViT"):
        Features(EncoderConfig(name="rigid", timm=timm, pretrained=False), side=64)


def test_images_are_padded_with_what_the_encoder_subtracts() -> None:
    found = padded(torch.full((3, 5, 9), 255, dtype=torch.uint8), multiple=8, fill=(0.1, 0.2, 0.3))
    assert found.shape == (3, 8, 16)
    assert found[:, 7, 15].tolist() == pytest.approx([0.1, 0.2, 0.3])
    assert found[:, 4, 8].tolist() == [1, 1, 1]


def test_all_points_of_an_object_are_its_own_and_the_first_is_marked() -> None:
    annotations = [{"category_id": 4, "points": [[1, 2], [3, 4]]}, {"category_id": 9, "points": [[5, 6]]}]
    xy, labels, first = points_of(annotations, {4: 0, 9: 1}, {"height": 10, "width": 10}, (20, 5))
    assert xy.tolist() == [[0.5, 4], [1.5, 8], [2.5, 12]]
    assert (labels.tolist(), first.tolist()) == ([0, 0, 1], [True, False, True])


def test_the_rate_warms_up_and_falls_to_nothing(compose) -> None:
    learning = changed(compose, "learning.warmup_steps=4", "learning.power=.9").bestie.learning
    found = [rate_factor(step, 10, learning) for step in range(10)]
    assert found[:4] == pytest.approx([(step + 1) / 4 * (1 - step / 10) ** 0.9 for step in range(4)])
    assert found[4:] == pytest.approx([(1 - step / 10) ** 0.9 for step in range(4, 10)])
