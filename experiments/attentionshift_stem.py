"""Make the shipped stem: the stages of an ImageNet MobileNetV2 up to stride 8, in half precision.

python experiments/attentionshift_stem.py ../shared/weights/mobilenetv2_100_same_in1k.safetensors
"""

import sys
from pathlib import Path

from mal.encoders.backbones import read_weights
from mal.methods.attentionshift.config.network import StemConfig
from mal.methods.attentionshift.stem import SHIPPED, Stem

OPTIONS = {"pad_type": "same"}


def main(weights: Path) -> None:
    from safetensors.torch import save_file  # and torch, before which mal sets how its threads wait

    config = StemConfig(timm="mobilenetv2_100", pretrained=False, options=OPTIONS)
    used = Stem(config, patch=8, channels=1).body.state_dict()
    state = {key: value for key, value in read_weights(weights).items() if key in used}
    halved = {key: value.half() if value.ndim > 1 else value for key, value in state.items()}
    save_file({key: value.contiguous() for key, value in halved.items()}, SHIPPED)
    print(f"{SHIPPED}: {len(halved)} tensors, {SHIPPED.stat().st_size} bytes")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
