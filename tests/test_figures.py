"""What `python -m analysis.figures` writes and says, on small stores made here."""

import json
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
import pandas as pd
import pytest
from faster_coco_eval.core import mask
from PIL import Image
from test_figure_numbers import labelled, record

import analysis.figures.__main__ as command
from analysis.figures import KINDS, draw_all
from analysis.figures.drawn import Sketch, styled
from analysis.figures.kinds import Kind
from analysis.figures.masks import masks_made
from analysis.figures.results import Results
from analysis.records import finished

LICENCES = [
    {
        "id": 1,
        "name": "Attribution-NonCommercial-ShareAlike License",
        "url": "http://creativecommons.org/licenses/by-nc-sa/2.0/",
    },
    {"id": 4, "name": "Attribution License", "url": "http://creativecommons.org/licenses/by/2.0/"},
    {"id": 5, "name": "Attribution-ShareAlike License", "url": "http://creativecommons.org/licenses/by-sa/2.0/"},
]
IMAGES = {1: 4, 2: 5, 3: 1, 4: None, 5: 4}  # id → licence


def square(x: int, y: int, side: int) -> list[list[int]]:
    return [[x, y, x + side, y, x + side, y + side, x, y + side]]


def write(store: Path, one: dict[str, Any], **files: Any) -> None:
    """A record and its files: .json, .csv (a data frame), .jsonl (rows), .npz (arrays)."""
    folder = store / one["stage"] / one["key"]
    folder.mkdir(parents=True)
    (folder / "run.json").write_text(json.dumps(one))
    for name, content in files.items():
        if isinstance(content, pd.DataFrame):
            content.to_csv(folder / f"{name}.csv", index=False)
        elif name == "curves":
            (folder / "curves.jsonl").write_text("\n".join(map(json.dumps, content)))
        else:
            (folder / f"{name}.json").write_text(json.dumps(content))


@pytest.fixture(scope="module")
def photographs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of five photographs with two objects each, and a COCO file with their licences and human masks."""
    folder = tmp_path_factory.mktemp("photographs")
    images, annotations = [], []
    for number, licence in IMAGES.items():
        pixels = np.random.default_rng(number).integers(0, 255, (60, 80, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / f"{number}.png")
        entry = {"id": number, "file_name": f"{number}.png", "height": 60, "width": 80, "flickr_url": f"f/{number}"}
        images.append(entry if licence is None else {**entry, "license": licence})
        for place, x in enumerate((5, 40)):
            annotations.append(
                {"id": 10 * number + place, "image_id": number, "category_id": 1, "iscrowd": 0,
                 "bbox": [x, 10, 30, 30], "segmentation": square(x, 10, 30)}
            )  # fmt: skip
    whole = {"images": images, "annotations": annotations, "licenses": LICENCES, "categories": [{"id": 1}]}
    (folder / "val.json").write_text(json.dumps(whole))
    return folder


@pytest.fixture
def store(tmp_path: Path, photographs: Path) -> Path:
    """MAL's masks on the photographs, their scores, a training curve, and detections of two segmenters."""
    root, sources = tmp_path / "runs", {"annotations": "a", "images": "i"}
    places = {"annotations": str(photographs / "val.json"), "images": str(photographs)}
    human = json.loads((photographs / "val.json").read_text())
    made = [{**a, "segmentation": square(int(a["bbox"][0]), 10, 30 - a["id"] % 10 * 9), "score": 0.5 + a["id"] / 200}
            for a in human["annotations"]]  # fmt: skip
    instances = pd.DataFrame(
        [{"annotation_id": a["id"], "image_id": a["image_id"], "category_id": 1, "area": 900.0 + a["id"], "size": "S",
          "iou": 1 - a["id"] / 64, "boundary_iou": 0.5, "flagged": False} for a in made]
    )  # fmt: skip
    trained, labels, quality = ({**one, "sources": sources} for one in labelled("m", data="photos", profile="mini"))
    write(root, {**record("boxes_val", "b", data="photos", profile="mini"), "sources": sources, "places": places})
    write(root, trained, curves=[{"step": n, "mil": 1 / n, "crf": 2 / n, "total": 3 / n} for n in (10, 20, 30)])
    write(root, labels, labels={**human, "annotations": made})
    write(root, quality, instances=instances)
    found = [{"image_id": a["image_id"], "score": 0.9, "segmentation": rle(a), "bbox": a["bbox"]} for a in made]
    columns = {"data": "photos", "profile": "mini", "segmenter": "mask2former_tiny", "seed": 0}
    mal = {"labeler": "mal", "recipe": "paper", "encoder": "vit_nano", "supervision": "pseudo"}
    for name, more in (("human", {"supervision": "human"}), ("pseudo", mal)):
        write(root, record("detect_val", name, **columns, **more) | {"sources": sources}, predictions=found)
        score = record("ap_val", name, inputs=[f"detect_val/{name}"], **columns, **more)
        write(root, score | {"sources": sources, "metrics": {"mask_ap": {"value": 0.5, "n": 5}}})
    ratio = record("retention", "r", **columns, **mal)
    write(root, ratio | {"inputs": {"pseudo": "ap_val/pseudo", "human": "ap_val/human"}})
    return root


def rle(annotation: dict[str, Any]) -> dict[str, Any]:
    found = mask.frPyObjects(annotation["segmentation"], 60, 80)[0]
    return {"size": found["size"], "counts": found["counts"].decode()}


SHOWN = ("fig4", "fig6", "fig8", "size", "overlap", "boundary", "score", "labelers")


@pytest.mark.slow
def test_every_figure_is_drawn_or_says_which_command_computes_it(store, tmp_path):
    found = draw_all(store, tmp_path / "out")  # a figure's name is its kind's, and then the data's and the scale's
    drawn = {next(kind for kind in KINDS if f"{figure.name}_".startswith(f"{kind}_")): figure for figure in found}
    assert drawn.keys() == KINDS.keys()
    for name, figure in drawn.items():
        assert figure.title == KINDS[name].title
        if name in SHOWN:
            assert figure.png == tmp_path / "out" / "figures" / f"{name}_photos_mini.png", figure.reason
            assert figure.png.read_bytes().startswith(b"\x89PNG")
            assert figure.png.with_suffix(".pdf").read_bytes().startswith(b"%PDF")
            assert figure.png.with_suffix(".txt").read_text() == figure.caption + "\n"
            assert "Profile mini, data photos" in figure.caption
            assert "commit 0123456" in figure.caption
        else:
            assert figure.png is None
            assert figure.reason == f"the store has nothing for it yet: {KINDS[name].command}"


def test_the_same_store_gives_the_same_bytes(store, tmp_path):
    files = []
    for out in (tmp_path / "once", tmp_path / "again"):
        draw_all(store, out, only=("fig4", "labelers"))
        files.append({path.name: path.read_bytes() for path in sorted((out / "figures").iterdir())})
    assert len(files[0]) == 6
    assert files[0] == files[1]
    assert not any(b"CreationDate" in data or b"Matplotlib" in data for data in files[0].values())


def test_a_users_own_matplotlib_settings_have_no_say(store, tmp_path):
    (before,) = draw_all(store, tmp_path / "before", only=["labelers"])
    with matplotlib.rc_context({"font.size": 20, "lines.linewidth": 9, "savefig.dpi": 30}):
        (after,) = draw_all(store, tmp_path / "after", only=["labelers"])
        assert matplotlib.rcParams["font.size"] == 20
    assert before.png.read_bytes() == after.png.read_bytes()


@pytest.mark.parametrize(
    "name", ["fig4", pytest.param("fig6", marks=pytest.mark.slow), pytest.param("fig8", marks=pytest.mark.slow)]
)
def test_photographs_that_may_not_be_passed_on_are_left_out_and_counted(store, tmp_path, name):
    (every,) = draw_all(store, tmp_path / "all", only=[name])
    assert all(f"image {number}: f/{number}, CC" in every.caption for number in (1, 2, 5))
    assert "image 3: not to be passed on (Attribution-NonCommercial-ShareAlike License)" in every.caption
    assert "image 4: not to be passed on (no licence)" in every.caption
    (free,) = draw_all(store, tmp_path / "free", only=[name], redistributable=True)
    assert free.reason == "2 photographs whose licence forbids to pass them on, or that state none"
    assert "image 1: f/1, CC BY" in free.caption
    assert "image 2: f/2, CC BY-SA" in free.caption
    assert not any(f"image {number}" in free.caption for number in (3, 4))


@pytest.mark.slow
def test_figure_8_says_that_a_published_segmenter_stands_for_human_masks(store, tmp_path):
    (trained,) = draw_all(store, tmp_path / "trained", only=["fig8"])
    assert "mask2former_tiny trained on human masks and on the masks of MAL (vit_nano), everything else alike" in (
        trained.caption
    )
    for stage in ("detect_val", "ap_val"):
        path = store / stage / "human" / "run.json"
        record = json.loads(path.read_text())
        record["columns"] |= {"supervision": "published", "published_file": "F.pth"}
        path.write_text(json.dumps(record))
    (published,) = draw_all(store, tmp_path / "published", only=["fig8"])
    assert "mask2former_tiny as published (F.pth) and trained on the masks of MAL (vit_nano). Rule" in published.caption
    assert trained.png.read_bytes() != published.png.read_bytes()


def test_a_licences_id_counts_only_where_the_file_means_cocos(store, photographs, tmp_path):
    file = photographs / "val.json"
    whole = file.read_text()
    try:
        file.write_text(whole.replace("licenses/by/2.0/", "licenses/by-nc/2.0/"))
        (free,) = draw_all(store, tmp_path / "a", only=["fig4"], redistributable=True)
        assert free.reason.startswith("4 photographs")
        file.write_text(json.dumps({**json.loads(whole), "licenses": []}))
        (none,) = draw_all(store, tmp_path / "b", only=["fig4"], redistributable=True)
        assert none.png is None
        assert none.reason == "none of the 5 photographs states a licence to pass it on"
        assert not list((tmp_path / "b").rglob("fig4*"))
    finally:
        file.write_text(whole)


def test_figure_4_shows_the_best_the_median_and_the_worst_image(store):
    with styled():
        (sketch,) = masks_made(Results.of(store, finished(store)))
    titles = [axes.get_title() for axes in sketch.figure.axes if axes.get_title()]
    means = [1 - (10 * image + 0.5) / 64 for image in (1, 2, 3, 4, 5)]
    names = ("best", "rank 2", "median", "rank 4", "worst")
    assert titles == [f"{name}: {mean:.2f}" for name, mean in zip(names, means, strict=True)]


def test_a_missing_or_broken_file_is_a_reason_and_no_crash(store, tmp_path):
    (store / "label_val" / "m" / "labels.json").unlink()
    (store / "train_labeler" / "m" / "curves.jsonl").write_text('{"step": 1, ')
    names = ("fig4", "fig6", "overlap", "score", "labelers")
    found = {figure.name: figure for figure in draw_all(store, tmp_path / "out", only=names)}
    for name in names[:-1]:
        assert found[f"{name}_photos_mini"].png is None
        assert "label_val/m/labels.json is not in this store" in found[f"{name}_photos_mini"].reason
    assert "train_labeler/m: curves.jsonl cannot be read" in found["labelers_photos_mini"].reason


def test_of_many_sentences_about_what_is_left_out_the_first_are_said_and_the_rest_counted(store, tmp_path, monkeypatch):
    kind = Kind("A figure", "a command", lambda _: [Sketch("photos", None, left_out=tuple("abcde"))])
    monkeypatch.setitem(KINDS, "size", kind)
    (found,) = draw_all(store, tmp_path / "out", only=["size"])
    assert found.reason == "a; b; c; and 2 more"


def test_the_command_prints_what_it_wrote_and_what_is_missing(store, tmp_path, capsys):
    assert command.main(["--store", str(store), "--out", str(tmp_path / "out"), "--only", "labelers", "fig7"]) == 0
    first, second = capsys.readouterr().out.splitlines()
    assert first == f"{tmp_path / 'out' / 'figures' / 'labelers_photos_mini.png'} (.pdf, .txt)"
    assert second.endswith("the store has nothing for it yet: python experiments/run.py experiment=fig7")


def test_an_empty_store_is_one_sentence(tmp_path, capsys):
    assert command.main(["--store", str(tmp_path), "--out", str(tmp_path / "out")]) == 1
    assert capsys.readouterr().err == f"error: the store {tmp_path} holds no finished run; `make demo` makes one\n"


def test_a_place_that_cannot_be_written_is_one_sentence(store, tmp_path, capsys):
    (tmp_path / "out").write_text("")
    assert command.main(["--store", str(store), "--out", str(tmp_path / "out"), "--only", "size"]) == 1
    assert "cannot write below" in capsys.readouterr().err
