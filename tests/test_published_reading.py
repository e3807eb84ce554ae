"""How a model of MMDetection reads images and RoIs is taken from the config in its file or its name, never guessed."""

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from mal.errors import ConfigError, WeightsError
from mal.segmenters import published
from mal.segmenters.config import SegmenterConfig
from mal.segmenters.published.files import Weights, read
from mal.segmenters.published.reading import Reading, reading, said
from mal.segmenters.published.resnets import name
from mal.segmenters.published.zoo import ZOO
from tests.test_segmenter import composed

# mmdetection 2.0's configs/mask_rcnn/mask_rcnn_r50_caffe_fpn_poly_1x_coco_v1.py and 3's, as their programs write them
VERSION_2 = """model = dict(
    type='MaskRCNN',
    backbone=dict(type='ResNet', depth=50, norm_cfg=dict(type='BN', requires_grad=False), style='caffe'),
    rpn_head=dict(bbox_coder=dict(target_means=[0.0, 0.0, 0.0, 0.0], target_stds=[1.0, 1.0, 1.0, 1.0])),
    roi_head=dict(
        bbox_roi_extractor=dict(roi_layer=dict(type='RoIAlign', out_size=7, sample_num=2, aligned=False)),
        mask_roi_extractor=dict(roi_layer=dict(type='RoIAlign', out_size=14, sample_num=2, aligned=False))))
img_norm_cfg = dict(
    mean=[103.53, 116.28, 123.675], std=[1.0, 1.0, 1.0], to_rgb=False)
"""
VERSION_3 = """model = dict(
    backbone=dict(depth=50, style='caffe', type='ResNet'),
    data_preprocessor=dict(
        bgr_to_rgb=False,
        mean=[
            103.53,
            116.28,
            123.675,
        ],
        std=[
            1.0,
            1.0,
            1.0,
        ],
        type='DetDataPreprocessor'),
    roi_head=dict(
        bbox_roi_extractor=dict(roi_layer=dict(aligned=False, output_size=7, sampling_ratio=2, type='RoIAlign')),
        mask_roi_extractor=dict(roi_layer=dict(aligned=False, output_size=14, sampling_ratio=2, type='RoIAlign'))))
"""
CAFFE = {"style": "caffe", "bgr": True, "mean": [103.53, 116.28, 123.675], "std": [1.0, 1.0, 1.0]}
RGB = {"bgr": False, "mean": [123.675, 116.28, 103.53], "std": [58.395, 57.12, 57.375]}


def layout_of(*blocks: int, convolutions: int = 3) -> dict[str, Tensor]:
    """What tells MMDetection's Mask R-CNN, and of its ResNet the blocks of a stage."""
    tensors = {"roi_head.bbox_head.fc_cls.weight": torch.zeros(81, 4)}
    tensors["roi_head.mask_head.conv_logits.weight"] = torch.zeros(80, 4, 1, 1)
    for stage, count in enumerate(blocks, start=1):
        for block in range(count):
            for number in range(1, convolutions + 1):
                tensors[f"backbone.layer{stage}.{block}.conv{number}.weight"] = torch.zeros(4, 4, 3, 3)
    return tensors


R50 = layout_of(3, 4, 6, 3)


def fitted(path: Path, tensors: dict[str, Tensor], *, meta: Any = None, overrides: tuple[str, ...] = ()) -> Any:
    """The config of mask_rcnn_r50 with a file of these weights."""
    torch.save({"state_dict": tensors} | ({} if meta is None else {"meta": meta}), path)
    config = composed("mask_rcnn_r50", "weights=published", f"checkpoint={path}", *overrides)
    return published.identify(config, published.locate(config)).fitted(config)


# --- the config inside -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("text", [VERSION_2, VERSION_3])
def test_a_config_says_how_images_and_rois_are_read(text: str) -> None:
    assert said(text) == {**CAFFE, "rois": [[2, False], [2, False]]}
    assert said(str({"backbone": {"style": "caffe"}})) == {"style": "caffe"}, "a config kept as a dictionary"
    assert said("") == {}


def test_what_a_config_inherits_is_overruled_by_what_it_says_itself() -> None:
    base = (
        "backbone=dict(style='pytorch')\n"
        "img_norm_cfg = dict(mean=[123.675, 116.28, 103.53], std=[58.395, 57.12, 57.375], to_rgb=True)\n"
    )
    assert said(base) == {"style": "pytorch", **RGB}
    assert {key: said(base + VERSION_2)[key] for key in CAFFE} == CAFFE


@pytest.mark.parametrize("meta", [{"cfg": VERSION_3}, {"config": VERSION_2}, {"cfg": VERSION_3, "config": None}])
def test_a_renamed_caffe_model_is_known_by_its_config(tmp_path: Path, meta: dict[str, Any]) -> None:
    """Version 3 of MMDetection keeps it under `cfg`, version 2 under `config`."""
    config = fitted(tmp_path / "renamed.pth", R50, meta=meta)
    assert config.pyramid.mean == pytest.approx([123.675 / 255, 116.28 / 255, 103.53 / 255])
    assert config.pyramid.std == pytest.approx([1 / 255] * 3)
    assert config.pyramid.stride_in_1x1
    assert (config.heads.samples, config.heads.aligned) == (2, False)
    assert config.proposals.exact_anchors


def test_a_config_that_keeps_rgb_changes_no_setting(tmp_path: Path) -> None:
    """Numbers divided by 255 round otherwise than the ones here: a key must not know."""
    text = (
        "backbone=dict(style='pytorch') data_preprocessor=dict(bgr_to_rgb=True, mean=[123.675, 116.28, 103.53], "
        "std=[58.395, 57.12, 57.375])"
    )
    with_text = fitted(tmp_path / "renamed.pth", R50, meta={"cfg": text})
    named = fitted(tmp_path / "mask_rcnn_r50_fpn_1x_coco.pth", R50)
    assert with_text.pyramid == named.pyramid == composed("mask_rcnn_r50").pyramid
    assert (named.heads.samples, named.heads.aligned) == (0, True)


def test_a_config_counts_for_more_than_a_name() -> None:
    facts = {
        "file": "mask_rcnn_r50_caffe_fpn.pth",
        "layout": "mmdetection_mask_rcnn",
        "backbone": "resnet50",
        "said": {"style": "pytorch"},
    }
    assert reading(facts, source="f") == Reading()


# --- or the name -----------------------------------------------------------------------------------------------------


def test_a_file_that_tells_nothing_is_refused(tmp_path: Path) -> None:
    with pytest.raises(WeightsError) as error:
        fitted(tmp_path / "renamed.pth", R50)
    sentence = str(error.value)
    assert f"segmenter.checkpoint={tmp_path / 'renamed.pth'} does not tell how its images enter" in sentence
    assert "give the file as its publisher named it" in sentence
    fitted(tmp_path / "mask-rcnn_r50_fpn_1x_coco.pth", R50)  # MMDetection 3's names


@pytest.mark.parametrize(
    ("file", "rois"),
    [
        ("mask_rcnn_r50_caffe_fpn_poly_1x_coco_no_aug_compare_20200518-10127928.pth", (2, False)),
        ("mask-rcnn_r50-caffe_fpn_poly-1x_coco_v1.pth", (2, False)),
        ("mask_rcnn_r50_caffe_fpn_mstrain-poly_3x_coco.pth", (0, True)),
    ],
)
def test_models_made_to_be_compared_with_detectron_read_rois_as_it_did(file: str, rois: tuple[int, bool]) -> None:
    facts = {"file": file, "layout": "mmdetection_mask_rcnn", "backbone": "resnet50", "said": {}}
    found = reading(facts, source=file)
    config = found.fitted(found.fitted_rois(composed("mask_rcnn_r50")))
    assert (config.heads.samples, config.heads.aligned) == rois
    assert config.pyramid.stride_in_1x1


def test_every_mask_rcnn_of_the_zoo_tells_by_its_name_and_none_reads_rois_unaligned() -> None:
    files = [
        model.file for model in ZOO if model.publisher == "MMDetection" and model.segmenter.startswith("mask_rcnn")
    ]
    assert len(files) > 15
    for file in files:
        found = reading(
            {"file": file, "layout": "mmdetection_mask_rcnn", "backbone": "resnet50", "said": {}}, source=file
        )
        assert found.bgr == found.stride_in_1x1 == ("caffe" in file)
        assert (found.samples, found.aligned) == (0, True)


def test_a_loaded_model_pools_its_rois_so(tmp_path: Path) -> None:
    from mal.segmenters.rcnn.mask_rcnn import build

    config = fitted(tmp_path / "renamed.pth", R50, meta={"config": VERSION_2})
    with torch.device("meta"):
        model: Any = build(config, classes=80, load=False)
    for pool in (model.roi_heads.box_roi_pool, model.roi_heads.mask_roi_pool):
        assert (pool.samples, pool.aligned) == (2, False)


# --- what cannot be read so ------------------------------------------------------------------------------------------


def test_models_of_version_1_and_of_two_kinds_of_rois_are_refused() -> None:
    def complaint(text: str) -> str:
        facts = {
            "file": "mask_rcnn_r50_fpn.pth",
            "layout": "mmdetection_mask_rcnn",
            "backbone": "resnet50",
            "said": said(text),
        }
        with pytest.raises(WeightsError) as error:
            reading(facts, source="segmenter.human_checkpoint=f")
        return str(error.value)

    for text in ("anchor_generator=dict(type='LegacyAnchorGenerator', center_offset=0.5)", "anchor_scales=[8]"):
        assert complaint(text).startswith("segmenter.human_checkpoint=f is a model of MMDetection 1,")
    both = "dict(type='RoIAlign', sampling_ratio=0) dict(type='RoIAlign', sampling_ratio=2, aligned=False)"
    assert "one way for boxes and in another for masks" in complaint(both)


@pytest.mark.parametrize(
    ("name", "layout"),
    [
        ("solov2_r50", "mmdetection_solov2"),
        ("cascade_convnext_s", "mmdetection_cascade"),
        ("mask2former_swin_s", "mmdetection_mask2former"),
    ],
)
def test_other_models_of_mmdetection_follow_their_config_too(name: str, layout: str) -> None:
    """They were published with ImageNet's RGB alone; a reader's own may differ, and says so."""
    config = composed(name)
    facts = {"file": "renamed.pth", "layout": layout, "backbone": "any", "said": {}}
    assert reading(facts, source="f").fitted(config) == config
    turned = reading({**facts, "said": {**RGB, "bgr": True}}, source="f")
    assert turned.fitted(config).pyramid.mean == pytest.approx([103.53 / 255, 116.28 / 255, 123.675 / 255])
    stem = torch.arange(3.0).view(1, 3, 1, 1)
    assert turned.for_rgb({"stem": stem}, "stem")["stem"].flatten().tolist() == [2, 1, 0]


@pytest.mark.parametrize(
    ("tensors", "is_on"),
    [
        (layout_of(), "a backbone that is no ResNet"),
        (layout_of(2, 2, 2, 2, convolutions=2), "resnet18"),
        (layout_of(3, 4, 6, 3, convolutions=2), "resnet34"),
        (
            layout_of(3, 4, 7, 3),
            r"a ResNet of a depth that is not known here \(7 blocks in the third stage; 6 in ResNet",
        ),
    ],
)
def test_another_backbone_is_called_what_it_is(tmp_path: Path, tensors: dict[str, Tensor], is_on: str) -> None:
    assert name(R50, "backbone.layer{stage}.{block}.conv2.weight") == "resnet50"
    with pytest.raises(WeightsError, match=rf"is a model on {is_on}.*segmenter=mask_rcnn_r50 runs on resnet50"):
        fitted(tmp_path / "mask_rcnn_r50_fpn.pth", tensors)


def test_a_small_segmenter_of_ours_has_no_published_file(tmp_path: Path) -> None:
    torch.save(R50, tmp_path / "mask_rcnn_r50_fpn.pth")
    config = composed("mask_rcnn_tiny", "weights=published", f"checkpoint={tmp_path / 'mask_rcnn_r50_fpn.pth'}")
    with pytest.raises(WeightsError, match="is a model on resnet50, but segmenter=mask_rcnn_tiny runs on a small"):
        published.identify(config, published.locate(config))


# --- the setting that the user wrote ---------------------------------------------------------------------------------


def human(path: Path, name: str = "mask_rcnn_r50", *overrides: str) -> SegmenterConfig:
    """As a run measures the file that `segmenter.human_checkpoint` names."""
    return composed(name, "weights=published", f"checkpoint={path}", f"human_checkpoint={path}", *overrides)


def faulty(folder: Path) -> dict[str, Path]:
    """File → what is wrong with it is in its name."""
    contents: dict[str, Any] = {
        "torn.pth": b"no file of torch's",
        "empty.pth": {},
        "unknown.pth": {"a": torch.zeros(1)},
        "renamed.pth": R50,
        "mask_rcnn_r101_fpn.pth": layout_of(3, 4, 23, 3),
        "mask_rcnn_r50_fpn.pth": R50 | {"roi_head.bbox_head.fc_cls.weight": torch.zeros(21, 4)},
        "mask_rcnn_r50_fpn_dconv.pth": R50 | {"backbone.layer2.0.conv2.conv_offset.weight": torch.zeros(27, 4, 3, 3)},
    }
    for file, content in contents.items():
        if isinstance(content, bytes):
            (folder / file).write_bytes(content)
        else:
            torch.save(content, folder / file)
    return {file: folder / file for file in ("absent.pth", *contents)}


def test_every_error_about_a_file_names_the_setting_that_named_it(tmp_path: Path) -> None:
    for path in faulty(tmp_path).values():
        sentences = []
        config = human(path)
        for chosen in (config, composed("mask_rcnn_r50", "weights=published", f"checkpoint={path}")):
            with pytest.raises(WeightsError) as error:
                published.identify(chosen, published.locate(chosen))
            sentences.append(str(error.value))
        assert f"segmenter.human_checkpoint={path}" in sentences[0]
        assert f"segmenter.checkpoint={path}" in sentences[1]
        for wrong in ("segmenter.checkpoint", "weights=published", "downloaded"):
            assert wrong not in sentences[0]


def test_weights_that_do_not_fit_name_it_too(tmp_path: Path) -> None:
    path = tmp_path / "mask_rcnn_r50_fpn.pth"
    torch.save(R50, path)
    config = human(path)
    with pytest.raises(WeightsError, match=rf"the weights of segmenter\.human_checkpoint={path} do not fit"):
        published.write(config, found=published.identify(config, path), folder=tmp_path)


@pytest.mark.parametrize("name", ["mask_rcnn_r50", "mask2former_swin_s"])
def test_so_do_weights_of_the_backends_own_library(tmp_path: Path, name: str) -> None:
    from mal.segmenters.published import torchvision, transformers

    path = tmp_path / "file.pth"
    torch.save({"a": torch.zeros(1)}, path)
    module: Any = {"mask_rcnn_r50": torchvision, "mask2former_swin_s": transformers}[name]
    with pytest.raises(WeightsError, match=rf"the weights of segmenter\.human_checkpoint={path} do not fit"):
        module.state(human(path, name, *(("pyramid.name=swin_tiny",) if "swin" in name else ())), path)


def test_categories_are_refused_under_the_setting_that_asked_for_the_model() -> None:
    from mal.segmenters.published.setting import asked

    coco: dict[str, Any] = {"categories": [{"id": 3, "name": "wheel"}]}
    for classes in (80, 1203):
        with pytest.raises(ConfigError) as error:
            published.check_categories(coco, source="mine", classes=classes, by=asked(human(Path("f.pth"))))
        assert str(error.value).startswith("segmenter.human_checkpoint=f.pth: the model knows")
        assert "leave segmenter.human_checkpoint out" in str(error.value)
        assert "weights" not in str(error.value)


def test_a_backend_that_evaluates_none_says_so_without_contradiction(tmp_path: Path) -> None:
    torch.save(R50, tmp_path / "mask_rcnn_r50_fpn.pth")
    config = human(tmp_path / "mask_rcnn_r50_fpn.pth", "mask_rcnn_r50", "backend=detectron2")
    with pytest.raises(
        ConfigError, match=r"backend=detectron2 evaluates no published segmenter; leave segmenter\.back"
    ):
        published.locate(config)
    with pytest.raises(WeightsError) as error:
        published.identify(config, tmp_path / "mask_rcnn_r50_fpn.pth")
    assert "is none" not in str(error.value)
    assert "computes with segmenter.backend=torchvision, not with detectron2" in str(error.value)


def test_a_config_that_is_no_text_is_none(tmp_path: Path) -> None:
    torch.save({"state_dict": R50, "meta": {"cfg": 3, "config": VERSION_2}}, tmp_path / "a.pth")
    assert read(tmp_path / "a.pth").config == VERSION_2
    assert Weights(Path("f"), {}, "").source == "segmenter.checkpoint=f"
