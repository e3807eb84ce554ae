"""Many processes with the same command at once: each stage is computed once, and all of them end well.

python tests/attacks/races.py [PROCESSES]      12 take a few minutes on two cores
"""

import re
import sys
import tempfile
from pathlib import Path

import harness

WORK = (r"train labeler: 4/4", r"train segmenter: 2/2", r"predict: 4/4", r"label train \(mal\): 8/8")  # in the log


def attack(folder: Path, *, processes: int, overrides: tuple[str, ...] = ()) -> list[str]:
    """What went wrong, in sentences."""
    harness.finish(harness.config(folder / "reference", *overrides), folder / "0.log")
    once = {work: len(re.findall(work, (folder / "0.log").read_text())) for work in WORK}
    assert once[r"train labeler: 4/4"] == 1, "the log of an undisturbed run does not show what was done"
    wanted, logs = harness.config(folder / "store", *overrides), [folder / f"racer-{i}.log" for i in range(processes)]
    with harness.attempts() as running:
        running += [harness.Attempt(wanted, log) for log in logs]
        codes = [one.wait(900) for one in running]
    texts = "\n".join(log.read_text() for log in logs)
    problems = [f"{log}: exit status {code}" for log, code in zip(logs, codes, strict=True) if code != 0]
    problems += ["a traceback was printed"] if "Traceback" in texts else []
    for work, times in once.items():
        if (found := len(re.findall(work, texts))) != times:
            problems.append(f"{work!r} was done {found} times, not {times}")
    differing = harness.differences(folder / "store", harness.bits(folder / "reference"))
    return problems + [f"{name} differs" for name in differing]


if __name__ == "__main__":
    count = int(sys.argv[1]) if len(sys.argv) > 1 else 12
    found = attack(Path(tempfile.mkdtemp(prefix="races-")), processes=count)
    print("\n".join(found) or f"{count} processes: everything was computed once")
    sys.exit(bool(found))
