"""Which settings BESTIE's stages read: what the keys of its results are made of."""

from mal.engine.settings import Reads

ENCODER = "name timm pretrained mean std freeze_norm options"
SCALE = "short_side scales crop flip colour"
STEPS = "batch lr warmup_steps power clip"
# What the trainings read. Checkpoints are files, known by their content; the precision is that of the device.
CLASSES: Reads = {
    "": "seed",
    "encoder": ENCODER,
    "bestie": {
        "network": "width stride",
        "class_maps": "absent background radius spared",
        "scale": SCALE,
        "learning": f"{STEPS} class_steps",
    },
}
TRAINING: Reads = {
    "": "seed",
    "encoder": ENCODER,
    "bestie": {
        "network": "width stride",
        "targets": "sigma region",
        "losses": "hardest centre offset refined",
        "scale": SCALE,
        "learning": f"{STEPS} steps",
    },
}
MAPS: Reads = {"bestie": {"class_maps": "reach", "scale": "test_short_side test_long_side", "detection": "flip"}}
LABELLING: Reads = MAPS
DETECTION: Reads = {
    "bestie": {"scale": "test_short_side test_long_side", "detection": "flip window peak max_detections"},
}
