"""An installation holds all that a checkout does: each package, and the files beside its modules."""

import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
SETUPTOOLS = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]


@pytest.mark.parametrize("top", ["mal", "analysis", "slurm"])
def test_every_package_is_named(top):
    found = {path.parent.relative_to(ROOT) for path in (ROOT / top).rglob("__init__.py")}
    plugins = ROOT / SETUPTOOLS["package-dir"]["hydra_plugins"]
    named = {Path(name.replace(".", "/")) for name in SETUPTOOLS["packages"]}
    assert {path for path in found if plugins not in [ROOT / path, *(ROOT / path).parents]} <= named


def test_every_style_page_and_profile_is_named():
    for package, patterns in SETUPTOOLS["package-data"].items():
        folder = ROOT / package.replace(".", "/")
        for pattern in patterns:
            assert list(folder.glob(pattern)), f"{package}: {pattern} is no file"
    named = {file for package, patterns in SETUPTOOLS["package-data"].items() for pattern in patterns
             for file in (ROOT / package.replace(".", "/")).glob(pattern)}  # fmt: skip
    ours = {
        path for top in ("mal", "analysis") for path in (ROOT / top).rglob("*.*") if path.suffix not in (".py", ".pyc")
    }
    assert {path for path in ours if path.is_file()} <= named
