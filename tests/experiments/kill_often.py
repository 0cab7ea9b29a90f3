"""Run a command line again and again, each time killed (signal 9) at a random moment, then once to its end.

``python kill_often.py KILLS SEED WORDS...`` prints how many were killed, and how many of them while a checkpoint was
written. A process of its own for each attempt, forked after the imports, so that fifty take little.
"""

import json
import os
import random
import signal
import sys
import time
from pathlib import Path

from pyro_avae.experiments.cli import main

#: Seconds after which an attempt is killed, at most.
LONGEST = 1.5

#: Seconds that a file takes to reach the disk.
SLOW = 0.01

fsync = os.fsync


def attempt(words: list[str]) -> int:
    """The process of an attempt, started."""
    child = os.fork()
    if child == 0:
        os.fsync = slow_fsync
        os._exit(main(words))
    return child


def slow_fsync(descriptor: int) -> None:
    """A disk on which a write takes long enough to be killed in."""
    time.sleep(SLOW)
    fsync(descriptor)


def kill(child: int, written: Path, chance: random.Random, *, in_a_write: bool) -> bool:
    """Kill it, at a random moment or as soon as a file is half written; whether it was alive."""
    limit = time.monotonic() + (10 * LONGEST if in_a_write else chance.uniform(0.0, LONGEST))
    while time.monotonic() < limit:
        if in_a_write and any(written.glob(".step-*.tmp")):
            break
        time.sleep(0.001)
    alive = os.waitpid(child, os.WNOHANG) == (0, 0)
    if alive:
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
    return alive


def run(kills: int, seed: int, words: list[str]) -> dict[str, int]:
    chance, done, inside, finished = random.Random(seed), 0, 0, 0
    written = Path(words[words.index("--out") + 1]) / "checkpoints"
    while done < kills and not finished:
        child = attempt([*words, "--resume"])
        alive = kill(child, written, chance, in_a_write=done % 3 == 0)
        finished += not alive
        done += alive
        inside += alive and any(written.glob(".step-*.tmp"))
    child = attempt([*words, "--resume"])
    _, status = os.waitpid(child, 0)
    return {"kills": done, "inside": inside, "status": os.waitstatus_to_exitcode(status)}


if __name__ == "__main__":
    print(json.dumps(run(int(sys.argv[1]), int(sys.argv[2]), sys.argv[3:])))
