"""Imports point one way, and heavy or optional packages stay behind one door."""

import ast
import re
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
# each layer imports from itself and from those before it; a room stands for all of its modules
LAYERS = (
    "errors",
    "bounds",
    "data.config encoders.config methods.mal.config methods.attentionshift.config methods.bestie.config "
    "methods.simformer.config methods.partialres.config segmenters.config",
    "config losses engine",
    "data",
    "encoders",
    "metrics context",
    "methods.labelling methods.point_files methods.weights",
    "methods.spec",
    "methods.stages methods.baselines methods.mal methods.attentionshift methods.bestie methods.simformer "
    "methods.partialres segmenters",
    "methods.registry evaluation",
    "config_checks overrides needs",
    "request pictures",
    "run_notes own",
    "run label check review store tracking voc wholes semantic expressions",
    "autolabel segment",
)
# no one imports another
METHODS = sorted(path.parent.name for path in (ROOT / "mal" / "methods").glob("*/__init__.py"))
DOORS = {  # the only files that may import it
    "h5py": {"mal/data/cocostuff.py"},
    "mlflow": {"mal/engine/mlflow_server.py"},
    "detectron2": {"mal/segmenters/rcnn/detectron2.py"},
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
    """The index of a module's layer: its own, or its room's."""
    name = module.removeprefix("mal.")
    while True:
        found = [i for i, names in enumerate(LAYERS) if name in names.split()]
        if found:
            return found[0]
        assert "." in name, f"{module} belongs to no layer yet: say in LAYERS where it stands"
        name = name.rpartition(".")[0]


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


@pytest.mark.parametrize("method", METHODS)
def test_a_method_knows_no_other(method):
    others = tuple(f"mal.methods.{other}" for other in METHODS if other != method)
    known = {i for name, path in sources(f"mal/methods/{method}").items() for i in below(path) if i.startswith(others)}
    assert known == set()


def test_every_folder_of_methods_is_in_the_registry():
    known = imports(ROOT / "mal" / "methods" / "registry.py")
    assert {
        method for method in METHODS if not any(f"{name}.".startswith(f"mal.methods.{method}.") for name in known)
    } == set()


def test_analysis_imports_only_what_loads_no_torch():
    """Its commands start in a second, and run where there is no torch."""
    used = sorted({name for path in sources("analysis").values() for name in imports(path)})
    assert not [name for name in used if name.split(".")[0] == "experiments"]
    suite = [name for name in used if name.split(".")[0] == "mal"]
    script = f"import sys, {', '.join(suite)}; print([name for name in ('torch', 'mlflow') if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, check=True)
    assert suite
    assert done.stdout.strip() == "[]"


def test_the_suite_has_one_door_to_analysis():
    through = {
        name
        for name, path in sources("mal").items()
        if any(used.split(".")[0] in ("analysis", "experiments") for used in imports(path))
    }
    assert through == {"mal.pictures"}


@pytest.mark.parametrize("package", sorted(DOORS))
def test_a_heavy_package_has_one_door(package):
    inside = {
        str(path.relative_to(ROOT))
        for path in EVERYTHING.values()
        if package in {name.split(".")[0] for name in imports(path)}
    }
    assert inside <= DOORS[package]


def test_the_registry_of_segmenters_imports_no_network():
    code = "import sys, mal.segmenters; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT).returncode == 0


def test_only_experiments_knows_hydra():
    knowing = {name for name, path in EVERYTHING.items() if "hydra" in {n.split(".")[0] for n in imports(path)}}
    assert {name.split(".")[0] for name in knowing} == {"experiments"}


def test_the_entry_has_no_logic():
    entry = EVERYTHING["experiments.run"]
    assert below(entry) <= {
        "mal",
        "mal.config",
        "mal.errors",
        "mal.overrides",
        "mal.run",
        "mal.engine.commands",
        "mal.engine.tracking_address",
    }
    assert len(entry.read_text(encoding="utf-8").splitlines()) < 60


def test_no_function_or_class_is_there_for_tests_alone():
    code = {name: path.read_text(encoding="utf-8") for name, path in (EVERYTHING | sources("slurm")).items()}
    words = Counter(word for text in code.values() for word in re.findall(r"\w+", text))
    found_by_hydra = {"SlurmLauncher", "LocalLauncher", "RowSweeper"}
    defined = Counter(
        node.name
        for text in code.values()
        for node in ast.parse(text).body
        if isinstance(node, ast.FunctionDef | ast.ClassDef) and not node.name.startswith("_")
    )
    assert {name for name, times in defined.items() if words[name] <= times} - found_by_hydra == set()


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
        ("import mal.segmenters", "mal.segmenters"),
        ("from mal import segmenters", "mal.segmenters"),
        ("from mal.request import Graph", "mal.request"),
        ("def f():\n    import mlflow.sklearn as m", "mlflow.sklearn"),
    ],
)
def test_every_form_of_import_is_seen(line, module):
    assert module in read_imports(line)
