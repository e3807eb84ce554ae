"""bf16 and fp16: every recipe, decoder and family of encoders trains, labels and is looked at in both, close to fp32.

A GPU trains in bf16 unless it is told otherwise; these tests run the same autocast on a CPU.
"""

from collections.abc import Iterator
from dataclasses import replace
from functools import cache
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from mal.config import Config
from mal.data import shapes
from mal.data.annotations import read
from mal.data.rois import RoiBatch, TrainingRois
from mal.encoders.attention import attention_maps
from mal.encoders.encoder import Encoder
from mal.engine.precision import autocast, network_dtype
from mal.engine.runtime import seed_everything
from mal.methods.mal.network import StepLosses, build_network, compute_losses, predict
from mal.methods.mal.train import build_learner, training_step
from mal.metrics.clustering import clustering_score

CPU = torch.device("cpu")
RECIPES, DECODERS = ("paper", "released", "best"), ("attention", "fc", "fcn", "query")
FAMILIES = ("vit_nano", "swin_nano", "convnext_nano", "mobilenetv2")
STEPS = 3
# Of losses of order 1 (MIL, CRF). bf16 has 8 bits, fp16 11; a label of the mean field that hangs even falls to one side
# or the other, and AdamW's first steps go by the gradient's sign, so that weights part where gradients are next to 0.
FIRST = {"bf16": 0.02, "fp16": 0.003}
LATER = {"bf16": 0.06, "fp16": 0.03}


@pytest.fixture(scope="module")
def drawn(tmp_path_factory: pytest.TempPathFactory) -> Any:
    folder = tmp_path_factory.mktemp("shapes")
    shapes.generate(folder, images=6, size=128, seed=0, split="train")
    return folder


@pytest.fixture(scope="module")
def batch(compose, drawn) -> RoiBatch:
    """Eight crops of 32² with objects of all sizes."""
    config = compose("profile=smoke")
    coco = read(drawn / "annotations.json", masks=False)
    rois = TrainingRois(coco, drawn / "images", config=config.roi, batch=8, pool_images=6, seed=0, workers=1)
    found = next(iter(rois.batches(0, 1)))
    return replace(found, sizes=torch.arange(8) % 3)


@pytest.fixture(scope="module")
def trained(compose, batch) -> Any:
    """(recipe, decoder, encoder, precision) → the losses of three steps."""

    @cache
    def losses(recipe: str, decoder: str, encoder: str, precision: str) -> torch.Tensor:
        config = compose("profile=smoke", f"recipe={recipe}", f"decoder={decoder}", f"encoder={encoder}",
                         "encoder.pretrained=false", f"train.precision={precision}")  # fmt: skip
        seed_everything(0)
        learner = build_learner(config, CPU)
        if precision == "fp16":  # torch's first scale, 65,536, is halved over the first steps, which are not done
            learner.scaler = torch.amp.GradScaler("cpu", init_scale=64)
        steps = [training_step(learner, batch, config, weights=(4.0, 0.5)) for _ in range(STEPS)]
        assert all(torch.isfinite(weight).all() for weight in learner.student.parameters())
        return torch.stack([torch.stack([step.mil, step.crf]) for step in steps])

    return losses


def pairs() -> Iterator[Any]:
    """Every two of a recipe, a decoder and a family; the quick tests take each twice or more often."""
    for row, decoder in enumerate(DECODERS):
        for turn in range(len(FAMILIES)):
            recipe, family = RECIPES[turn % len(RECIPES)], FAMILIES[(row + turn) % len(FAMILIES)]
            marks = () if turn - row % 2 in (0, 1) else pytest.mark.slow
            yield pytest.param(recipe, decoder, family, marks=marks, id=f"{recipe}-{decoder}-{family}")


@pytest.mark.parametrize("precision", ["bf16", "fp16"])
@pytest.mark.parametrize(("recipe", "decoder", "encoder"), list(pairs()))
def test_three_steps_in_half_precision_lose_what_full_precision_loses(trained, recipe, decoder, encoder, precision):
    full, half = (trained(recipe, decoder, encoder, name) for name in ("fp32", precision))
    assert (full[-1] != full[0]).any(), "nothing was learned"
    assert half.dtype == torch.float32
    apart = (half - full).abs()
    assert apart[0].max() < FIRST[precision], f"{half} instead of {full}"
    assert apart.max() < LATER[precision], f"{half} instead of {full}"


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_what_surrounds_the_networks_stays_in_full_precision(compose, batch, dtype):
    """Photometrics, masks, mean field and losses see float32, and no autocast surrounds them."""
    config = compose("profile=smoke")
    seen: dict[str, Any] = {}

    def photometrics(images: torch.Tensor, _draws: torch.Tensor) -> torch.Tensor:
        seen["photometrics"] = (images.dtype, torch.is_autocast_enabled("cpu"))
        return images

    class Watched(nn.Module):
        def __init__(self, network: nn.Module) -> None:
            super().__init__()
            self.network = network

        def forward(self, images: torch.Tensor, sizes: torch.Tensor, *, side: int) -> torch.Tensor:
            seen["network"] = (images.dtype, torch.is_autocast_enabled("cpu"), torch.get_autocast_dtype("cpu"))
            return self.network(images, sizes, side=side)

    network = Watched(build_network(config))
    found = compute_losses(
        network, network, batch, loss=config.loss, crf=config.crf, photometrics=photometrics, weights=(4, 0.5),
        dtype=dtype,
    )  # fmt: skip
    assert seen == {"photometrics": (torch.float32, False), "network": (torch.float32, True, dtype)}
    assert {value.dtype for value in vars(found).values()} == {torch.float32}
    assert isinstance(found, StepLosses)


@pytest.mark.parametrize("precision", ["bf16", "fp16"])
@pytest.mark.parametrize("encoder", FAMILIES)
def test_labelling_in_half_precision_gives_the_masks_of_full_precision(compose, batch, encoder, precision):
    config = compose("profile=smoke", f"encoder={encoder}", "encoder.pretrained=false")
    seed_everything(0)
    network = build_network(config).eval()
    full, half = (predict([network], batch, flip=True, dtype=network_dtype(name, CPU)) for name in ("fp32", precision))
    assert half.dtype == torch.float32
    assert (half - full).abs().max() < 2 * FIRST[precision]


def built(config: Config) -> Encoder:
    seed_everything(0)
    return Encoder(replace(config.encoder, levels=None, fuse=False), image_size=64).eval()


@pytest.mark.parametrize("precision", ["bf16", "fp16"])
@pytest.mark.parametrize("encoder", FAMILIES)
def test_clustering_scores_hardly_move(compose, drawn, encoder, precision):
    config = compose("profile=smoke", f"encoder={encoder}", "encoder.pretrained=false")
    human = read(drawn / "annotations.json", masks=True)
    scores = []
    for name in ("fp32", precision):
        metrics, _ = clustering_score(
            human, drawn / "images", built(config), config=replace(config.roi, size=64), source="crops", batch=8,
            workers=1, device=CPU, dtype=network_dtype(name, CPU),
        )  # fmt: skip
        scores.append([metrics["clustering"], metrics["clustering_global"]])
    np.testing.assert_allclose(scores[1], scores[0], atol=FIRST[precision])


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_attention_maps_are_float32_and_sum_to_one(compose, batch, dtype):
    encoder = built(compose("profile=smoke"))
    images = torch.nn.functional.interpolate(batch.pixels.float() / 255, size=(64, 64))
    full = attention_maps(encoder, images, [1, 3])
    with autocast(CPU, dtype):
        half = attention_maps(encoder, images, [1, 3])
    for layer, maps in full.items():
        assert half[layer].dtype == torch.float32
        torch.testing.assert_close(half[layer].sum(-1), torch.ones_like(half[layer].sum(-1)), atol=4e-3, rtol=0)
        torch.testing.assert_close(half[layer], maps, atol=1e-3, rtol=0.05)
