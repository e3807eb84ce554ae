"""What a file says of its objects, what methods see of it, and the command that writes such files."""

import json
from pathlib import Path

import pytest
import torch
from PIL import Image

from mal.check import look
from mal.context import Context
from mal.data.annotations import read
from mal.data.expressions import expressions_only, of_annotation, words
from mal.data.own_expressions import read_own
from mal.data.views import VIEWS
from mal.engine.graph import Workdir
from mal.engine.store import Store
from mal.errors import AnnotationError
from mal.expressions import main
from tests.small_files import HEIGHT, WIDTH, coco_file, diamond, each, edit, run_lengths_of

FIRST = ["the plum on the left", "Left-hand plum!"]


def test_an_accent_is_part_of_its_letter_however_it_was_typed() -> None:
    assert words("Cafe\u0301") == words("CAF\u00c9") == ["caf\u00e9"]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("The red star, on the left.", ["the", "red", "star", "on", "the", "left"]),
        ('T-shirt/man (2nd) # "it\'s": a*b; no? yes!', ["t", "shirt", "man", "2nd", "its", "ab", "no", "yes"]),
        ("  two   spaces\tand\nlines ", ["two", "spaces", "and", "lines"]),
        ("Grün", ["grün"]),
        (".,'!?\"()*#:; - /", []),
        ("the “red” dog…", ["the", "red", "dog"]),
        ("The man’s hat – left", ["the", "mans", "hat", "left"]),
        ("dog\u200b，«red»。", ["dog", "red"]),
        ("…—«»\u200b\u200b", []),
    ],
)
def test_words_are_lower_case_without_marks(text: str, expected: list[str]) -> None:
    assert words(text) == expected


def test_a_files_own_expressions_keep_their_order_and_number() -> None:
    assert of_annotation({"id": 1, "expressions": ["b", "a", "b"], "expression": "a"}) == ["b", "a", "b", "a"]
    assert of_annotation({"id": 1, "expression": "c"}) == ["c"]
    assert of_annotation({"id": 1, "expressions": None}) == of_annotation({"id": 1, "expressions": []}) == []


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"expressions": "red"}, r"annotation 7 has expressions='red'; it must be a list of texts: write .expressions"),
        ({"expressions": ["red", 5]}, r"annotation 7 has the expression 5; write "),
        ({"expressions": [""]}, r"annotation 7 has the expression '', of which no word is left; write words, or leave"),
        ({"expression": "?!"}, r"annotation 7 has the expression '\?!', of which no word"),
    ],
)
def test_expressions_that_say_nothing_are_refused(values: dict, message: str) -> None:
    with pytest.raises(AnnotationError, match=message):
        of_annotation({"id": 7, **values})


def referring(folder: Path) -> Path:
    """A file of eight objects: two of them have expressions, one as a list and one as a text."""

    def change(coco: dict) -> None:
        coco["annotations"][0]["expressions"] = FIRST
        coco["annotations"][3]["expression"] = "the right pear"

    return edit(coco_file(folder), change)


def test_the_view_has_expressions_everywhere_and_no_mask(tmp_path: Path) -> None:
    coco = read(referring(tmp_path), masks=True)
    seen = VIEWS["expressions"](coco)
    said = [annotation["expressions"] for annotation in seen["annotations"]]
    assert said == [FIRST, [], [], ["the right pear"], [], [], [], []]
    keys = {"id", "image_id", "category_id", "iscrowd", "bbox", "expressions"}
    assert all(annotation.keys() == keys for annotation in seen["annotations"])
    assert seen["images"] == coco["images"]
    assert "segmentation" in coco["annotations"][0]  # the given file stays as it is


def test_a_crowds_expressions_are_left_out_and_counted(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    coco = read(edit(referring(tmp_path), each(iscrowd=lambda a: int(a["id"] == 100))), masks=False)
    seen = expressions_only(coco, source="a.json")
    assert seen["annotations"][0]["expressions"] == []
    assert "note: a.json: expressions of 1 crowd (iscrowd 1; annotations 100) are left out" in capsys.readouterr().err


def test_expressions_of_several_objects_are_said_where_a_run_would_learn_them(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def change(coco: dict) -> None:
        first, second, *others = coco["annotations"]
        first["expressions"], second["expressions"] = ["The pear!"], ["a pear", "the pear"]
        others[0]["iscrowd"], others[0]["expression"] = 1, "a pear"  # a crowd means nothing

    coco = read(edit(coco_file(tmp_path), change), masks=False)
    expressions_only(coco, source="a.json")
    said = "note: a.json: 1 expression is said of several objects of one image ('the pear' of 100, 101)"
    assert said in capsys.readouterr().err


def test_all_wrong_expressions_of_a_file_are_counted(tmp_path: Path) -> None:
    file = edit(coco_file(tmp_path), each(expressions=lambda a: ["fine", "?"] if a["id"] % 2 else [3]))
    with pytest.raises(AnnotationError, match=r"\(4 annotations have this fault: 100, 102, 104, \.\.\.\)\. Also ann"):
        expressions_only(read(file, masks=False), source=file)


def test_a_look_at_a_file_does_not_mind_expressions(tmp_path: Path) -> None:
    census, findings = look(referring(tmp_path), tmp_path / "images")
    plain, others = look(coco_file(tmp_path / "plain"), tmp_path / "plain" / "images")
    assert census == plain
    assert [finding.level for finding in findings] == [finding.level for finding in others]


# The stage


def context(compose, folder: Path, *more: str) -> Context:
    files = (f"data.train.annotations={folder / 'boxes.json'}", f"data.train.images={folder / 'images'}")
    config = compose("profile=smoke", "data=coco", "labeler=box", "tracking=none", *files, *more)
    return Context(config, Store(folder / "runs"), torch.device("cpu"))


@pytest.mark.parametrize(
    ("kind", "said"),
    [("file", "none of its 2 objects has a referring"), ("templates", "no template is true of one of its objects")],
)
def test_a_view_without_an_expression_is_refused(compose, tmp_path: Path, kind: str, said: str) -> None:
    alike = {"bbox": [6, 14, 65, 70], "category_id": 1, "image_id": 1, "expressions": [], "segmentation": []}

    def change(coco: dict) -> None:
        coco["annotations"] = [{**annotation, **alike} for annotation in coco["annotations"][:2]]

    edit(coco_file(tmp_path), change)
    made = context(compose, tmp_path, f"data.expressions.kind={kind}")
    with pytest.raises(AnnotationError, match=said):
        made.view(made.train, "expressions").work(Workdir(tmp_path, {}, torch.device("cpu")))


def test_the_stage_writes_the_view_and_counts_expressions(compose, tmp_path: Path) -> None:
    coco = read(referring(tmp_path), masks=False)
    keys = set()
    for kind, expected in (("file", expressions_only(coco)), ("templates", expressions_only(coco, kind="templates"))):
        made = context(compose, tmp_path, f"data.expressions.kind={kind}")
        stage = made.view(made.train, "expressions")
        keys.add(stage.key)
        assert stage.name == "expressions_train"
        folder = tmp_path / kind
        folder.mkdir()
        result = stage.work(Workdir(folder, {}, torch.device("cpu")))
        assert json.loads((folder / "expressions.json").read_text()) == expected
        assert result.metrics["expressions"] == sum(len(a["expressions"]) for a in expected["annotations"]) > 0
    assert len(keys) == 2
    others = [context(compose, tmp_path, *more) for more in ((), ("data.expressions.kind=templates",))]
    for name in ("boxes", "points"):
        assert len({one.view(one.train, name).key for one in others}) == 1


def test_the_settings_of_photographs_find_templates(compose) -> None:
    assert compose("data=coco_mini", "data.expressions.kind=templates").data.expressions.kind == "templates"
    assert compose("data=refcocog_umd", "roots.refcoco=/r").data.val.annotations == "refcocog_umd/annotations/val.json"


# The command


def own_list(folder: Path, entries: list) -> Path:
    coco_file(folder)
    file = folder / "own.json"
    file.write_text(json.dumps(entries))
    return file


BOX = [6, 14, 65, 70]
OWN = [
    {"image": "boxes_0.png", "text": "the orange one", "box": BOX},
    {"image": "boxes_1.png", "text": "left", "mask": diamond(BOX), "category": "plum"},
    {"image": "boxes_0.png", "text": "on the left", "box": [6.0, 14, 65, 70.0]},
    {"image": "boxes_1.png", "text": "runs", "box": [1, 2, 30, 40], "mask": run_lengths_of(BOX, text=True)},
]


def test_a_users_list_becomes_a_coco_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file, out = own_list(tmp_path, OWN), tmp_path / "out" / "own.json"
    assert main(["json", str(file), "--images", str(tmp_path / "images"), "--out", str(out)]) == 0
    assert "4 expressions of 3 objects on 2 images\n" in capsys.readouterr().out
    coco = read(out, masks=False)
    assert coco["images"] == [
        {"id": 1, "file_name": "boxes_0.png", "width": WIDTH, "height": HEIGHT},
        {"id": 2, "file_name": "boxes_1.png", "width": WIDTH, "height": HEIGHT},
    ]
    assert [c["name"] for c in coco["categories"]] == ["object", "plum"]
    first, second, third = coco["annotations"]
    assert first == {"id": 1, "image_id": 1, "category_id": 1, "iscrowd": 0, "bbox": BOX,
                     "expressions": ["the orange one", "on the left"]}  # fmt: skip
    assert (second["category_id"], second["expressions"]) == (2, ["left"])
    x, y, w, h = second["bbox"]
    assert max(abs(a - b) for a, b in zip((x, y, w, h), BOX, strict=True)) <= 2
    assert third["bbox"] == [1, 2, 30, 40]
    assert third["segmentation"] == run_lengths_of(BOX, text=True)


def test_one_of_an_objects_entries_may_have_its_mask(tmp_path: Path) -> None:
    plain = {"image": "boxes_0.png", "text": "a", "box": BOX}
    masked = {**plain, "text": "b", "mask": diamond(BOX)}
    other = {**plain, "text": "d", "mask": run_lengths_of(BOX, text=True)}
    alone = {"image": "boxes_0.png", "text": "f", "mask": diamond(BOX)}  # without a box it is where its mask is
    entries = [plain, alone, masked, {**plain, "image": "./boxes_0.png", "text": "c"}, {**masked, "text": "e"}]

    def objects(listed: list) -> list:
        found = read_own(own_list(tmp_path, listed), tmp_path / "images")
        assert [image["file_name"] for image in found["images"]] == ["boxes_0.png"]
        assert [a["id"] for a in found["annotations"]] == [*range(1, len(found["annotations"]) + 1)]
        return [(a["expressions"], "segmentation" in a) for a in found["annotations"]]

    assert objects(entries) == [(["a", "b", "c", "e"], True), (["f"], True)]
    # two masks have the box: whose the others are is not said
    assert objects([*entries, other]) == [(["a", "c"], False), (["f"], True), (["b", "e"], True), (["d"], True)]


@pytest.mark.parametrize(
    ("entry", "message"),
    [
        (5, "entry 1: it is 5; it must be like"),
        ({"text": "a", "box": BOX}, "entry 1: it has no image; its keys are text, box; write it like"),
        ({"image": None, "text": "a", "box": BOX}, "entry 1: image is None; give the image's path"),
        ({"image": "boxes_0.png", "txt": "a", "box": BOX}, "entry 1: it has no text; its keys are image, txt, box; "),
        ({"image": "../a.png", "text": "a", "box": BOX}, r"entry 1: image '\.\./a\.png' leads out of the image folder"),
        ({"image": "../bbox annotation.png", "text": "a", "box": BOX}, r"image '\.\./bbox annotation\.png' leads out"),
        ({"image": "boxes_0.png", "text": "!", "box": BOX}, "entry 1: text is '!'; write what is meant, in words"),
        ({"image": "boxes_0.png", "text": "a"}, "entry 1: it has neither a box nor a mask; its keys are image, text"),
        ({"image": "boxes_0.png", "text": "a", "box": [1, 2, 3]}, "entry 1: box is .1, 2, 3.; it must be a list of"),
        ({"image": "boxes_0.png", "text": "a", "box": [900, 2, 3, 4]}, "entry 1: box .* outside its image .*the entry"),
        ({"image": "boxes_0.png", "text": "a", "box": [-9, 2, 30, 4]}, "entry 1: box .* is partly outside its image"),
        ({"image": "boxes_0.png", "text": "a", "box": [9, 2, 0, 4]}, "entry 1: box .* has no area"),
        (
            {"image": "boxes_0.png", "text": "a", "mask": 5},
            "entry 1: mask is 5; it must be a list of polygons or an RLE",
        ),
        (
            {"image": "boxes_0.png", "text": "a", "box": [1, 2, 3, 4], "mask": diamond(BOX)},
            "entry 1: its mask has no pixel in its box .1, 2, 3, 4.; correct one of them",
        ),
        ({"image": "boxes_0.png", "text": "a", "mask": [[1, 2, 3]]}, "entry 1: polygon .* has 3 numbers; it needs"),
        ({"image": "boxes_0.png", "text": "a", "mask": [[1, 1, 1, 1, 1, 1]]}, "entry 1: its mask has no pixel; draw"),
        ({"image": "boxes_0.png", "text": "a", "box": BOX, "category": 3}, "entry 1: category is 3; write its name"),
        ({"image": "nowhere.png", "text": "a", "box": BOX}, "1 of 2 images are not in .*: nowhere.png"),
    ],
)
def test_what_is_wrong_in_a_users_list_is_said(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], entry: object, message: str
) -> None:
    file, out = own_list(tmp_path, [OWN[0], entry]), tmp_path / "out.json"
    assert main(["json", str(file), "--images", str(tmp_path / "images"), "--out", str(out)]) == 1
    capsys_text = capsys.readouterr().err
    with pytest.raises(AnnotationError, match=message):
        raise AnnotationError(capsys_text)
    assert not out.exists()


def turned_list(folder: Path, box: list[float], *, tag: int, size: tuple[int, int] = (64, 48)) -> Path:
    (folder / "images").mkdir()
    tags = Image.Exif()
    tags[0x0112] = tag
    Image.new("RGB", size).save(folder / "images" / "photo.jpg", exif=tags)
    file = folder / "own.json"
    file.write_text(json.dumps([{"image": "photo.jpg", "text": "the left cup", "box": box}]))
    return file


@pytest.mark.parametrize(
    ("tag", "box", "message"),
    [
        (
            6,
            [4, 30, 20, 30],
            "not inside the image of 64 x 48 pixels, as it is stored; .* EXIF tag .* there it fits",
        ),
        (6, [4, 55, 9, 9], "there it fits: store the image as it is seen"),
    ],
)
def test_a_box_that_fits_the_turned_view_alone_is_refused_by_its_exif_tag(
    tmp_path: Path, tag: int, box: list[float], message: str
) -> None:
    with pytest.raises(AnnotationError, match=message):
        read_own(turned_list(tmp_path, box, tag=tag), tmp_path / "images")


@pytest.mark.parametrize(("tag", "box"), [(1, [4, 30, 20, 30]), (6, [4, 60, 20, 30]), (3, [4, 30, 20, 30])])
def test_other_boxes_outside_say_nothing_of_exif(tmp_path: Path, tag: int, box: list[float]) -> None:
    with pytest.raises(AnnotationError, match="outside its image") as error:
        read_own(turned_list(tmp_path, box, tag=tag), tmp_path / "images")
    assert "EXIF" not in str(error.value)


@pytest.mark.parametrize(
    ("tag", "size", "message"),
    [
        (6, (64, 48), "turned or mirrored by their EXIF tag (photo.jpg), and nothing tells whether their boxes are"),
        (3, (64, 48), "turned or mirrored by their EXIF tag (photo.jpg)"),
        (6, (64, 64), "turned or mirrored by their EXIF tag (photo.jpg)"),
        (1, (64, 48), None),
    ],
)
def test_photographs_that_viewers_turn_are_named(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], tag: int, size: tuple[int, int], message: str | None
) -> None:
    read_own(turned_list(tmp_path, [4, 4, 20, 30], tag=tag, size=size), tmp_path / "images")
    said = capsys.readouterr().err
    assert said == "" if message is None else message in said


def test_a_list_that_is_none_is_said(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for file, expected in (
        (own_list(tmp_path, []), "holds []; it must be a list of"),
        (tmp_path / "no", "there is no file"),
    ):
        assert main(["json", str(file), "--images", str(tmp_path / "images"), "--out", str(tmp_path / "o")]) == 1
        assert expected in capsys.readouterr().err


def test_templates_are_written_into_a_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file, out = coco_file(tmp_path), tmp_path / "templates.json"
    assert main(["templates", str(file), "--out", str(out)]) == 0
    assert "templates.json: 8 expressions of 8 objects on 4 images\n" in capsys.readouterr().out
    coco = read(out, masks=True)
    assert [a["expressions"] for a in coco["annotations"][:2]] == [["the plum"], ["the pear"]]
    assert expressions_only(coco) == expressions_only(read(file, masks=False), kind="templates")
    edit(file, each(iscrowd=1))
    assert main(["templates", str(file), "--out", str(out), "--overwrite"]) == 1
    assert "no template is true of one object alone" in capsys.readouterr().err


@pytest.mark.parametrize("kind", ["json", "templates"])
def test_nothing_of_the_users_is_replaced_and_no_stray_folder_made(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], kind: str
) -> None:
    file = own_list(tmp_path, OWN) if kind == "json" else coco_file(tmp_path)
    before = file.read_bytes()

    def said(out: Path, *more: str) -> str:
        images = ["--images", str(tmp_path / "images")] if kind == "json" else []
        code = main([kind, str(file), *images, "--out", str(out), *more])
        text = capsys.readouterr().err
        assert bool(code) == bool(text)
        return text

    for more in ((), ("--overwrite",)):
        assert "is the file that is read; name another place" in said(file, *more)
    assert file.read_bytes() == before
    other = tmp_path / "notes.json"
    other.write_text("mine")
    assert "notes.json exists; name another place, or give --overwrite" in said(other)
    assert other.read_text() == "mine"
    assert f"there is no folder {tmp_path / 'tpyo'}" in said(tmp_path / "tpyo" / "more" / "out.json")
    assert not (tmp_path / "tpyo").exists()
    assert "is a folder; name a file" in said(tmp_path)
    assert said(other, "--overwrite") == said(tmp_path / "new" / "out.json") == ""
    assert read(other, masks=False) == read(tmp_path / "new" / "out.json", masks=False)


def test_the_help_says_what_the_file_is(capsys: pytest.CaptureFixture[str]) -> None:
    for kind, words_of_it in (("json", "FILE is a list of"), ("templates", "COCO file with boxes")):
        with pytest.raises(SystemExit):
            main([kind, "--help"])
        assert words_of_it in " ".join(capsys.readouterr().out.split())
