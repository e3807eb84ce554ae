"""A published language model reads expressions in the GRU's place, with its own pieces and its own weights."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from language_models import KINDS, PIECES, write
from transformers import CLIPConfig, GPT2Config, GPT2Model, ViTConfig

from mal.errors import ConfigError, WeightsError
from mal.methods.partialres import checks, columns, lessons
from mal.methods.partialres.checkpoint import FILE, load
from mal.methods.partialres.config import PartialresConfig
from mal.methods.partialres.config.network import TextConfig
from mal.methods.partialres.data import TrainingObjects, collate
from mal.methods.partialres.learner import Learner
from mal.methods.partialres.objects import referred
from mal.methods.partialres.own_files import OWN_FILES
from mal.methods.partialres.schedule import build_optimizer
from mal.methods.partialres.starting import starting_network
from mal.methods.partialres.text.language_model import LanguageModel
from mal.methods.partialres.text.lexicon import is_plain, lexicon_of, restored, side_by_side, text_encoder
from mal.methods.partialres.text.subwords import Subwords
from mal.methods.partialres.train import train
from tests.partialres_cases import changed, draw, some_masks

CPU = torch.device("cpu")
TEXTS = [["the", "leftmost", "star"], ["red"], ["the", "circles", "on", "top"]]
DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}


def of(folder: Path, **more) -> TextConfig:
    return TextConfig(encoder="transformer", checkpoint=str(folder), **more)


def encoder(folder: Path, **more) -> LanguageModel:
    found = text_encoder(of(folder, **more), Subwords.of_folder(folder), load=True)
    assert isinstance(found, LanguageModel)
    return found


@pytest.mark.parametrize("kind", [*KINDS])
def test_a_vector_is_the_models_largest_output_over_the_expressions_own_pieces(tmp_path: Path, kind: str) -> None:
    """By the library's model on each expression alone, with the library's own ids: padding says nothing."""
    model, ours = write(tmp_path, kind).double(), encoder(tmp_path).double().eval()
    tokenizer = KINDS[kind][1]()
    tokenizer.no_padding()
    lexicon = Subwords.of_folder(tmp_path)
    words = side_by_side([lexicon.encode(text, 15) for text in TEXTS])
    found = ours(words).double()
    assert found.shape == (3, ours.channels) == (3, 12)
    for row, text in enumerate(TEXTS):
        pieces = torch.tensor([tokenizer.encode(" ".join(text)).ids])
        expected = model(input_ids=pieces).last_hidden_state.amax(1)[0]
        torch.testing.assert_close(found[row], expected, rtol=0, atol=1e-6)
    assert not torch.equal(found[0], found[1])


def test_words_are_cut_into_the_tokenizers_pieces_and_counted_before(tmp_path: Path) -> None:
    write(tmp_path)
    subwords = Subwords.of_folder(tmp_path)

    def pieces(words: list[str], most: int) -> list[str]:
        return [PIECES[i - 1] for i in subwords.encode(words, most)]

    assert pieces(["the", "leftmost", "zebra"], 15) == ["[CLS]", "the", "left", "##most", "[UNK]", "[SEP]"]
    assert pieces(["the", "leftmost", "zebra"], 1) == ["[CLS]", "the", "[SEP]"]
    long = pieces(["red"] * 40, 40)
    assert (len(long), long[0], long[-1]) == (14, "[CLS]", "[SEP]")  # of 16 positions, two of which may be padding's


@pytest.mark.parametrize(("kind", "strange"), [("bert", "zebra"), ("t5", "zebra"), ("roberta", None)])
def test_unknown_words_are_those_of_unknown_pieces(tmp_path: Path, kind: str, strange: str | None) -> None:
    write(tmp_path, kind)
    subwords = Subwords.of_folder(tmp_path)
    assert subwords.knows("star")
    assert not subwords.all_unknown(["star", "zebra"])
    assert subwords.all_unknown(["zebra"]) == (strange is not None)


def test_the_weights_are_the_folders_and_a_frozen_model_learns_and_drops_nothing(tmp_path: Path) -> None:
    state = write(tmp_path).state_dict()
    ours = encoder(tmp_path, rate=0)
    assert all(torch.equal(value, state[name]) for name, value in ours.model.state_dict().items())
    assert not any(it.requires_grad for it in ours.parameters())
    words = side_by_side([Subwords.of_folder(tmp_path).encode(text, 15) for text in TEXTS])
    ours.train()
    assert torch.equal(ours(words), ours(words))
    learning = encoder(tmp_path).train()
    assert not torch.equal(learning(words), learning(words))  # the model's own dropout
    assert {name for name, it in learning.named_parameters() if not it.requires_grad} == {
        "model.pooler.dense.weight", "model.pooler.dense.bias",
    }  # fmt: skip


def test_an_empty_row_has_a_finite_vector(tmp_path: Path) -> None:
    write(tmp_path)
    assert encoder(tmp_path).eval()(torch.zeros(2, 3, dtype=torch.int64)).isfinite().all()


@pytest.mark.parametrize("name", ["config.json", "tokenizer.json", "model.safetensors"])
def test_a_folder_that_lacks_a_file_is_refused(tmp_path: Path, name: str) -> None:
    write(tmp_path)
    (tmp_path / name).unlink()
    with pytest.raises(WeightsError, match=rf"has no {name}; partialres\.network\.text\.checkpoint names the folder"):
        Subwords.of_folder(tmp_path)


def _cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:100])


def _replaced(name: str, **values: object) -> Callable[[Path], None]:
    def replaced(folder: Path) -> None:
        found = json.loads((folder / name).read_text())
        (folder / name).write_text(json.dumps({**found, **values}))

    return replaced


def _moved_piece(folder: Path) -> None:
    found = json.loads((folder / "tokenizer.json").read_text())
    found["model"]["vocab"]["star"] = 4000
    (folder / "tokenizer.json").write_text(json.dumps(found))


def _no_unknown(folder: Path) -> None:
    found = json.loads((folder / "tokenizer.json").read_text())
    found["model"]["unk_token"] = "[NONE]"
    (folder / "tokenizer.json").write_text(json.dumps(found))


def _sharded(folder: Path) -> None:
    for part in (1, 2):
        shutil.copy(folder / "model.safetensors", folder / f"model-0000{part}-of-00002.safetensors")
    (folder / "model.safetensors").unlink()


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda folder: _cut(folder / "config.json"), "config.json is no JSON"),
        (lambda folder: (folder / "config.json").write_text("{}"), "config.json names no model_type"),
        (
            lambda folder: (folder / "config.json").write_text('{"model_type": "x"}'),
            "of the type x, .* cannot be built",
        ),
        (lambda folder: _cut(folder / "tokenizer.json"), "tokenizer.json is none that the library tokenizers reads"),
        (_no_unknown, "tokenizer.json cannot cut every word into pieces"),
        (_moved_piece, "the tokenizer has 4001 pieces and its model 16: they do not belong together"),
        (lambda folder: _cut(folder / "model.safetensors"), "model.safetensors cannot be read"),
        (
            lambda folder: ViTConfig().save_pretrained(folder),
            "does not make a text into a vector for each",
        ),
        (lambda folder: CLIPConfig().save_pretrained(folder), "does not make a text into a vector for each"),
        (_replaced("config.json", num_hidden_layers=3), "lacks 16 weights, and 0 have another shape"),
        (_replaced("config.json", vocab_size=40), "lacks 0 weights, and 1 have another shape, such as embeddings.word"),
        (_replaced("config.json", vocab_size=3, pad_token_id=0), "has 16 pieces and its model 3"),
    ],
)
def test_what_is_no_text_encoder_is_a_sentence_with_a_way_out(tmp_path: Path, damage, message: str) -> None:
    write(tmp_path)
    damage(tmp_path)
    with pytest.raises(WeightsError, match=message) as error:
        encoder(tmp_path)
    assert "hf download NAME --local-dir FOLDER" in str(error.value)
    assert len(str(error.value)) < 600


def test_weights_in_several_files_are_named(tmp_path: Path) -> None:
    write(tmp_path)
    _sharded(tmp_path)
    with pytest.raises(WeightsError, match=r"its weights in model-00001-of-00002\.safetensors, .*save_pretrained"):
        Subwords.of_folder(tmp_path)


def test_a_tokenizer_of_before_models_named_their_type_is_read(tmp_path: Path) -> None:
    """As the hub's bert-base-uncased has it."""
    write(tmp_path)
    found = json.loads((tmp_path / "tokenizer.json").read_text())
    del found["model"]["type"]
    (tmp_path / "tokenizer.json").write_text(json.dumps(found))
    subwords = Subwords.of_folder(tmp_path)
    assert subwords.all_unknown(["zebra"])
    assert subwords.knows("star")


def test_a_model_that_transformers_does_not_list_as_a_text_encoder_may_be_one(tmp_path: Path) -> None:
    write(tmp_path, "roberta")
    GPT2Model(GPT2Config(vocab_size=260, n_embd=12, n_layer=1, n_head=2)).save_pretrained(tmp_path)
    assert encoder(tmp_path).channels == 12


def test_padding_that_is_no_piece_and_texts_without_one_are_read(tmp_path: Path) -> None:
    write(tmp_path, pad_token_id=-1)
    found = encoder(tmp_path).eval()
    assert found.filler == 0
    assert found(side_by_side([[], []])).isfinite().all()


def test_a_transformer_without_a_folder_is_refused_before_any_work(compose) -> None:
    with pytest.raises(ConfigError, match=r"has no model; partialres\.network\.text\.checkpoint names"):
        checks.check(changed(compose, "network.text.encoder=transformer"))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (("network.text.checkpoint=bert",), "checkpoint=bert is for partialres.network.text.encoder=transformer"),
        (
            ("network.text.encoder=transformer", "network.text.checkpoint=bert", "network.text.vectors=glove.txt"),
            "vectors=glove.txt is for partialres.network.text.encoder=gru, and it is transformer",
        ),
    ],
)
def test_a_file_for_the_other_encoder_is_refused(compose, settings: tuple[str, ...], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        checks.check(changed(compose, *settings))


@pytest.mark.parametrize(
    ("folder", "rate", "name"),
    [
        ("/models/bert-base", ".1", "bert-base"),
        ("/models/bert-base/", "0", "bert-base, frozen"),
        ("/hub/models--google--bert-mini/snapshots/0a1b", ".1", "bert-mini"),
    ],
)
def test_tables_name_the_model(compose, folder: str, rate: str, name: str) -> None:
    settings = ("network.text.encoder=transformer", f"network.text.checkpoint={folder}", f"network.text.rate={rate}")
    assert columns.of_method(changed(compose, *settings))["text"] == name
    assert "text" not in columns.of_method(changed(compose))


def test_a_lexicon_survives_a_file(tmp_path: Path) -> None:
    write(tmp_path)
    for lexicon in (Subwords.of_folder(tmp_path), lexicon_of(PartialresConfig(), TEXTS)):
        assert is_plain(lexicon.plain())
        assert restored(lexicon.plain()) == lexicon
    for wrong in ({"tokenizer": "{}"}, {"tokenizer": "{}", "model": 3}, "words", None):
        assert not is_plain(wrong)


@pytest.fixture
def place(tmp_path: Path) -> Path:
    write(tmp_path / "bert")
    (tmp_path / "view.json").write_text(json.dumps(draw(tmp_path)))
    return tmp_path


def settings_of(place: Path, *more: str) -> tuple[str, ...]:
    return ("network.text.encoder=transformer", f"network.text.checkpoint={place / 'bert'}", *more)


@pytest.mark.parametrize("precision", [*DTYPES])
@pytest.mark.parametrize("model", ["sequence", "query"])
def test_steps_in_every_precision_reach_its_weights(compose, place: Path, model: str, precision: str) -> None:
    config = lessons.for_masks(changed(compose, *settings_of(place, f"network.model={model}")))
    view = json.loads((place / "view.json").read_text())
    known = some_masks(place, *(each["id"] for each in view["annotations"]))
    network, lexicon = starting_network(config, referred(view), rec=False, start=None)
    data = TrainingObjects(
        referred(view), place / "images", config.partialres, lexicon, task="mask", masks=known, seed=0
    )
    learner = Learner(network, smoothing=0.1, dtype=DTYPES[precision]).train()
    losses = learner(collate([data[(0, index)] for index in range(3)]))
    assert all(value.dtype == torch.float32 and bool(value.isfinite()) for value in losses.values())
    torch.stack(list(losses.values())).sum().backward()
    text = dict(network.encoders.text.named_parameters())
    without = {name for name, it in text.items() if it.grad is None}
    assert without == {"model.pooler.dense.weight", "model.pooler.dense.bias"}
    assert all(bool(it.grad.isfinite().all()) for it in text.values() if it.grad is not None)


def test_it_has_a_learning_rate_of_its_own(compose, place: Path) -> None:
    config = lessons.for_boxes(changed(compose, *settings_of(place, "network.text.rate=.25")))
    view = json.loads((place / "view.json").read_text())
    network, _ = starting_network(config, referred(view), rec=True, start=None)
    own = config.partialres
    groups = build_optimizer(network, own.rec, text=own.network.text.rate).param_groups
    inside = {id(it) for it in network.encoders.text.parameters() if it.requires_grad}
    (found,) = [group for group in groups if inside & {id(it) for it in group["params"]}]
    assert found["factor"] == 0.25
    assert {id(it) for it in found["params"]} == inside


def test_a_trained_file_needs_the_folder_no_more_and_goes_on_from_boxes(compose, place: Path) -> None:
    """REC learns with the model, RES starts from what REC made of it, and either file is whole."""
    view, given = json.loads((place / "view.json").read_text()), settings_of(place)
    known = some_masks(place, *(each["id"] for each in view["annotations"]))
    boxes, masks = (make(changed(compose, *given)) for make in (lessons.for_boxes, lessons.for_masks))
    train(view, place / "images", boxes, task="box", folder=place / "rec", device=CPU)
    learned = load(place / "rec" / FILE, boxes, CPU, rec=True).network.encoders.text.state_dict()
    assert any(not torch.equal(learned[name], it) for name, it in encoder(place / "bert").state_dict().items())
    started, _ = starting_network(masks, referred(view), rec=False, start=place / "rec")
    assert all(torch.equal(learned[name], it) for name, it in started.encoders.text.state_dict().items())
    more = {"start": place / "rec", "folder": place / "res", "device": CPU}
    train(view, place / "images", masks, task="mask", masks=known, **more)
    shutil.rmtree(place / "bert")
    found = load(place / "res" / FILE, masks, CPU)
    assert isinstance(found.lexicon, Subwords)
    state = torch.load(place / "res" / FILE, weights_only=True)
    assert OWN_FILES.wrote(state)
    OWN_FILES.check(state, masks, place / "res" / FILE)
    coco = {"annotations": [{"id": 1, "expressions": ["the red zebra"]}, {"id": 2, "expressions": ["zebra"]}]}
    said = [finding.text for finding in OWN_FILES.look(state, masks, coco)]
    assert said == [
        "1 word is new to this labeler, and read as unknown: zebra",
        "1 expression has no known word: nothing says which object is meant",
    ]
    state["words"]["tokenizer"] = "{}"
    with pytest.raises(ConfigError, match=r"tokenizer\.json is none .*copy the labeler\.pt again"):
        OWN_FILES.check(state, masks, place / "res" / FILE)
