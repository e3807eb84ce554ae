"""What experiments/conf makes of Partial-RES's settings: by data set, recipe and experiment."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from mal.config import Config
from mal.config_checks import check
from mal.engine.graph import in_order
from mal.engine.store import Store
from mal.errors import ConfigError
from mal.methods.partialres.schedule import total_steps
from mal.request import Graph
from tests import sweeps

Compose = Callable[..., Config]
METHOD = "labeler=partialres"
OBJECTS = 42_226  # of RefCOCOg umd's training split


@pytest.mark.parametrize(("segmenter", "labelled"), [("none", ["val"]), ("mask_rcnn_tiny", ["train", "val"])])
def test_training_objects_are_labelled_for_a_segmenter_alone(
    compose: Compose, tmp_path: Path, segmenter: str, labelled: list[str]
) -> None:
    config = compose(METHOD, "profile=smoke", "compare=[]", f"segmenter={segmenter}")
    graph = Graph(config, Store(tmp_path), torch.device("cpu"))
    assert [split.name for split, _ in graph.labelled()] == labelled
    names = {stage.name for stage in in_order(graph.targets())}
    assert {"train_rec", "train_res", "res_val", "label_val"} <= names
    assert ("label_train" in names) == ("train" in labelled)


@pytest.mark.parametrize(
    ("data", "points", "shuffle", "words"),
    [
        ("refcoco", 18, 0, 15),
        ("refcoco_plus", 12, 0.2, 15),
        ("refcocog_umd", 12, 0.2, 20),
        ("refcocog_google", 12, 0.2, 20),
    ],
)
def test_each_data_set_has_its_own_contours_and_words_at_the_papers_scale(
    compose: Compose, data: str, points: int, shuffle: float, words: int
) -> None:
    def own(*more: str) -> tuple[int, float, int]:
        settings = compose(METHOD, f"data={data}", *more).partialres
        return settings.sequence.points, settings.sequence.shuffle, settings.network.text.words

    assert own("profile=paper", "encoder=darknet53") == (points, shuffle, words)
    assert own("profile=demo") == own("profile=demo", "data=scenes")  # a smaller profile keeps its own
    assert own("profile=paper", "recipe=released") == (12, 0, words)


def test_the_released_programs_backbone_is_frozen_at_the_papers_scale(compose: Compose) -> None:
    paper = compose(METHOD, "profile=paper", "data=refcoco").partialres
    assert (paper.rec.backbone, paper.res.backbone) == (0.1, 0.1)
    released = compose(METHOD, "profile=paper", "data=refcoco", "recipe=released").partialres
    assert (released.rec.backbone, released.res.backbone, released.res.start_from) == (0, 0, "raw")


@pytest.mark.slow
@pytest.mark.parametrize("profile", ["smoke", "demo", "mini", "paper"])
def test_the_ladders_trainings_of_masks_have_equal_steps(compose: Compose, profile: str) -> None:
    """Those of few masks alone once more with the steps of the training of boxes added."""
    command = ("experiment=partialres/parts", f"profile={profile}", "seed=0")
    jobs = sweeps.jobs(*command)
    assert len(jobs) == 16
    plain = compose(METHOD, f"profile={profile}", *(["data=refcocog_umd"] if profile == "paper" else [])).partialres
    rec, naive = total_steps(plain.rec, OBJECTS), total_steps(plain.res, round(OBJECTS / 100))
    if profile == "paper":
        assert (rec, naive) == (60 * 330, 90 * 4)
    lengths = []
    for job in jobs:
        res = compose(*job).partialres.res
        assert res.epochs is None
        lengths.append(res.steps)
    assert lengths == [naive, naive + rec] * 2 + [naive] * 12


def test_all_masks_may_be_few_where_other_objects_have_none(compose: Compose) -> None:
    """The share is of the masks that there are, so pseudo masks may be left to make."""
    check(compose(METHOD, "profile=smoke", "partialres.few.percent=100", "partialres.pseudo.kind=model"))


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        (["partialres.pseudo.threshold=0", "partialres.pseudo.kind=model"], "keeps no prediction"),
        (["partialres.res.batch=1", "partialres.image.side=32", "partialres.network.stride=32"], "one value"),
    ],
)
def test_what_could_only_fail_later_is_refused(compose: Compose, settings: list[str], said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        check(compose(METHOD, "profile=smoke", *settings))


def test_task_wise_warms_up_for_five_epochs_as_the_training_of_boxes_does(compose: Compose) -> None:
    job = next(
        job for job in sweeps.jobs("experiment=partialres/tab1", "profile=paper", "seed=0") if "taskwise" in str(job)
    )
    own = compose(*job).partialres
    assert own.res.epochs == own.rec.epochs == 60
    assert own.res.warmup * own.res.epochs == pytest.approx(5)
    assert own.res.warmup == own.rec.warmup
