"""What only a GPU can show: its training steps are the CPU's, in every precision, and MAL's host waits for nothing."""

import math
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from mal.data import shapes
from mal.data.annotations import decode_mask, read, strip
from mal.data.rois import PHOTOMETRIC_DRAWS, RoiBatch, TrainingRois
from mal.encoders.bilinear import resize
from mal.engine.runtime import seed_everything
from mal.errors import Stopped
from mal.methods.labelling import label_dataset
from mal.methods.mal import augment
from mal.methods.mal.config import AugmentConfig
from mal.methods.mal.label import mal_labeler
from mal.methods.mal.outlines import _at_once, _axis_by_axis
from mal.methods.mal.train import build_learner, train_labeler, training_step
from tests.test_pretend_gpu import RUNS, metrics, settings_of

pytestmark = pytest.mark.cuda
CPU, GPU = torch.device("cpu"), torch.device("cuda")


@pytest.fixture(scope="module")
def drawn(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("shapes")
    shapes.generate(folder, images=6, size=128, seed=0, split="train")
    return folder


@pytest.fixture(scope="module")
def batch(compose, drawn: Path) -> RoiBatch:
    config = compose("profile=smoke", "roi.size=64")
    coco = read(drawn / "annotations.json", masks=False)
    rois = TrainingRois(coco, drawn / "images", config=config.roi, batch=8, pool_images=6, seed=0, workers=0)
    return replace(next(iter(rois.batches(0, 1))), sizes=torch.arange(8) % 3)


@pytest.fixture
def patient_host() -> Iterator[None]:
    """Whatever a test lets be an error, afterwards the host may wait again."""
    yield
    torch.cuda.set_sync_debug_mode("default")


def losses(compose, batch: RoiBatch, device: torch.device, *overrides: str) -> torch.Tensor:
    config = compose("profile=smoke", "roi.size=64", "recipe=released", *overrides)
    seed_everything(0)
    learner, moved = build_learner(config, device), batch.to(device)
    steps = [training_step(learner, moved, config, weights=(4.0, 0.5)) for _ in range(3)]
    return torch.stack([torch.stack([step.mil, step.crf]) for step in steps]).cpu()


@pytest.mark.parametrize("encoder", ["vit_nano", "swin_nano", "convnext_nano", "mobilenetv2"])
def test_a_gpu_loses_what_a_cpu_loses(compose, batch: RoiBatch, encoder: str) -> None:
    chosen = (f"encoder={encoder}", "encoder.pretrained=false")
    expected = losses(compose, batch, CPU, *chosen)
    found = losses(compose, batch, GPU, *chosen, "train.precision=fp32")
    torch.testing.assert_close(found[0], expected[0], atol=2e-3, rtol=0)
    torch.testing.assert_close(found, expected, atol=0.03, rtol=0)


@pytest.mark.filterwarnings("ignore")  # torch's compiler has many
@pytest.mark.parametrize("precision", ["bf16", "fp16"])
def test_a_compiled_step_in_half_precision_loses_much_the_same(compose, batch: RoiBatch, precision: str) -> None:
    expected = losses(compose, batch, CPU)[0]
    found = losses(compose, batch, GPU, f"train.precision={precision}", "train.compile=true")[0]
    torch.testing.assert_close(found, expected, atol=0.03, rtol=0)


@pytest.mark.usefixtures("patient_host")
@pytest.mark.parametrize("decoder", ["attention", "fc", "fcn", "query"])
def test_the_host_waits_for_nothing_in_a_step(compose, batch: RoiBatch, decoder: str) -> None:
    config = compose("profile=smoke", "roi.size=64", "recipe=released", f"decoder={decoder}", "train.precision=bf16")
    learner, pinned = build_learner(config, GPU), batch.pin_memory()
    training_step(learner, pinned.to(GPU), config, weights=(4.0, 0.5))  # constants are copied once
    torch.cuda.set_sync_debug_mode("error")
    training_step(learner, pinned.to(GPU), config, weights=(4.0, 0.5))


@pytest.mark.filterwarnings("ignore")
def test_compiled_photometrics_are_the_plain_ones() -> None:
    config = AugmentConfig([0.4, 0.4, 0.2, 0.1], 0.5, 0.2, [0.1, 2.0], 0.5)
    images, draws = torch.rand(32, 3, 64, 64), torch.rand(32, PHOTOMETRIC_DRAWS)
    compiled = torch.compile(augment.photometrics_of_all, dynamic=False)
    found = compiled(images.cuda(), draws.cuda(), config).cpu()
    torch.testing.assert_close(found, augment.photometrics(images, draws, config), atol=1e-5, rtol=0)
    plain = augment.photometrics(images.cuda(), draws, config).cpu()
    torch.testing.assert_close(plain, augment.photometrics(images, draws, config), atol=1e-5, rtol=0)


def test_maps_are_resized_as_on_a_cpu() -> None:
    for dtype, apart in ((torch.float32, 1e-6), (torch.bfloat16, 1e-2)):
        maps = torch.rand(2, 8, 16, 16).to(dtype)
        for size in ((32, 32), (8, 8), (20, 12)):
            torch.testing.assert_close(resize(maps.cuda(), size).cpu(), resize(maps, size), atol=apart, rtol=0)


@pytest.mark.parametrize("size", [(5, 6), (3, 3), (1, 2), (300, 4)])
def test_small_windows_of_large_crops_are_resized(size) -> None:
    """At once, a GPU's kernel has too little shared memory for them."""
    values = torch.rand(512, 512)
    torch.testing.assert_close(_axis_by_axis(values.cuda(), *size).cpu(), _at_once(values, *size), atol=1e-5, rtol=1e-4)


def test_training_goes_on_from_a_checkpoint(compose, drawn: Path, tmp_path: Path) -> None:
    config = compose("profile=smoke", "train.steps=8", "train.stop_after=3", "train.precision=bf16")
    coco = strip(read(drawn / "annotations.json", masks=False))
    for _ in range(2):
        with pytest.raises(Stopped):
            train_labeler(coco, drawn / "images", config, folder=tmp_path, device=GPU)
    figures = train_labeler(coco, drawn / "images", config, folder=tmp_path, device=GPU)
    assert figures["steps"] == 8


def test_masks_made_on_a_gpu_are_the_cpus(compose, drawn: Path, tmp_path: Path) -> None:
    config = compose("profile=smoke", "train.precision=fp32")
    coco = strip(read(drawn / "annotations.json", masks=False))
    masks = []
    for device in (CPU, GPU):
        seed_everything(0)
        network = build_learner(config, device).student.eval()
        labels = label_dataset(
            coco, drawn / "images", mal_labeler([network], config, device), folder=tmp_path / device.type,
            shard_images=4,
        )  # fmt: skip
        masks.append([decode_mask(a["segmentation"], height=128, width=128) for a in labels["annotations"]])
    differing = sum((first != second).sum() for first, second in zip(*masks, strict=True))
    assert differing < 1e-3 * sum(mask.size for mask in masks[0])


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")  # torch's compiler has many
@pytest.mark.parametrize("precision", ["fp32", "bf16", "fp16"])
@pytest.mark.parametrize("name", [*RUNS])
def test_every_method_and_segmenter_learns_on_a_gpu(compose, tmp_path: Path, name: str, precision: str) -> None:
    settings = settings_of(name, tmp_path)
    settings += [f"train.precision={precision}", f"segmenter.precision={precision}", "crf.backend=auto"]
    losses = {
        device: {
            metric: value
            for metric, value in metrics(compose, tmp_path / device, f"device={device}", *settings).items()
            if metric.startswith("train_")
        }
        for device in ("cpu", "cuda")
    }
    assert losses["cuda"].keys() == losses["cpu"].keys()
    assert all(map(math.isfinite, losses["cuda"].values()))
    if precision == "fp32":  # roundings of another order
        assert losses["cuda"] == pytest.approx(losses["cpu"], rel=0.05, abs=1e-3)
