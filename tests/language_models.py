"""Small text encoders with random weights, in folders as transformers writes those of its hub."""

from collections.abc import Callable
from pathlib import Path

import torch
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors
from transformers import (
    BertConfig,
    BertModel,
    CLIPTextConfig,
    CLIPTextModel,
    DistilBertConfig,
    DistilBertModel,
    PreTrainedModel,
    RobertaConfig,
    RobertaModel,
    T5Config,
    T5EncoderModel,
)

WORDS = ("the", "red", "left", "right", "most", "star", "circle", "square", "on", "top", "##most", "##s")
NAMED = ("[PAD]", "[UNK]", "[CLS]", "[SEP]")
PIECES = (*NAMED, *WORDS)
SIZES = {"hidden_size": 12, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 16}


def _wordpiece() -> Tokenizer:
    """BERT's kind, whose padding is piece 0."""
    found = Tokenizer(models.WordPiece({piece: i for i, piece in enumerate(PIECES)}, unk_token="[UNK]"))
    found.normalizer = normalizers.BertNormalizer(lowercase=True)
    found.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    found.post_processor = processors.BertProcessing(("[SEP]", 3), ("[CLS]", 2))
    found.enable_padding(length=32)  # as some published files have it
    return found


def _characters() -> Tokenizer:
    """RoBERTa's kind, of bytes: nothing is unknown, and piece 0 begins a text."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    pieces = ["<s>", "<pad>", "</s>", "<unk>", *alphabet]
    found = Tokenizer(models.BPE({piece: i for i, piece in enumerate(pieces)}, [], unk_token="<unk>"))
    found.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=True)
    found.post_processor = processors.RobertaProcessing(("</s>", 2), ("<s>", 0))
    return found


def _sentencepiece() -> Tokenizer:
    """T5's kind, with the space as a piece."""
    pieces = [("<pad>", 0.0), ("</s>", 0.0), ("<unk>", 0.0), ("\u2581", -2.0)]
    pieces += [(f"\u2581{word}", -1.0) for word in WORDS if word.isalpha()]
    found = Tokenizer(models.Unigram(pieces, unk_id=2))
    found.pre_tokenizer = pre_tokenizers.Metaspace()
    found.post_processor = processors.TemplateProcessing(single="$A </s>", special_tokens=[("</s>", 1)])
    return found


def _bert() -> PreTrainedModel:
    return BertModel(BertConfig(vocab_size=len(PIECES), max_position_embeddings=16, **SIZES))


def _roberta() -> PreTrainedModel:
    return RobertaModel(RobertaConfig(vocab_size=260, max_position_embeddings=64, pad_token_id=1, **SIZES))


def _distilbert() -> PreTrainedModel:
    sizes = {"dim": 12, "n_layers": 2, "n_heads": 2, "hidden_dim": 16}
    return DistilBertModel(DistilBertConfig(vocab_size=len(PIECES), max_position_embeddings=16, **sizes))


def _t5() -> PreTrainedModel:
    return T5EncoderModel(T5Config(vocab_size=40, d_model=12, d_kv=6, d_ff=16, num_layers=2, num_heads=2))


def _clip() -> PreTrainedModel:
    return CLIPTextModel(CLIPTextConfig(vocab_size=260, max_position_embeddings=32, **SIZES))


KINDS: dict[str, tuple[Callable[[], PreTrainedModel], Callable[[], Tokenizer]]] = {
    "bert": (_bert, _wordpiece),
    "roberta": (_roberta, _characters),
    "distilbert": (_distilbert, _wordpiece),
    "t5": (_t5, _sentencepiece),
    "clip": (_clip, _characters),
}


def write(folder: Path, kind: str = "bert", **changed: float) -> PreTrainedModel:
    """A model and its tokenizer, as `hf download` leaves them.

    Args:
        changed: of the model's settings.
    """
    torch.manual_seed(0)
    model, tokenizer = KINDS[kind][0](), KINDS[kind][1]()
    model.config.update(changed)
    model.save_pretrained(folder)
    tokenizer.save(str(folder / "tokenizer.json"))
    return model.eval()
