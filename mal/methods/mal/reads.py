"""Which settings MAL's stages read: what the keys of its results are made of."""

from mal.engine.settings import Json, Reads

# What training reads. The encoder's checkpoint and `train.start` are files, known by their content; the precision is
# that of the device.
TRAINING: Reads = {
    "": "seed",
    "encoder": "name timm pretrained levels fuse width freeze_norm mean std options",
    "decoder": "name width pool key_layers upsample_before scale key_gain strides",
    "roi": "size expansion theta border flip min_side min_area max_area repeats",
    "augment": "jitter jitter_p grey_p blur_sigma blur_p",
    "loss": "mil smooth mil_weight crf_weight mil_warmup crf_warmup box_mask stride",
    "crf": "form zeta omega kernel dilation centre iterations image antialias",
    "train": "batch accumulate epochs steps lr_per_image warmup final_lr betas eps weight_decay ema pool_images",
}
DECODERS: dict[str, Reads] = {  # and this, of the decoder that it has
    "fc": {"fc": "hidden pool side"},
    "query": {"query": "layers heads queries ffn combine"},
}
LABELLING: Reads = {"label": "network flip threshold upsample antialias cut"}
FORMER: Json = {  # what results were computed with that do not mention a newer setting
    "roi.repeats": "background",
    "loss.box_mask": "cell",
    "crf.antialias": True,
    "label.upsample": "direct",
    "label.antialias": True,
    "label.cut": True,
}
HOW = {  # how the work is done, not what it gives
    "train.checkpoint_seconds",
    "train.stop_after",
    "train.workers",
    "train.compile",
    "crf.backend",
    "label.batch",
    "label.shard_images",
}
