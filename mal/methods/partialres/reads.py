"""The settings that Partial-RES's stages read; keys of results are made of them.

A training's are taken from the config that `lessons` gives, in which settings that it does not read have their default
values. So REC has one key whatever the settings of contours are, and the rival one whatever those of sequences are.
"""

from mal.engine.settings import Reads

# Checkpoints, language models and word vectors are files, known by their content; the precision is that of the device.
LEARNING = "epochs steps batch lr backbone warmup drop_at weight_decay clip ema"
SEQUENCE = "points bins sampler shuffle task"
SMOOTHING = "smoothing"  # of labels, in both trainings
NETWORK: Reads = {
    "network": {
        "": "model width heads encoder_layers decoder_layers feed_forward dropout stride language_token",
        "text": "encoder words width hidden rate",
        "query": "queries",
    },
    "parts": "cctf pmca pmca_start",
    "sequence": SEQUENCE,
}
_BOTH: Reads = {**NETWORK, "image": "side crop scales flip"}
ENCODER = "name timm pretrained freeze_norm mean std options"
REC: Reads = {"": "seed", "encoder": ENCODER, "partialres": {**_BOTH, "rec": f"{LEARNING} first", "res": SMOOTHING}}
RES: Reads = {
    "": "seed",
    "encoder": ENCODER,
    "partialres": {**_BOTH, "rec": "first", "res": f"{LEARNING} start start_from end {SMOOTHING} snapshots"},
}
FORMER = {  # of results older than the settings
    "partialres.res.snapshots": 0,
    "partialres.testing.in_box": "cut",
    "partialres.network.text.encoder": "gru",
    "partialres.network.text.rate": 0.1,
}
FEW: Reads = {"": "seed", "partialres": {"few": "percent"}}
PREDICTION: Reads = {"partialres": {"sequence": "read_back fill", "testing": "weights"}}
LABELS: Reads = {"partialres": {"sequence": "read_back fill", "testing": "weights in_box"}}
BOXES: Reads = {"partialres": {"sequence": "read_back", "testing": "weights"}}
GUESSES: Reads = {"": "seed", "partialres": {"sequence": "read_back fill", "pseudo": "expression weights"}}
PSEUDO: Reads = {"partialres": {"pseudo": "kind threshold", "sequence": "fill"}}
SCORE: Reads = {"partialres": {"testing": "crowd_quirk", "sequence": "points bins sampler read_back fill"}}
LOOKS: Reads = {"partialres": {"testing": "weights looks", "sequence": "points sampler read_back fill"}}
HOW = frozenset({"partialres.testing.batch"})
