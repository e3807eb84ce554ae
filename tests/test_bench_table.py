"""The README's table of speeds is that of results/bench."""

import json
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]


def test_the_readme_shows_what_was_measured() -> None:
    spec = spec_from_file_location("bench_gpu", ROOT / "experiments" / "bench" / "gpu.py")
    assert spec is not None
    assert spec.loader is not None
    bench = module_from_spec(spec)
    spec.loader.exec_module(bench)
    results = [json.loads(path.read_text()) for path in sorted((ROOT / "results" / "bench").glob("*.json"))]
    assert results
    assert bench.table(results) in (ROOT / "README.md").read_text(), (
        "put in what experiments/bench/gpu.py --table prints"
    )
    assert all(len(found["commit"]) == 40 for result in results for found in result["encoders"].values())
