"""Imports point one way (DESIGN.md), and heavy or optional packages stay behind one door."""

import ast
import sys
from itertools import pairwise
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
# each layer imports from itself and from those before it
LAYERS = (
    "errors shipped processes leftovers files findings flags faults shards claims turns ranks progress notes precision",
    "bilinear patches compilation mask_formats mask_windows polygons",
    "segmenters.config segmenters.config_checks boxes",
    "config runtime image_names box_checks box_view not_finite",
    "annotation_checks annotation_text remarks whereabouts image_folder depth overrides headers",
    "mask_kinds",
    "box_findings",
    "census",
    "joins",
    "annotations labeler_file images augment backbones crf crf_triton loading losses shapes tracking_address payload",
    "mirror mlflow_server",
    "encoders rois config_checks",
    "attention decoders decoders.*",
    "labelers labelers.*",
    "train export outlines quality submission segmenters metrics segmenters.* metrics.*",
    "labelling store.* store forecast outputs",
    "graph tracking",
    "history remembered",
    "sources",
    "stages.*",
    "stages",
    "label label_outputs label_files review run store.__main__ check own_boxes",
    "autolabel",
)
DOORS = {  # the only files that may import it
    "mlflow": {"mal/mlflow_server.py", "analysis/from_mlflow.py"},
    "detectron2": {"mal/segmenters/detectron2.py"},
}


def sources(folder: str) -> dict[str, Path]:
    """Module name → file, of every Python file below a folder of the repository."""
    return {name_of(path): path for path in sorted((ROOT / folder).rglob("*.py"))}


def name_of(path: Path) -> str:
    return ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")


EVERYTHING = sources("mal") | sources("analysis") | sources("experiments")


def imports(path: Path) -> set[str]:
    """Modules that a file imports, at its top or inside a function; `from a import b` is a.b where that is a module."""
    return read_imports(path.read_text(encoding="utf-8"))


def read_imports(text: str) -> set[str]:
    found: set[str] = set()
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "relative imports hide what is imported; write the whole name"
            inner = {f"{node.module}.{alias.name}" for alias in node.names}
            found |= (inner & EVERYTHING.keys()) or {str(node.module)}
    return found


def layer(module: str) -> int:
    """The index of a module's layer. Exact names go before patterns."""
    name = module.removeprefix("mal.")
    exact = [i for i, names in enumerate(LAYERS) if name in names.split()]
    pattern = [i for i, names in enumerate(LAYERS) if f"{name.rpartition('.')[0]}.*" in names.split()]
    assert exact or pattern, f"{module} belongs to no layer yet: say in LAYERS where it stands"
    return (exact or pattern)[0]


def below(path: Path) -> set[str]:
    return {name for name in imports(path) if name.split(".")[0] == "mal"}


@pytest.mark.parametrize("module", sorted(sources("mal").keys() - {"mal"}))
def test_imports_point_one_way(module):
    upward = {name for name in below(EVERYTHING[module]) if layer(name) > layer(module)}
    assert not upward, f"{module} imports {', '.join(sorted(upward))}, which is built on it"


def test_no_two_modules_import_each_other():
    graph = {name: below(path) - {name} for name, path in sources("mal").items()}

    def reachable(start: str) -> set[str]:
        seen: set[str] = set()
        waiting = [start]
        while waiting:
            new = graph.get(waiting.pop(), set()) - seen
            seen |= new
            waiting += new
        return seen

    assert [name for name in graph if name in reachable(name)] == []


def test_the_order_of_design_md_is_the_order_of_the_layers():
    chain = [
        "boxes crf losses annotations",
        "encoders decoders rois",
        "labelers",
        "train labelling segmenters metrics",
        "stages run",
    ]
    places = [[layer(f"mal.{name}") for name in names.split()] for names in chain]
    for lower, upper in pairwise(places):
        assert max(lower) < min(upper)


@pytest.mark.parametrize("module", sorted(sources("analysis")))
def test_analysis_reads_files_and_imports_nothing_from_the_suite(module):
    assert not {name for name in imports(EVERYTHING[module]) if name.split(".")[0] in ("mal", "experiments")}


@pytest.mark.parametrize("package", sorted(DOORS))
def test_a_heavy_package_has_one_door(package):
    inside = {
        str(path.relative_to(ROOT))
        for path in EVERYTHING.values()
        if package in {name.split(".")[0] for name in imports(path)}
    }
    assert inside <= DOORS[package]


def test_only_experiments_knows_hydra():
    knowing = {name for name, path in EVERYTHING.items() if "hydra" in {n.split(".")[0] for n in imports(path)}}
    assert {name.split(".")[0] for name in knowing} == {"experiments"}


def test_the_entry_has_no_logic():
    entry = EVERYTHING["experiments.run"]
    assert below(entry) <= {"mal", "mal.config", "mal.errors", "mal.overrides", "mal.run", "mal.tracking_address"}
    assert len(entry.read_text(encoding="utf-8").splitlines()) < 60


def test_every_package_is_declared():
    """An import that pyproject.toml does not name works only where something else happens to bring it."""
    declared = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    names = {"cv2": "opencv-python-headless", "PIL": "pillow", "yaml": "pyyaml", "hydra": "hydra-core"}
    names |= {"faster_coco_eval": "faster-coco-eval"}
    used = {name.split(".")[0] for path in EVERYTHING.values() for name in imports(path)}
    foreign = used - sys.stdlib_module_names - {"mal", "analysis", "experiments"} - {"detectron2"}  # it is optional
    assert {name for name in foreign if f'"{names.get(name, name)}' not in declared} == set()


@pytest.mark.parametrize(
    ("line", "module"),
    [
        ("import mal.stages", "mal.stages"),
        ("from mal import stages", "mal.stages"),
        ("from mal.stages import Graph", "mal.stages"),
        ("def f():\n    import mlflow.sklearn as m", "mlflow.sklearn"),
    ],
)
def test_every_form_of_import_is_seen(line, module):
    assert module in read_imports(line)
