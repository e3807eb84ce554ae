"""labeler=sam with small randomly initialised models, saved and loaded as published ones are."""

from pathlib import Path

import numpy as np
import pytest
import torch
import transformers as t
from PIL import Image
from safetensors.torch import load_file, save_file
from test_configs import changed

from mal.data.mask_windows import MaskWindow
from mal.engine.store import Store
from mal.errors import WeightsError
from mal.methods.baselines import box as filled_box
from mal.methods.baselines import sam
from mal.methods.registry import METHODS
from mal.methods.stages import label
from mal.request import Graph
from mal.run import run

CPU = torch.device("cpu")
BOXES = np.array([(4.0, 6.0, 30.0, 25.0), (20.5, 3.2, 40.0, 30.0), (50.0, 20.0, 25.5, 28.0)])
PHOTO = np.random.default_rng(0).integers(0, 256, (50, 75, 3), dtype=np.uint8)


def small_sam() -> t.SamModel:
    vision = t.SamVisionConfig(
        hidden_size=16, num_hidden_layers=2, num_attention_heads=2, image_size=64, patch_size=8, output_channels=16,
        window_size=4, global_attn_indexes=[1], mlp_dim=32, num_pos_feats=8,
    )  # fmt: skip
    prompt = t.SamPromptEncoderConfig(hidden_size=16, image_size=64, patch_size=8, mask_input_channels=4)
    decoder = t.SamMaskDecoderConfig(
        hidden_size=16, mlp_dim=32, num_hidden_layers=1, num_attention_heads=2, iou_head_hidden_dim=16
    )
    return t.SamModel(t.SamConfig(vision_config=vision, prompt_encoder_config=prompt, mask_decoder_config=decoder))


def sam2_parts() -> dict:
    backbone = t.Sam2HieraDetConfig(
        hidden_size=8, num_attention_heads=1, image_size=[64, 64], blocks_per_stage=[1, 1, 2, 1],
        embed_dim_per_stage=[8, 16, 32, 64], num_attention_heads_per_stage=[1, 2, 4, 8],
        window_size_per_stage=[4, 2, 2, 2], global_attention_blocks=[3],
        window_positional_embedding_background_size=[4, 4],
    )  # fmt: skip
    vision = t.Sam2VisionConfig(
        backbone_config=backbone, backbone_channel_list=[64, 32, 16, 8], fpn_hidden_size=16,
        backbone_feature_sizes=[[16, 16], [8, 8], [4, 4]],
    )  # fmt: skip
    return {"vision_config": vision}


def small_sam2() -> t.Sam2Model:
    prompt = t.Sam2PromptEncoderConfig(hidden_size=16, image_size=64, patch_size=16, mask_input_channels=4)
    decoder = t.Sam2MaskDecoderConfig(
        hidden_size=16, mlp_dim=32, num_hidden_layers=1, num_attention_heads=2, iou_head_hidden_dim=16
    )
    return t.Sam2Model(t.Sam2Config(**sam2_parts(), prompt_encoder_config=prompt, mask_decoder_config=decoder))


def save(kind: str, folder: Path) -> Path:
    torch.manual_seed(0)
    if kind == "sam":
        small_sam().save_pretrained(folder)
        t.SamImageProcessor(size={"longest_edge": 64}, pad_size={"height": 64, "width": 64}).save_pretrained(folder)
    else:
        small_sam2().save_pretrained(folder)
        t.Sam2ImageProcessor(size={"height": 64, "width": 64}).save_pretrained(folder)
    return folder


@pytest.fixture(scope="module", params=["sam", "sam2"])
def checkpoint(request, tmp_path_factory) -> Path:
    return save(request.param, tmp_path_factory.mktemp(request.param))


def pasted(windows: list[MaskWindow]) -> list[np.ndarray]:
    return [window.pasted(*PHOTO.shape[:2]) for window in windows]


def test_masks_are_those_of_the_librarys_own_path_cut_at_the_box(checkpoint):
    kind = sam.KINDS[t.AutoConfig.from_pretrained(checkpoint).model_type]
    model = getattr(t, f"{kind}Model").from_pretrained(checkpoint).eval()
    processor = getattr(t, f"{kind}Processor").from_pretrained(checkpoint)
    corners = [[[x, y, x + w, y + h] for x, y, w, h in BOXES.tolist()]]
    inputs = processor(Image.fromarray(PHOTO), input_boxes=corners, return_tensors="pt")
    with torch.no_grad():
        output = model(**{k: inputs[k].float() for k in ("pixel_values", "input_boxes")}, multimask_output=False)
    sizes = [inputs[k] for k in ("original_sizes", "reshaped_input_sizes") if k in inputs]
    whole = processor.post_process_masks(output.pred_masks, *sizes)[0][:, 0].numpy()
    found = sam.Sam(str(checkpoint), CPU).masks(PHOTO, BOXES)
    assert len(found) == 3
    for mask, theirs, inside in zip(pasted(found), whole, pasted(filled_box.masks(PHOTO, BOXES)), strict=True):
        np.testing.assert_array_equal(mask, theirs & inside)
        assert mask.shape == (50, 75)
        assert mask.dtype == bool
    assert any(mask.area for mask in found)
    assert (whole & ~np.array(pasted(filled_box.masks(PHOTO, BOXES)))).any()  # so that cutting was put to the test


def test_a_mask_depends_on_no_other_box(checkpoint, monkeypatch):
    labeler = sam.Sam(str(checkpoint), CPU)
    together = labeler.masks(PHOTO, BOXES)
    monkeypatch.setattr(sam, "BOXES_AT_ONCE", 2)
    for mask, other in zip(pasted(labeler.masks(PHOTO, BOXES)), pasted(together), strict=True):
        np.testing.assert_array_equal(mask, other)
    assert labeler.masks(PHOTO, np.zeros((0, 4))) == []


def test_a_thin_image_is_not_taken_for_channels(checkpoint):
    for shape in ((3, 40, 3), (40, 3, 3)):
        (mask,) = sam.Sam(str(checkpoint), CPU).masks(np.zeros(shape, dtype=np.uint8), np.array([[0.0, 0, 3, 3]]))
        assert mask.mask.shape == (3, 3)


def test_published_sam_2_files_are_of_the_video_model(tmp_path):
    """Their config says sam2_video and their weights hold a memory that images do not need."""
    folder = save("sam2", tmp_path)
    text = (folder / "config.json").read_text().replace('"model_type": "sam2",', '"model_type": "sam2_video",')
    assert "sam2_video" in text
    (folder / "config.json").write_text(text)
    weights = load_file(folder / "model.safetensors")
    save_file(weights | {"memory_encoder.x": torch.zeros(1)}, folder / "model.safetensors", metadata={"format": "pt"})
    assert len(sam.Sam(str(folder), CPU).masks(PHOTO, BOXES)) == 3


def test_weights_that_would_stay_random_are_an_error(tmp_path):
    folder = save("sam", tmp_path)
    weights = load_file(folder / "model.safetensors")
    lost = next(key for key in weights if key.startswith("vision_encoder.layers.0"))
    del weights[lost]
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(WeightsError, match=r"no fitting weights for 1 parameters \(vision_encoder.layers.0"):
        sam.Sam(str(folder), CPU)


@pytest.mark.parametrize("name", ["nobody/no-such-model", "/nowhere"])
def test_weights_that_cannot_be_had_are_known_before_any_work(name, compose, tmp_path, monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    config = compose("profile=smoke", "labeler=sam", "segmenter=none", "tracking=none", f"store={tmp_path}")
    with pytest.raises(WeightsError, match=rf"labeler.checkpoint={name} cannot be reached.*or a folder"):
        run(changed(config, **{"labeler.checkpoint": name}))
    assert not list(tmp_path.glob("*/*/run.json"))


def test_another_model_is_refused(tmp_path):
    t.ViTConfig().save_pretrained(tmp_path)
    with pytest.raises(WeightsError, match="model of type vit"):
        sam.Sam(str(tmp_path), CPU)


def test_a_run_labels_with_a_local_folder_and_follows_its_content(checkpoint, compose, tmp_path):
    options = ["profile=smoke", "labeler=sam", "segmenter=none", "tracking=none", "compare=[]"]
    config = compose(*options, f"labeler.checkpoint={checkpoint}", f"store={tmp_path}")
    run(config)
    store = Store(tmp_path)
    graph = Graph(config, store, CPU)
    stage = label(graph.context, graph.val, METHODS["sam"])
    assert store.is_done("label_val", stage.key)
    assert "checkpoint" not in stage.config
    assert set(stage.sources) >= {"config.json", "model.safetensors", "preprocessor_config.json"}
    named = Graph(changed(config, **{"labeler.checkpoint": "facebook/sam-vit-huge"}), store, CPU)
    assert label(named.context, named.val, METHODS["sam"]).config["checkpoint"] == "facebook/sam-vit-huge"
