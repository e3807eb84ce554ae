"""Settings of Partial-RES's network. Defaults are the recipe of docs/method/partialres.md; R the released program."""

from dataclasses import dataclass, field

from mal.bounds import choice, number


@dataclass
class TextConfig:
    # gru: of embeddings of words | transformer: a published language model (BERT, RoBERTa, …)
    encoder: str = choice("gru", ("gru", "transformer"))
    words: int = number(15, 1, 1 << 10)  # of an expression that are read (R: RefCOCOg 20)
    width: int = number(300, 1, 1 << 12)  # of a word's embedding
    hidden: int = number(512, 1, 1 << 12)  # of the GRU, each way
    # GloVe's text file, whose vectors then stay as they are (R); null: embeddings are learned
    vectors: str | None = None
    # the transformer's folder, with its config.json, tokenizer.json and model.safetensors
    checkpoint: str | None = None
    rate: float = number(0.1, 0, 1)  # the transformer's learning rate ÷ the rest's; 0: frozen (MDETR: .5)


@dataclass
class QueryConfig:
    """The rival, which decodes no sequence: learned queries give a box and a map of pixels."""

    queries: int = number(1, 1, 1 << 10)  # the one of the highest score gives box and mask (SiRi: 16)


@dataclass
class NetworkConfig:
    # sequence: contour points, one coordinate after another | query: a box and a pixel mask from a learned query
    model: str = choice("sequence", ("sequence", "query"))
    width: int = number(256, 4, 1 << 12)  # a multiple of 4 and of `heads`
    heads: int = number(8, 1, 1 << 10)
    encoder_layers: int = number(6, 0, 64)
    decoder_layers: int = number(3, 1, 64)
    feed_forward: int = number(1024, 1, 1 << 16)
    dropout: float = number(0.1, 0, 0.999)
    stride: int = choice(32, (8, 16, 32))  # of the map that is attended to, joined from this and finer ones
    language_token: bool = True  # the expression is a token of the memory beside the pixels (SeqTR: not)
    text: TextConfig = field(default_factory=TextConfig)
    query: QueryConfig = field(default_factory=QueryConfig)


@dataclass
class PartsConfig:
    """The parts that the full method adds to SeqTR's decoder."""

    # co-content teacher forcing: none | matched: a token of x adds the mean of the column that it points into, one of y
    # of the row | transposed: as R has it, x the row and y the column
    cctf: str = choice("matched", ("none", "matched", "transposed"))
    pmca: bool = True  # point-modulated cross-attention
    pmca_start: str = choice("xavier", ("xavier", "zero"))  # of its last layer; zero never learns
    rec: bool = False  # the first training, of boxes, has both parts, too (D: one such training serves every row)


PLAIN = PartsConfig(cctf="none", pmca=False)  # SeqTR's decoder
