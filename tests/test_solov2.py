"""SOLOv2's losses are the formulas, its detections come back in the image's pixels, and its training resumes."""

import json
import math
from collections.abc import Callable
from copy import deepcopy
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from mal import segmenters
from mal.config import Config
from mal.data import shapes
from mal.data.annotations import decode_mask, encode_mask, read
from mal.errors import ConfigError, WeightsError
from mal.metrics.ap import average_precision
from mal.segmenters import config as schema
from mal.segmenters import inference, loop, solov2, training
from mal.segmenters.config import GridConfig, SegmenterConfig
from mal.segmenters.config_checks import check
from mal.segmenters.data import Sample
from mal.segmenters.precision import lower_precision
from mal.segmenters.solov2.head import Outputs
from mal.segmenters.solov2.results import Found, best_masks, extent, to_results

CPU = torch.device("cpu")
SIDE = 96
Tiny = Callable[..., SegmenterConfig]


@pytest.fixture(scope="session")
def tiny(compose: Callable[..., Config]) -> Tiny:
    """solov2_tiny on images of 64 pixels, as small as it gets."""
    small = [
        "pyramid={widths:[16,16,24,24],channels:16}",
        "grid={cells:[8,6,5,4,3],width:16,mask_width:16,kernel:16}",
        "scale={short_sides:[48,64],test_short_side:64}",
        "schedule={batch:2,epochs:null,steps:6}",
    ]

    def build(*overrides: str) -> SegmenterConfig:
        return compose("segmenter=solov2_tiny", *(f"segmenter.{change}" for change in (*small, *overrides))).segmenter

    return build


@pytest.fixture(scope="session")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Four procedural images of 96 pixels, with exact masks."""
    folder = tmp_path_factory.mktemp("shapes")
    shapes.generate(folder, images=4, size=SIDE, seed=0, split="train")
    return folder


def train(dataset: Path, folder: Path, config: SegmenterConfig) -> None:
    training.train(
        annotations=dataset / "annotations.json",
        images=dataset / "images",
        config=config,
        seed=0,
        folder=folder,
        device=CPU,
    )


def predict(dataset: Path, folder: Path, config: SegmenterConfig) -> list[dict[str, Any]]:
    return inference.predict(
        checkpoint=folder / "segmenter.pt",
        annotations=dataset / "annotations.json",
        images=dataset / "images",
        config=config,
        device=CPU,
    )


# --- what is refused -----------------------------------------------------------------------------------------------


def test_without_masks_there_is_nothing_to_detect(tiny: Tiny) -> None:
    assert segmenters.find(tiny()) is solov2.NETWORK
    with pytest.raises(
        ConfigError, match=r"segmenter=solov2_tiny with segmenter\.mask_head=false.*choose a Mask R-CNN"
    ):
        segmenters.check_built(tiny("mask_head=false"))


@pytest.mark.parametrize(
    ("override", "complaint"),
    [
        ("grid.cells=[8,8]", r"segmenter\.grid\.cells=\[8, 8\] must be a list of 5"),
        ("grid.cells=[8,6,4,2,0]", r"segmenter\.grid\.cells=.* must be a list of at least one positive number"),
        ("grid.scales=[[1,8],[8,4],[1,2],[1,2],[1,2]]", r"segmenter\.grid\.scales=.*each level needs a lower"),
        ("grid.width=18", r"segmenter\.grid\.width=18 must be a multiple of 4"),
        ("grid.center=1.5", r"segmenter\.grid\.center=1\.5 is out of range"),
        ("test.sigma=-1", r"segmenter\.test\.sigma=-1\.0 is out of range"),
    ],
)
def test_grids_that_make_no_sense_fail_before_any_work(tiny: Tiny, override: str, complaint: str) -> None:
    with pytest.raises(ConfigError, match=complaint):
        check(tiny(override))


def test_a_checkpoint_of_other_settings_is_refused(tiny: Tiny, trained: Path, dataset: Path) -> None:
    with pytest.raises(WeightsError, match="trained with other settings"):
        predict(dataset, trained, tiny("grid.kernel=20"))


# --- losses --------------------------------------------------------------------------------------------------------


def sigmoid(x: float) -> float:
    return 1 / (1 + math.exp(-x))


def test_the_losses_are_the_formulas() -> None:
    rng = torch.Generator().manual_seed(0)
    outputs = Outputs(
        torch.randn(2, 6, 3, generator=rng), torch.randn(2, 6, 4, generator=rng), torch.randn(2, 3, 5, 7, generator=rng)
    )
    owner = [torch.tensor([-1, 0, 0, -1, 1, -1]), torch.tensor([-1, -1, -1, 1, -1, -1])]
    labels = [torch.tensor([4, 1]), torch.tensor([2, 3])]
    masks = [torch.rand(2, 5, 7, generator=rng), torch.rand(2, 5, 7, generator=rng)]
    losses = solov2.grid_losses(outputs, list(zip(owner, labels, masks, strict=True)), grid=GridConfig(dice=3.0))

    focal, dices = 0.0, []
    for image in range(2):
        for cell in range(6):
            mine = int(owner[image][cell])
            for category in range(4):
                p = sigmoid(float(outputs.logits[image, cell, category]))
                if mine >= 0 and labels[image][mine] == category + 1:
                    focal -= 0.25 * (1 - p) ** 2 * math.log(p)
                else:
                    focal -= 0.75 * p**2 * math.log(1 - p)
            if mine < 0:
                continue
            overlap, squares = 0.0, 0.002
            for row, column in np.ndindex(5, 7):
                kernel, feature = outputs.kernels[image, cell], outputs.features[image, :, row, column]
                p = sigmoid(sum(a * b for a, b in zip(kernel.tolist(), feature.tolist(), strict=True)))
                t = float(masks[image][mine, row, column])
                overlap, squares = overlap + p * t, squares + p * p + t * t
            dices.append(1 - 2 * overlap / squares)
    assert len(dices) == 4
    assert float(losses["loss_category"]) == pytest.approx(focal / 5, rel=1e-5)
    assert float(losses["loss_mask"]) == pytest.approx(3 * sum(dices) / 4, rel=1e-5)


def sample(*, boxes: list[list[float]], fill: int) -> Sample:
    masks = torch.zeros(len(boxes), 50, 60, dtype=torch.uint8)
    for mask, (left, top, right, bottom) in zip(masks, boxes, strict=True):
        mask[int(top) : int(bottom), int(left) : int(right)] = fill
    image = torch.randint(0, 256, (3, 50, 60), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    return Sample(image, torch.tensor(boxes).reshape(-1, 4), torch.ones(len(boxes), dtype=torch.int64), masks, 7)


@pytest.mark.parametrize(
    ("boxes", "fill", "scales"),
    [
        ([[5.0, 5.0, 25.0, 30.0]], 0, None),  # an empty mask, as a pseudo-label may be
        ([], 1, None),
        ([[5.0, 5.0, 25.0, 30.0]], 1, [[1, 2], [1, 2], [1, 2], [1, 2], [1, 2]]),  # of no level
    ],
    ids=["empty mask", "no object", "no level"],
)
def test_a_batch_without_positive_cells_learns_its_background(
    tiny: Tiny, boxes: list[list[float]], fill: int, scales: list[list[int]] | None
) -> None:
    config = tiny()
    config.grid.scales = scales or config.grid.scales
    torch.manual_seed(0)
    model = solov2.build(config, classes=2).train()
    losses = solov2.losses(model, [sample(boxes=boxes, fill=fill), sample(boxes=[], fill=1)])
    assert losses["loss_mask"] == 0
    assert losses["loss_category"] > 0
    sum(losses.values()).backward()
    gradients = {name: parameter.grad for name, parameter in model.named_parameters()}
    assert all(gradient is not None and gradient.isfinite().all() for gradient in gradients.values())
    assert gradients["grid_head.category.weight"].abs().sum() > 0
    assert gradients["grid_head.kernel.weight"].abs().sum() == 0


def test_beside_an_image_with_objects_an_empty_one_adds_background_only(tiny: Tiny) -> None:
    torch.manual_seed(0)
    model = solov2.build(tiny(), classes=2).eval()
    full = sample(boxes=[[5, 5, 25, 30]], fill=1)
    both = solov2.losses(model, [full, sample(boxes=[], fill=1)])
    alone = solov2.losses(model, [full])
    torch.testing.assert_close(both["loss_mask"], alone["loss_mask"])
    assert both["loss_category"] > alone["loss_category"]


def test_images_are_normalised_and_padded_with_zeros_to_multiples_of_32(tiny: Tiny) -> None:
    config = tiny("pyramid.mean=[0.1,0.2,0.3]", "pyramid.std=[0.5,0.25,1]")
    images = [torch.full((3, 40, 65), 255, dtype=torch.uint8), torch.zeros(3, 20, 20, dtype=torch.uint8)]
    batch = solov2.normalised(images, config)
    assert batch.shape == (2, 3, 64, 96)
    torch.testing.assert_close(batch[0, :, 39, 64], torch.tensor([0.9 / 0.5, 0.8 / 0.25, 0.7]))
    torch.testing.assert_close(batch[1, :, 0, 0], torch.tensor([-0.2, -0.8, -0.3]))
    assert batch[0, :, 40:].abs().sum() == batch[0, :, :, 65:].abs().sum() == batch[1, :, 20:].abs().sum() == 0


# --- detections ----------------------------------------------------------------------------------------------------

CELLS = [4, 3, 2, 2, 1]  # first cells of the levels: 0, 16, 25, 29, 33


def detections(marks: list[tuple[int, int, float, tuple[int, int]]], **test: Any) -> Found:
    """What comes out where (cell, category, logit, (height, width) of its mask in stride-4 pixels) stand out."""
    features = torch.full((len(marks), 12, 12), -20.0)
    logits, kernels = torch.full((34, 3), -20.0), torch.zeros(34, len(marks))
    for index, (cell, category, logit, (height, width)) in enumerate(marks):
        features[index, :height, :width] = 20.0
        logits[cell, category], kernels[cell, index] = logit, 1.0
    return best_masks(kernels, logits, features, cells=CELLS, test=schema.TestConfig(**({"score": 0.1} | test)))


def test_detections_are_ranked_decayed_and_limited() -> None:
    marks = [(0, 0, 1.0, (6, 6)), (10, 0, 2.0, (6, 6)), (18, 2, 0.0, (4, 8)), (5, 1, -3.0, (6, 6))]
    found = detections(marks)  # the first is a copy of the second, the last below the threshold
    assert found.labels.tolist() == [1, 3, 1]
    expected = [sigmoid(2), sigmoid(0), sigmoid(1) * math.exp(-2)]
    assert found.scores.tolist() == pytest.approx(expected, rel=1e-5)
    assert [(mask > 0.5).sum().item() for mask in found.masks] == [36, 32, 36]
    assert len(detections(marks, decayed_score=0.2).scores) == 2
    assert detections(marks, max_detections=1).scores.tolist() == pytest.approx(expected[:1])
    assert detections(marks, before_nms=2).scores.tolist() == pytest.approx([expected[0], sigmoid(1) * math.exp(-2)])
    assert len(detections(marks, score=0.9).scores) == 0
    assert detections(marks, score=0.9).masks.shape == (0, 12, 12)


def test_a_cell_yields_to_a_better_one_beside_it() -> None:
    assert detections([(5, 0, 2.0, (6, 6)), (6, 0, 1.0, (4, 9))]).scores.tolist() == pytest.approx([sigmoid(2)])
    assert len(detections([(5, 0, 2.0, (6, 6)), (6, 1, 1.0, (4, 9))]).scores) == 2  # of different categories
    assert len(detections([(5, 0, 2.0, (6, 6)), (16, 0, 1.0, (4, 9))]).scores) == 2  # on different grids


@pytest.mark.parametrize(("cell", "stride"), [(0, 8), (16, 8), (25, 16), (29, 32), (33, 32)])
def test_a_mask_covers_more_pixels_than_its_levels_stride(cell: int, stride: int) -> None:
    assert len(detections([(cell, 0, 2.0, (stride // 4, 4))]).scores) == 0
    large = (3, 3) if stride == 8 else (stride // 4 + 1, 4)
    assert len(detections([(cell, 0, 2.0, large)]).scores) == 1


def test_the_score_is_the_category_times_the_maskness() -> None:
    features = torch.full((1, 6, 6), -20.0)
    features[0, :3, :3], features[0, :3, 3:] = 1.0, 2.0
    logits, kernels = torch.full((34, 2), -20.0), torch.ones(34, 1)
    logits[4, 1] = 1.5
    found = best_masks(kernels, logits, features, cells=CELLS, test=schema.TestConfig(score=0.1))
    assert found.scores.tolist() == pytest.approx([sigmoid(1.5) * (sigmoid(1) + sigmoid(2)) / 2])


def test_masks_come_back_in_the_pixels_of_the_original_without_the_padding() -> None:
    masks = torch.zeros(2, 16, 24)  # of a padded 64 × 96
    masks[0, 2:6, 4:20] = 1.0  # rows 8 to 24, columns 16 to 80 of the resized 50 × 88
    masks[1, 14:, :] = 1.0  # only in the padding
    found = Found(masks, torch.tensor([2, 1]), torch.tensor([0.75, 0.5]))
    entry = {"id": 5, "height": 100, "width": 176}  # twice as large
    [result] = to_results(found, entry, size=(50, 88), categories=[3, 8], test=schema.TestConfig())
    assert (result["image_id"], result["category_id"], result["score"]) == (5, 8, 0.75)
    assert result["bbox"] == pytest.approx([32, 16, 128, 32], abs=2)
    expected = np.zeros((100, 176), dtype=bool)
    expected[16:48, 32:160] = True
    mask = decode_mask(result["segmentation"], height=100, width=176)
    assert np.count_nonzero(mask & expected) / np.count_nonzero(mask | expected) > 0.97


@given(seed=st.integers(0, 10_000), height=st.integers(1, 12), width=st.integers(1, 12))
@settings(deadline=None, max_examples=60)
def test_the_box_is_the_extent_of_the_mask(seed: int, height: int, width: int) -> None:
    rng = np.random.default_rng(seed)
    mask = rng.random((height, width)) < rng.uniform(0.02, 0.5)
    mask[rng.integers(height), rng.integers(width)] = True
    x, y, w, h = extent(encode_mask(mask))
    inside = np.zeros_like(mask)
    inside[int(y) : int(y + h), int(x) : int(x + w)] = True
    assert not mask[~inside].any()
    rows, columns = mask[int(y) : int(y + h)], mask[:, int(x) : int(x + w)]
    assert rows[0].any() and rows[-1].any()  # noqa: PT018
    assert columns[:, 0].any() and columns[:, -1].any()  # noqa: PT018


# --- training and prediction ---------------------------------------------------------------------------------------


@pytest.fixture(scope="session")
def trained(tmp_path_factory: pytest.TempPathFactory, dataset: Path, tiny: Tiny) -> Path:
    """The run folder of a few steps: bad predictions, but predictions."""
    folder = tmp_path_factory.mktemp("trained")
    train(dataset, folder, tiny("running.checkpoint_steps=3", "running.log_steps=2"))
    return folder


def same(first: Any, second: Any) -> bool:
    if isinstance(first, Tensor):
        return torch.equal(first, second)
    if isinstance(first, dict):
        return first.keys() == second.keys() and all(same(first[key], second[key]) for key in first)
    return first == second


def test_an_interrupted_run_ends_in_the_same_bits(
    tiny: Tiny, dataset: Path, trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = tiny("running.checkpoint_steps=3", "running.log_steps=2")
    real, calls = loop._step, []

    def dies_at_the_fifth(*arguments: Any, **named: Any) -> None:
        calls.append(1)
        if len(calls) == 5:
            raise KeyboardInterrupt
        real(*arguments, **named)

    monkeypatch.setattr(loop, "_step", dies_at_the_fifth)
    with pytest.raises(KeyboardInterrupt):
        train(dataset, tmp_path, config)
    assert (tmp_path / "checkpoint.pt").exists()
    monkeypatch.undo()
    train(dataset, tmp_path, config)
    first, second = (torch.load(folder / "segmenter.pt", weights_only=True) for folder in (trained, tmp_path))
    assert same(first, second)
    assert (trained / "curves.jsonl").read_text() == (tmp_path / "curves.jsonl").read_text()
    assert {"category", "mask"} <= json.loads((trained / "curves.jsonl").read_text().splitlines()[0]).keys()


def test_predictions_open_in_pycocotools_and_their_boxes_are_their_masks(
    tiny: Tiny, dataset: Path, trained: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    from pycocotools.coco import COCO

    config = tiny("test.score=0", "test.decayed_score=0", "test.max_detections=7")
    results = json.loads(json.dumps(predict(dataset, trained, config)))
    truth = COCO(str(dataset / "annotations.json"))
    found = truth.loadRes([{key: value for key, value in result.items() if key != "bbox"} for result in results])
    capfd.readouterr()
    boxes = {entry["id"]: list(entry["bbox"]) for entry in found.anns.values()}
    assert [boxes[number] for number in range(1, len(results) + 1)] == [result["bbox"] for result in results]
    for image in truth.getImgIds():
        scores = [result["score"] for result in results if result["image_id"] == image]
        assert 0 < len(scores) <= 7
        assert scores == sorted(scores, reverse=True)
    assert {result["category_id"] for result in results} <= {1, 2, 3}


def test_predictions_do_not_depend_on_the_batch(tiny: Tiny, dataset: Path, trained: Path) -> None:
    options = ["test.score=0", "test.max_detections=5"]
    together, alone = (predict(dataset, trained, tiny(*options, f"test.batch={size}")) for size in (3, 1))
    assert together == alone


def test_one_class_for_all_predicts_category_one(tiny: Tiny, dataset: Path, tmp_path: Path) -> None:
    config = tiny("class_agnostic=true", "schedule.steps=1", "test.score=0", "test.decayed_score=0")
    train(dataset, tmp_path, config)
    assert torch.load(tmp_path / "segmenter.pt", weights_only=True)["classes"] == 1
    assert {result["category_id"] for result in predict(dataset, tmp_path, config)} == {1}


def test_bf16_hands_on_kernels_scores_and_features_in_full_precision(tiny: Tiny) -> None:
    torch.manual_seed(0)
    plain = solov2.build(tiny(), classes=2).eval()
    lower = lower_precision(deepcopy(plain), solov2.lowered_parts(tiny()), dtype=torch.bfloat16, device=CPU)
    image = torch.randn(1, 3, 64, 64)
    with torch.inference_mode():
        expected, outputs = plain(image), lower(image)
    for value, exact in zip(outputs, expected, strict=True):
        assert value.dtype == torch.float32
        assert 0 < (value - exact).abs().max() < 0.1 * exact.abs().max()


@pytest.mark.slow
def test_it_learns_four_images_by_heart(tiny: Tiny, dataset: Path, tmp_path: Path) -> None:
    config = tiny(
        "pyramid={widths:[16,24,32,32],channels:32}",
        "grid={cells:[12,9,7,5,3],width:32,mask_width:32,kernel:32}",
        "scale={short_sides:[160],test_short_side:160}",
        "schedule={batch:4,steps:280}",
    )
    train(dataset, tmp_path, config)
    metrics, _ = average_precision(read(dataset / "annotations.json", masks=True), predict(dataset, tmp_path, config))
    assert metrics["ap50"] > 0.9
    assert metrics["ap"] > 0.8
