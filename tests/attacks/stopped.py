"""An owner is stopped (SIGSTOP), taken over, and woken: it leaves, and its heir's results are those of a quiet run.

python tests/attacks/stopped.py [ROUNDS] [SEED]      a round takes about a minute on two cores
"""

import random
import signal
import sys
import tempfile
import time
from pathlib import Path

import harness

IMPATIENT = {"heartbeat": 0.2, "expiry": 1.0, "poll": 0.1}  # of the store, in seconds


def attack(folder: Path, *, rounds: int, seed: int, overrides: tuple[str, ...] = ()) -> tuple[list[str], int]:
    """What went wrong, in sentences; and how many owners lost a stage while they were stopped."""
    took = harness.finish(harness.config(folder / "reference", *overrides), folder / "reference.log")
    reference, draw, problems, lost = harness.bits(folder / "reference"), random.Random(seed), [], 0
    for number in range(rounds):
        store = folder / f"store-{number}"
        wanted, logs = harness.config(store, *overrides), [folder / f"{who}-{number}.log" for who in ("owner", "heir")]
        with harness.attempts() as running:
            running.append(owner := harness.Attempt(wanted, logs[0], store=IMPATIENT))
            owner.wait(draw.uniform(0.1, 0.8) * took)
            owner.send(signal.SIGSTOP)
            running.append(heir := harness.Attempt(wanted, logs[1], store=IMPATIENT))
            until = time.monotonic() + 60
            while not list(store.glob("*/*/claim-2.json")) and heir.wait(0.02) is None and time.monotonic() < until:
                pass
            heir.wait(draw.uniform(0.0, 0.3) * took)
            owner.send(signal.SIGCONT)
            codes = [owner.wait(300), heir.wait(300)]
        texts = [log.read_text() for log in logs]
        lost += "was taken over by" in texts[0]
        if codes[1] != 0 or codes[0] != ("was taken over by" in texts[0]):
            problems.append(f"round {number}: exit status {codes[0]} of the owner, {codes[1]} of its heir; see {logs}")
        tracebacks = [(log, text.partition("Traceback")[2]) for log, text in zip(logs, texts, strict=True)]
        problems += [f"{log}: a traceback, {text.splitlines()[-1]}" for log, text in tracebacks if text]
        problems += [f"round {number}: {name} differs" for name in harness.differences(store, reference)]
    return problems, lost


if __name__ == "__main__":
    count, number = (int(text) for text in [*sys.argv[1:], *("10", "0")[len(sys.argv) - 1 :]])
    found, losers = attack(Path(tempfile.mkdtemp(prefix="stopped-")), rounds=count, seed=number)
    print("\n".join(found) or f"{count} rounds: {losers} owners were taken over and left; the results stand")
    sys.exit(bool(found))
