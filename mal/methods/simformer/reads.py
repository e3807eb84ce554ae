"""Which settings SimFormer's stages read: what the keys of its results are made of."""

from mal.engine.settings import Reads

# What training reads. Checkpoints are files, known by their content; the novel classes are those of the view, an input;
# the precision is that of the device.
ENCODER: Reads = {"encoder": "name timm pretrained freeze_norm mean std options"}
NETWORK: Reads = {"network": "width queries layers heads feed_forward dropout memory"}
AUGMENT = "side long_side scales crop tries colour colour_chance brightness contrast saturation hue flip"
TRAINING: Reads = {
    "": "seed",
    **ENCODER,
    "simformer": {
        **NETWORK,
        "losses": "classes nothing focal dice alpha gamma complement background base_lost",
        "pairs": "kind points share reference rarest most_novel most_base",
        "similarity": "weight window counts detach",
        "distillation": "weight loss student points",
        "augment": f"{AUGMENT} redraw true_masks_after tags",
        "learning": "batch steps warm_start lr backbone power weight_decay clip",
    },
}
# what the file of a network that was trained here says of it, so that it can be used without its run
FILE_HOLDS: Reads = {**ENCODER, "simformer": {**NETWORK, "augment": "side long_side"}}
PREDICTION: Reads = {"simformer": {"testing": "short_side long_side"}}
SIMILARITY: Reads = {"": "seed", "simformer": {"testing": "short_side long_side pairs", "pairs": "points"}}
CLASSIFIER: Reads = {
    "": "seed",
    **ENCODER,
    "simformer": {
        "augment": AUGMENT,
        "learning": "batch weight_decay power",
        "pseudo": "cam_steps cam_lr cam_stride",
    },
}
PSEUDO: dict[str, Reads] = {  # by `pseudo.kind`
    "own": {"simformer": {"testing": "long_side", "pseudo": "short_sides flip"}},
    "cam": {"simformer": {"testing": "long_side", "pseudo": "short_sides flip cam_stride"}},
    "complement": {},
}
