"""Several processes on one stage: the same data, the same losses, the same files as one process alone."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from mal.data import shapes
from mal.data.annotations import read, strip
from mal.data.rois import TrainingRois
from mal.engine import ranks
from mal.engine.runtime import load_checkpoint
from mal.errors import AnnotationError, ConfigError, MalError
from tests.in_processes import in_processes

ROOT = Path(__file__).resolve().parents[1]
CPU = torch.device("cpu")
RUN = [sys.executable, "experiments/run.py", "profile=smoke", "tracking=none"]


def launch(processes: int, *command: str, cwd: Path = ROOT) -> "subprocess.Popen[str]":
    """A command in several processes of this machine, as a cluster would start it."""
    return subprocess.Popen(
        [sys.executable, "-W", "ignore", "-m", "torch.distributed.run", "--standalone",
         f"--nproc-per-node={processes}", *command],
        cwd=cwd, env={**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}, text=True,
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
    )  # fmt: skip


def finished(process: "subprocess.Popen[str]") -> str:
    text, _ = process.communicate(timeout=400)
    assert process.returncode == 0, text
    return text


def test_a_process_alone_needs_nothing() -> None:
    assert (ranks.rank(), ranks.size(), ranks.is_first()) == (0, 1, True)
    with ranks.joined(CPU):
        assert ranks.share("x") == "x"
        assert ranks.gather(3) == [3]
        assert ranks.agreed(None) is None
        assert ranks.agreed("SIGTERM") == "SIGTERM"
        assert ranks.agreed(None, "the clock") == "the clock"
        assert ranks.on_first(lambda: 7) == 7
        assert ranks.own_part(5, "train.batch") == slice(0, 5)
        assert ranks.own_draws() == []


@pytest.mark.slow
def test_no_thread_outlives_the_group(tmp_path: Path) -> None:
    """One that did would now and then abort the interpreter at its end, holding a tensor."""
    script = tmp_path / "script.py"
    script.write_text(
        "import os, torch\nfrom pathlib import Path\nfrom mal.engine import ranks\n"
        "threads = lambda: [(at / 'comm').read_text().strip() for at in Path('/proc/self/task').iterdir()]\n"
        "with ranks.joined(torch.device('cpu')):\n    import torch.distributed.tensor, torch.distributed.fsdp\n"
        "    ranks.wait()\n    assert any('gloo' in name for name in threads()), threads()\n"
        "assert not any('gloo' in name for name in threads()), threads()\n"
    )
    finished(launch(2, str(script)))


def told() -> list[Any]:
    me = ranks.rank()
    part = ranks.own_part(6, "train.batch")
    inner = ranks.on_first(lambda: [ranks.size(), ranks.gather(me), ranks.share(me)])
    answer = [me, ranks.size(), ranks.is_first(), ranks.share(f"of {me}"), ranks.gather(me * me)]
    answer += [ranks.agreed(None, None), ranks.agreed("SIGUSR2" if me == 2 else None, "the clock")]
    answer += [ranks.mean(torch.tensor([float(me)])).item(), [part.start, part.stop], inner, ranks.own_draws()]
    try:
        ranks.own_part(7, "train.batch")
    except ConfigError as error:
        answer.append(str(error))

    def fail() -> None:
        raise AnnotationError("the file is empty")

    try:
        ranks.on_first(fail)
    except MalError as error:
        answer.append(f"{type(error).__name__}: {error}")
    ranks.wait()
    return answer


@pytest.mark.slow
def test_what_processes_tell_each_other() -> None:
    answers = in_processes(3, told)
    refusal = "train.batch=7 cannot be shared equally by 3 processes; choose a multiple"
    for me, answer in enumerate(answers):
        kind = "AnnotationError" if me == 0 else "MalError"
        assert answer == [
            me, 3, me == 0, "of 0", [0, 1, 4], None, "SIGUSR2", 1.0, [2 * me, 2 * me + 2], [1, [0], 0],
            [me] if me else [], refusal, f"{kind}: the file is empty",
        ]  # fmt: skip


def only(store: Path, stage: str) -> Path:
    """The folder of the one result of a kind."""
    (folder,) = [path.parent for path in store.glob(f"{stage}/*/run.json")]
    return folder


def losses(folder: Path) -> torch.Tensor:
    lines = map(json.loads, (folder / "curves.jsonl").read_text().splitlines())
    return torch.tensor([[line["total"], line["mil"], line["crf"]] for line in lines], dtype=torch.float64)


@pytest.mark.slow
def test_one_process_of_four_parts_and_two_of_two_learn_alike(tmp_path: Path) -> None:
    """The whole chain by torchrun: the same keys, losses equal to float tolerance, the same masks but for rounding."""
    options = [
        "train.batch=8", "train.accumulate=4", "train.steps=20", "segmenter=none", "clustering.enabled=true",
        "clustering.encoder=trained", "compare=[]", "label.shard_images=2",
    ]  # fmt: skip
    alone, together = tmp_path / "alone", tmp_path / "together"
    finished(subprocess.Popen([*RUN, *options, f"store={alone}"], cwd=ROOT, text=True, stdout=subprocess.PIPE))
    said = finished(launch(2, *RUN[1:], *options, f"store={together}"))
    assert said.count("stages, 0 of them done") == 1, "of several processes one speaks"
    folders = [only(store, "train_labeler") for store in (alone, together)]
    assert folders[0].name == folders[1].name
    first, second = map(losses, folders)
    assert len(first) == 2
    assert torch.allclose(first, second, rtol=1e-5, atol=0)
    weights = [load_checkpoint(folder / "labeler.pt")["student"] for folder in folders]
    assert all(torch.allclose(weights[0][name], weights[1][name], rtol=1e-3, atol=1e-4) for name in weights[0])
    for stage, metric in (("quality_val", "iou"), ("clustering_val", "clustering")):
        records = [json.loads((only(store, stage) / "run.json").read_text()) for store in (alone, together)]
        values = [record["metrics"][metric]["value"] for record in records]
        assert values[0] == pytest.approx(values[1], abs=1e-3)
        assert records[0]["metrics"][metric]["n"] == records[1]["metrics"][metric]["n"]
    assert json.loads((folders[1] / "run.json").read_text())["processes"] == 2


@pytest.mark.slow
def test_shared_labels_clusters_and_detections_are_those_of_one_process(tmp_path: Path) -> None:
    """From the same trained networks two processes make the same files as one, to the bit where nothing is summed."""
    options = ["clustering.enabled=true", "label.shard_images=2", "segmenter.test.batch=1", "segmenter.test.score=0"]
    alone, together = tmp_path / "alone", tmp_path / "together"
    finished(subprocess.Popen([*RUN, *options, f"store={alone}"], cwd=ROOT, text=True, stdout=subprocess.PIPE))
    together.mkdir()
    for kept in ("shapes_train", "shapes_val", "boxes_train", "boxes_val", "train_labeler", "train_segmenter"):
        (together / kept).symlink_to(alone / kept)
    finished(launch(2, *RUN[1:], *options, f"store={together}"))
    compared = 0
    for name in ("labels.json", "predictions.json", "instances.csv"):
        for file in alone.glob(f"*/*/{name}"):
            compared += 1
            assert file.read_bytes() == (together / file.relative_to(alone)).read_bytes(), file
    assert compared >= 6
    values = [
        json.loads((only(store, "clustering_val") / "run.json").read_text())["metrics"]["clustering_global"]["value"]
        for store in (alone, together)
    ]
    assert values[0] == pytest.approx(values[1], rel=1e-12)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("stage", "own"),
    [
        ("train_labeler", ["train.steps=60", "segmenter=none"]),
        ("train_segmenter", ["labeler=ellipse", "segmenter.schedule.steps=24"]),
    ],
)
def test_a_notice_to_one_process_stops_all_and_they_go_on_with_the_same_bits(
    stage: str, own: list[str], tmp_path: Path
) -> None:
    options = [*own, "compare=[]", "evaluate.bootstrap=2"]
    whole, cut = tmp_path / "whole", tmp_path / "cut"
    finished(launch(2, *RUN[1:], *options, f"store={whole}"))
    process = launch(2, *RUN[1:], *options, "train.checkpoint_seconds=0", "segmenter.running.checkpoint_steps=1",
                     f"store={cut}")  # fmt: skip
    until(lambda: list(cut.glob(f"{stage}/*/checkpoint.pt")) or process.poll() is not None)
    second = [pid for pid in children(process.pid) if environment(pid).get("RANK") == "1"]
    os.kill(second[0], signal.SIGUSR2)
    said, _ = process.communicate(timeout=300)
    assert process.returncode != 0
    assert "(SIGUSR2); the same command goes on from there" in said
    finished(launch(2, *RUN[1:], *options, f"store={cut}"))
    file = {"train_labeler": "labeler.pt", "train_segmenter": "segmenter.pt"}[stage]
    for path in whole.glob(f"{stage}/*/{file}"):
        states = [load_checkpoint(store / path.relative_to(whole)) for store in (whole, cut)]
        for part in ("student", "teacher", "model"):
            assert all(torch.equal(states[0][part][k], states[1][part][k]) for k in states[0].get(part, {}))


@pytest.mark.slow
def test_what_goes_wrong_in_the_first_process_is_said_once(tmp_path: Path) -> None:
    (tmp_path / "boxes.json").write_text('{"images": [], "annotations": [], "categories": []}')
    process = launch(
        2, *RUN[1:], "data=coco", f"data.train.annotations={tmp_path / 'boxes.json'}", f"data.train.images={tmp_path}",
        "segmenter=none", f"store={tmp_path / 'store'}",
    )  # fmt: skip
    said, _ = process.communicate(timeout=300)
    assert process.returncode != 0
    assert said.count("error: ") >= 1
    assert "boxes.json" in said


def until(true: Callable[[], object], seconds: float = 120.0) -> None:
    end = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < end, f"nothing happened in {seconds:g} s"
        time.sleep(0.02)


def children(pid: int) -> list[int]:
    return [int(text) for text in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def environment(pid: int) -> dict[str, str]:
    entries = Path(f"/proc/{pid}/environ").read_bytes().decode().split("\0")
    return dict(entry.split("=", 1) for entry in entries if "=" in entry)


def test_parts_that_do_not_fit_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ranks, "size", lambda: 3)
    with pytest.raises(ConfigError, match=r"train\.batch=32 cannot be shared equally by 3 processes"):
        ranks.own_part(32, "train.batch")


def test_more_processes_than_gpus_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setenv("LOCAL_RANK", "1")
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    with (
        pytest.raises(MalError, match="process 1 of this machine has no GPU of its own: there are 1"),
        ranks.joined(torch.device("cuda")),
    ):
        pass


def test_boxes_are_shared_in_order(tmp_path: Path, compose: Callable[..., Any]) -> None:
    """Parts of a batch, put together, are the batch."""
    shapes.generate(tmp_path, images=6, size=128, seed=0, split="train")
    config = compose("profile=smoke")
    coco = strip(read(tmp_path / "annotations.json", masks=False))
    rois = TrainingRois(coco, tmp_path / "images", config=config.roi, batch=8, pool_images=4, seed=0)
    whole = list(rois.batches(3, 6))
    for parts in (2, 4):
        step = 8 // parts
        split = [list(rois.batches(3, 6, part=slice(i * step, (i + 1) * step))) for i in range(parts)]
        for number, batch in enumerate(whole):
            pieces = [part[number] for part in split]
            assert torch.equal(batch.ids, torch.cat([piece.ids for piece in pieces]))
            assert torch.equal(batch.pixels, torch.cat([piece.pixels for piece in pieces]))
            assert torch.equal(batch.draws, torch.cat([piece.draws for piece in pieces]))
