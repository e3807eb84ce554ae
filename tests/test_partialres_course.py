"""IoU of masks from expressions in the course of a training."""

import json
from pathlib import Path

import numpy as np
import pytest

from mal.data.mask_formats import encode_mask
from mal.errors import MalError
from mal.methods.partialres.course import mean_iou
from mal.methods.partialres.truths import Truths
from tests.test_end_to_end import command


def test_the_mean_is_over_expressions() -> None:
    true = np.zeros((8, 8), dtype=np.uint8)
    true[2:6, 2:6] = 1
    annotation = {"id": 3, "image_id": 1, "segmentation": encode_mask(true.astype(bool)), "iscrowd": 0}
    truths = Truths({"images": [{"id": 1, "height": 8, "width": 8}], "annotations": [annotation]})

    def answer(columns: slice) -> dict:
        mask = np.zeros((8, 8), dtype=np.uint8)
        mask[2:6, columns] = 1
        return {"id": 3, "image_id": 1, "segmentation": encode_mask(mask.astype(bool))}

    answers = [answer(slice(2, 6)), answer(slice(2, 4)), answer(slice(4, 8))]
    assert mean_iou(answers, truths, "opencv") == pytest.approx((1 + 8 / 16 + 8 / 24) / 3)
    with pytest.raises(MalError):
        mean_iou([], truths, "opencv")


@pytest.mark.slow
@pytest.mark.parametrize("model", ["sequence", "query"])
def test_a_run_measures_the_networks_that_it_kept_and_the_last_as_it_measures_the_run(
    tmp_path: Path, model: str
) -> None:
    more = [f"partialres.network.model={model}", "partialres.res.snapshots=2", "partialres.pseudo.kind=none"]
    command("labeler=partialres", "data=scenes", "segmenter=none", *more, store=tmp_path)
    course, scored = (
        json.loads(next(tmp_path.glob(f"{stage}/*/run.json")).read_text()) for stage in ("course_val", "res_val")
    )
    assert set(course["metrics"]) >= {"mean_iou_1", "mean_iou_2"}
    assert course["metrics"]["mean_iou_2"] == pytest.approx(scored["metrics"]["mean_iou"], rel=1e-12)
