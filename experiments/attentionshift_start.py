"""Make the start of AttentionShift's demo: a small ViT whose tokens have learned to find points on drawn images.

python experiments/attentionshift_start.py --images 3000 --steps 12000

A ViT from scratch needs thousands of steps until its tokens look at objects, which the demo's minutes do not hold. So
it learns step 1 alone, from the points of images that are drawn as the demo's are, of another seed. The frozen stem's
features of all images are kept, which makes a step a tenth of a second.
"""

import argparse
import time
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import torch
from hydra import compose, initialize_config_dir
from hydra.core.config_store import ConfigStore
from omegaconf import OmegaConf
from scipy.stats import rankdata
from torch import Tensor, nn
from torch.nn import functional as F

from mal.config import Config
from mal.data import parts, shapes
from mal.data.annotations import decode_mask, read
from mal.data.views import VIEWS
from mal.engine.progress import Progress
from mal.engine.runtime import save_checkpoint, seed_everything
from mal.methods.attentionshift.data import TrainingImages, flipped
from mal.methods.attentionshift.encoder import PointViT
from mal.methods.attentionshift.heads import TokenHeads, sincos_positions
from mal.methods.attentionshift.querying import Points, matched, querying_losses
from mal.methods.attentionshift.rollout import rolled_out
from mal.methods.attentionshift.scaling import upsample

PATCH = 16
SEED = 1000  # of the drawn images: the demo's are 0
PEAK, WARMUP, DECAY, CLIP = 1e-3, 200, 0.05, 1.0


class Kept(nn.Module):
    """In place of the stem's network: features that it has computed."""

    def forward_intermediates(self, features: Tensor, **_: object) -> list[Tensor]:
        return [features]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=3000)
    parser.add_argument("--steps", type=int, default=12_000)
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--kind", choices=["parts", "shapes"], default="parts")
    parser.add_argument(
        "--keep", type=Path, default=Path("results/attentionshift_start"), help="drawn images, features"
    )
    parser.add_argument("--out", type=Path, default=Path("results/attentionshift_start/start.pt"))
    options = parser.parse_args()
    config = settings()
    seed_everything(0, "attentionshift start")
    vit = PointViT(config.encoder, config.attentionshift.tokens, image_size=(192, 192))
    images, val = (features(config, vit, options, split) for split in ("train", "val"))
    classes = 1 + max(int(points.labels.max()) for _, points, _ in images)
    heads = TokenHeads(vit.channels, classes=classes)
    begin(vit)
    vit.stem.body, vit.stem.mean, vit.stem.std = Kept(), (0.0,) * images[0][0].shape[0], (1.0,) * images[0][0].shape[0]
    vit.patch //= config.attentionshift.tokens.stem.stride  # in cells of the features, which stand for images now
    learn(vit, heads, images, val, config, options)
    state = {name: value for name, value in vit.state_dict().items() if not name.startswith("stem.body.")}
    save_checkpoint(options.out, state)


def settings() -> Config:
    """The demo's."""
    ConfigStore.instance().store("schema", Config)
    with initialize_config_dir(str(Path(__file__).parent / "conf"), version_base="1.3"):
        overrides = ["labeler=attentionshift", "encoder=vit_nano16", "data=parts"]
        return OmegaConf.to_object(compose("config", overrides=overrides))  # type: ignore[return-value]


def begin(vit: PointViT) -> None:
    """Positions of patches that say where they are, and tokens as large: with the usual ± .02 learning takes longer."""
    with torch.no_grad():
        vit.vit.pos_embed.copy_(0.5 * sincos_positions(vit.grid[0], vit.channels))
        for parameter in (vit.tokens, vit.token_positions):
            nn.init.normal_(parameter, std=0.35)


def features(config: Config, vit: PointViT, options: argparse.Namespace, split: str) -> list[tuple]:
    """Of each drawn image, as it is and flipped: the stem's features (half precision), its points, and its objects'
    masks at validation."""
    kept = options.keep / f"{options.kind}_{split}_{options.images}.pt"
    if kept.is_file():
        return torch.load(kept, weights_only=False)
    count = options.images if split == "train" else 100
    generate = {"parts": parts, "shapes": shapes}[options.kind].generate
    vit.stem.eval()
    found = []
    with TemporaryDirectory() as name:
        folder = Path(name)
        generate(folder, images=count, size=256, seed=SEED, split=split)
        human = read(folder / "annotations.json", masks=True)
        masks = {a["id"]: a["segmentation"] for a in human["annotations"]}
        view = VIEWS["points"](read(folder / "annotations.json", masks=False))
        scale = config.attentionshift.scale
        scale.flip = 0.0
        dataset = TrainingImages(view, folder / "images", scale=scale, seed=0, most=config.attentionshift.tokens.count)
        with Progress(f"features {split}", total=len(dataset), unit="image") as bar, torch.inference_mode():
            for index in range(len(dataset)):
                sample = dataset[(0, index)]
                known = None
                if split == "val":
                    known = [_small(masks[a["id"]], sample.points.size) for a in dataset.entries[index][1]]
                for each in (sample, flipped(sample)) if split == "train" else (sample,):
                    cells = vit.stem.cells(each.image[None].float() / 255)
                    found.append((cells[0].half().clone(), each.points, known))
                bar.advance()
    kept.parent.mkdir(parents=True, exist_ok=True)
    torch.save(found, kept)
    return found


def _small(segmentation: dict, size: tuple[int, int]) -> np.ndarray:
    mask = decode_mask(segmentation, height=256, width=256)
    whole = torch.from_numpy(np.ascontiguousarray(mask)).float()[None, None]
    return (F.interpolate(whole, size=size, mode="area")[0, 0] > 0.5).numpy()


def learn(
    vit: PointViT, heads: TokenHeads, images: list, val: list, config: Config, options: argparse.Namespace
) -> None:
    parameters = [p for part in (vit, heads) for p in part.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(parameters, lr=PEAK, weight_decay=DECAY, fused=True)
    generator, started, sums = np.random.default_rng(0), time.monotonic(), []
    for step in range(options.steps):
        rate = PEAK * min(1, (step + 1) / WARMUP) * (0.5 + 0.5 * np.cos(np.pi * step / options.steps))
        for group in optimizer.param_groups:
            group["lr"] = rate
        batch = [images[i] for i in generator.integers(0, len(images), options.batch)]
        cells, points = torch.stack([each.float() for each, _, _ in batch]), [each for _, each, _ in batch]
        if generator.random() < 0.5:  # the other way up, which drawn images allow
            cells = cells.flip(-2)
            points = [
                Points(torch.stack([p.xy[:, 0], p.size[0] - p.xy[:, 1]], dim=1), p.labels, p.size) for p in points
            ]
        logits, places = heads(vit(cells, 1).tokens)
        tokens = [
            matched(*own, each, config.attentionshift.querying)
            for *own, each in zip(logits, places, points, strict=True)
        ]
        focal, apart = querying_losses(logits, places, points, tokens, config.attentionshift.querying)
        count = sum(len(each.labels) for each in points)
        optimizer.zero_grad(set_to_none=True)
        ((focal + apart) / count).backward()
        nn.utils.clip_grad_norm_(parameters, CLIP)
        optimizer.step()
        sums.append((float(focal.detach()) / count, float(apart.detach()) / count / 10))
        if (step + 1) % 500 == 0:
            print(
                f"step {step + 1} {time.monotonic() - started:.0f} s",
                np.round(np.mean(sums[-200:], 0), 4),
                *measure(vit, heads, val, config),
                flush=True,
            )


@torch.no_grad()
def measure(vit: PointViT, heads: TokenHeads, val: list, config: Config) -> tuple:
    """Class accuracy, L1 distance; per depth of the rollout the AUC of the maps and the share of peaks on objects."""
    for part in (vit, heads):
        part.eval()
    right, apart, maps_of = [], [], {}
    for cells, points, masks in val:
        seen = vit(cells[None].float(), len(vit.vit.blocks))
        logits, places = heads(seen.tokens)
        own = matched(logits[0], places[0], points, config.attentionshift.querying)
        right += (logits[0, own].argmax(1) == points.labels).tolist()
        apart += (places[0, own] - points.places).abs().sum(1).tolist()
        count = seen.maps[-1].shape[-2] * seen.maps[-1].shape[-1]
        rolled = rolled_out([a[0] for a in seen.attention], 1 + count + own, depth=len(seen.attention))
        for depth, rows in enumerate(rolled[..., 1 : 1 + count].unflatten(2, seen.maps[-1].shape[-2:]), start=1):
            for row, mask in zip(upsample(rows, PATCH).numpy(), masks, strict=True):
                flat, inside = row.ravel(), mask.ravel()
                if inside.any():
                    ranks, n = rankdata(flat), inside.sum()
                    auc = (ranks[inside].sum() - n * (n + 1) / 2) / (n * (len(flat) - n))
                    maps_of.setdefault(depth, []).append((auc, inside[flat.argmax()], inside.mean()))
    for part in (vit, heads):
        part.train()
    return (
        round(np.mean(right), 3),
        round(np.mean(apart), 3),
        {d: np.round(np.mean(v, 0), 3).tolist() for d, v in maps_of.items()},
    )


if __name__ == "__main__":
    main()
