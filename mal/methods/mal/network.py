"""Mask Auto-Labeler: a student learns masks from boxes, an EMA teacher steadies it (§3.2, §3.3, Fig. 2)."""

from collections.abc import Callable
from copy import deepcopy
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from mal.config import Config
from mal.data.rois import RoiBatch
from mal.encoders.bilinear import resize
from mal.encoders.encoder import Encoder
from mal.encoders.normalise import normalise
from mal.engine.average import average_into
from mal.engine.compilation import compile_blocks
from mal.engine.precision import autocast
from mal.errors import ConfigError
from mal.methods.mal.config import CrfConfig, LossConfig
from mal.methods.mal.crf import mean_field
from mal.methods.mal.decoders import build_decoder, gather
from mal.methods.mal.labeler_file import read_labeler
from mal.methods.mal.losses import crf_loss, mil_loss

COMPILE_FROM = 20_000  # crops to label, from which on compiling takes less time than it saves
Photometrics = Callable[[Tensor, Tensor], Tensor]


class MaskNetwork(nn.Module):
    """Encoder and decoder: crops in, mask logits out."""

    def __init__(self, encoder: Encoder, decoder: nn.Module) -> None:
        super().__init__()
        self.encoder, self.decoder = encoder, decoder

    def forward(self, images: Tensor, sizes: Tensor, *, side: int) -> Tensor:
        """Logits of each crop's mask.

        Args:
            images: (B, 3, S, S) RGB in [0, 1].
            sizes: (B,) int64 object sizes: 0, 1, 2 for S, M, L.
            side: of the maps returned.

        Returns:
            (B, side, side) float32.
        """
        groups = self.decoder(self.encoder(images), sizes, image_size=images.shape[-1])
        return gather([(chosen, logits.float()) for chosen, logits in groups], len(images), side)


@dataclass
class StepLosses:
    """Losses of one micro-batch: what is minimised, and its parts for the curves."""

    total: Tensor
    mil: Tensor
    crf: Tensor
    foreground: Tensor  # share of the box that the mean field calls foreground; 0 where no box is left


def build_network(config: Config) -> MaskNetwork:
    """The student's network, its convolutions channels-last: torch's CPU kernels are up to 1.5 times faster so.

    Raises:
        ConfigError, WeightsError.
    """
    encoder = Encoder(config.encoder, image_size=config.roi.size)
    network = MaskNetwork(encoder, build_decoder(config.decoder, encoder))
    return network.to(memory_format=torch.channels_last)


def starting_network(config: Config) -> MaskNetwork:
    """The student before its first step: with the weights of `train.start`, without one as `build_network` gives it.

    Raises:
        MalError, ConfigError, WeightsError: weights that cannot be had, or are of another network.
    """
    start = config.train.start
    if start is None:
        return build_network(config)
    checkpoint = read_labeler(start)
    network = build_network(_without_weights(config))
    try:
        network.load_state_dict(checkpoint["teacher" if "teacher" in checkpoint else "student"])
    except RuntimeError as error:
        reason = " ".join(str(error).split(":", 1)[-1].split())[:120]
        raise ConfigError(
            f"train.start={start} is a labeler of another network than encoder={config.encoder.name}, "
            f"decoder={config.decoder.name} ({reason} …); give the settings that it was trained with"
        ) from error
    return network


def _without_weights(config: Config) -> Config:
    """The same with an encoder whose weights come from elsewhere, so that none are downloaded."""
    return replace(config, encoder=replace(config.encoder, pretrained=False, checkpoint=None))


class Teacher(nn.Module):
    """An EMA of every parameter and floating-point buffer of the student (`average_into`), starting as a copy of it."""

    def __init__(self, student: MaskNetwork, momentum: float) -> None:
        super().__init__()
        self.module = deepcopy(student).requires_grad_(False).eval()
        self.momentum = momentum
        # of torch's EMA, which runs begun earlier had
        self.register_load_state_dict_pre_hook(lambda _, state, *__: state.pop("n_averaged", None))

    def forward(self, images: Tensor, sizes: Tensor, *, side: int) -> Tensor:
        """As the student's."""
        return self.module(images, sizes, side=side)

    def update(self, student: MaskNetwork) -> None:
        """One step: momentum · teacher + (1 − momentum) · student."""
        average_into(self.module, student, kept=self.momentum)


def compute_losses(
    student: nn.Module,
    teacher: nn.Module,
    rois: RoiBatch,
    *,
    loss: LossConfig,
    crf: CrfConfig,
    photometrics: Photometrics,
    weights: tuple[float, float],
    dtype: torch.dtype = torch.float32,
) -> StepLosses:
    """α_mil·L_mil + α_crf·L_crf of Eq. 1, averaged over the RoIs.

    The teacher sees the plain crop, the student its photometric variant; flip and crop are shared.

    Args:
        photometrics: (B, 3, S, S) images in [0, 1] and (B, 12) draws → the student's images.
        weights: the two α, warm-up included.
        dtype: what the networks compute in.
    """
    plain = rois.pixels.float() / 255
    jittered = photometrics(plain, rois.draws)
    side = plain.shape[-1] // loss.stride
    inside = rois.box_mask(side, form=loss.box_mask)
    valid_rows, valid_columns = rois.valid_lines(side)
    in_image = valid_rows[:, :, None] & valid_columns[:, None, :]
    valid = in_image.float()

    with autocast(plain.device, dtype):
        logits = student(jittered, rois.sizes, side=side)
    with torch.no_grad(), autocast(plain.device, dtype):
        teacher_logits = teacher(plain, rois.sizes, side=side)
    masks, teacher_masks = logits.sigmoid() * valid, teacher_logits.sigmoid() * valid
    seen = jittered if crf.image == "student" else plain
    small = F.interpolate(seen, size=(side, side), mode="bilinear", align_corners=False, antialias=crf.antialias)
    refined = mean_field((masks.detach() + teacher_masks) / 2, normalise(small), inside, crf, valid=in_image)

    mil = mil_loss(masks, inside.amax(2), inside.amax(1), form=loss.mil, smooth=loss.smooth).mean()
    self_training = crf_loss(masks, refined, smooth=loss.smooth).mean()
    total = weights[0] * mil + weights[1] * self_training
    return StepLosses(total, mil.detach(), self_training.detach(), refined.sum() / (inside > 0).sum().clamp_min(1))


@torch.no_grad()
def predict(
    networks: list[nn.Module],
    rois: RoiBatch,
    *,
    flip: bool,
    through: int | None = None,
    dtype: torch.dtype = torch.float32,
) -> Tensor:
    """Mask probabilities of crops at the crops' own side.

    Several networks' logits are averaged, and with `flip` those of the mirrored crop too.

    Args:
        through: logits are first resized to this side, as in training, and from there to the crops' (released).

    Returns:
        (B, S, S) in [0, 1].
    """
    images = rois.pixels.float() / 255
    whole = images.shape[-1]
    side = through or whole
    logits = []
    with autocast(images.device, dtype):
        for network in networks:
            logits.append(network(images, rois.sizes, side=side))
            if flip:
                logits.append(network(images.flip(-1), rois.sizes, side=side).flip(-1))
    return resize(torch.stack(logits).mean(0)[:, None], (whole, whole))[:, 0].sigmoid()


def halfway(config: Config) -> int | None:
    """The side that logits are resized to on their way to the crops' (`label.upsample`); None where there is none."""
    return config.roi.size // config.loss.stride if config.label.upsample == "two_step" else None


def load_networks(
    checkpoint: dict[str, Any], config: Config, device: torch.device, *, crops: int = 0
) -> list[nn.Module]:
    """The labelling networks of a checkpoint: student, teacher, or both (`label.network`).

    All weights come from the checkpoint, so none are downloaded.

    Args:
        crops: about how many they will see; from `COMPILE_FROM` on they are compiled, on a GPU, if `train.compile`.
    """
    config = _without_weights(config)
    names = {"student": ["student"], "teacher": ["teacher"], "both": ["student", "teacher"]}[config.label.network]
    networks: list[nn.Module] = []
    for name in names:
        network = build_network(config)
        network.load_state_dict(checkpoint[name])
        if config.train.compile and device.type == "cuda" and crops >= COMPILE_FROM:
            compile_blocks(network.encoder.backbone)
        networks.append(network.to(device).eval())
    return networks
