"""A real SLURM on this machine alone, to try sweeps and to test with: `python -m slurm.local_cluster up|down|status`.

It needs root and Debian's packages (apt-get install slurm-wlm munge). All it writes lies in one folder. Two cores pose
as eight, and GPUs are device files that lead nowhere, so that jobs can ask for several of either.
"""

import argparse
import os
import secrets
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from mal.engine.commands import command
from mal.errors import MalError

FOLDER = Path("/tmp/mal-slurm")
PROGRAMS = ("munged", "slurmctld", "slurmd", "sbatch", "squeue", "scontrol")
CONFIG = """\
ClusterName=mal
SlurmctldHost=localhost
SlurmctldPort={ports[0]}
SlurmdPort={ports[1]}
SlurmUser=root
SlurmdUser=root
AuthType=auth/munge
AuthInfo=socket={folder}/munge.socket
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd.pid
SlurmctldLogFile={folder}/slurmctld.log
SlurmdLogFile={folder}/slurmd.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/none
AccountingStorageType=accounting_storage/none
MpiDefault=none
SwitchType=switch/none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
SchedulerParameters=batch_sched_delay=1,sched_interval=2,bf_interval=2
SlurmdParameters=config_overrides
ReturnToService=2
KillWait=10
MinJobAge=30
GresTypes=gpu
NodeName=localhost CPUs={cpus} Boards=1 SocketsPerBoard=1 CoresPerSocket={cpus} ThreadsPerCore=1 Gres=gpu:{gpus}
PartitionName=main Nodes=localhost Default=YES MaxTime=INFINITE State=UP
"""


def up(folder: Path = FOLDER, *, cpus: int = 8, gpus: int = 4, patience_s: float = 60.0) -> dict[str, str]:
    """Start it, unless it runs already.

    Returns:
        The environment that leads SLURM's commands to it.

    Raises:
        MalError: SLURM is not installed, we are not root, or it does not come up.
    """
    environment = {"SLURM_CONF": str(folder / "slurm.conf")}
    if is_up(folder):
        return environment
    if reason := missing():
        raise MalError(reason)
    down(folder)
    for name in ("state", "spool", "gpus"):
        (folder / name).mkdir(parents=True)
    for number in range(gpus):
        os.mknod(folder / "gpus" / f"gpu{number}", 0o020666, os.makedev(1, 3))
    ports = free_ports(2)
    (folder / "slurm.conf").write_text(CONFIG.format(folder=folder, cpus=cpus, gpus=gpus, ports=ports))
    (folder / "gres.conf").write_text(f"Name=gpu File={folder}/gpus/gpu[0-{gpus - 1}]\n")
    (folder / "munge.key").write_bytes(secrets.token_bytes(128))
    (folder / "munge.key").chmod(0o400)
    munge = [f"--{name}={folder}/munge.{end}" for name, end in MUNGE_FILES.items()]
    _start(["munged", "--force", *munge], environment)
    _start(["slurmctld"], environment)
    _start(["slurmd", "-N", "localhost"], environment)
    end = time.monotonic() + patience_s
    while not is_up(folder):
        if time.monotonic() > end:
            log = (folder / "slurmctld.log").read_text()[-2000:]
            raise MalError(f"SLURM did not come up within {patience_s:g} s; the end of {folder}/slurmctld.log: {log}")
        time.sleep(0.5)
    return environment


MUNGE_FILES = {"key-file": "key", "socket": "socket", "pid-file": "pid", "log-file": "log", "seed-file": "seed"}


def down(folder: Path = FOLDER) -> None:
    """Cancel what runs, stop it, and remove its folder."""
    if not folder.exists():
        return
    environment = {**os.environ, "SLURM_CONF": str(folder / "slurm.conf")}
    if is_up(folder):
        subprocess.run(["scancel", "--user", "root"], env=environment, capture_output=True, timeout=60)
        time.sleep(2)
    for name in ("slurmd", "slurmctld", "munge"):
        _stop(folder / f"{name}.pid")
    shutil.rmtree(folder, ignore_errors=True)


def is_up(folder: Path = FOLDER) -> bool:
    """Whether its node takes jobs."""
    if not (folder / "slurm.conf").is_file():
        return False
    command = ["sinfo", "--noheader", "--format", "%T"]
    try:
        said = subprocess.run(
            command, env={**os.environ, "SLURM_CONF": str(folder / "slurm.conf")}, capture_output=True, text=True,
            timeout=20,
        )  # fmt: skip
    except (OSError, subprocess.TimeoutExpired):
        return False
    return said.stdout.strip() in ("idle", "mixed", "allocated", "completing")


def missing() -> str:
    """Why it cannot be started here; empty where it can."""
    absent = [name for name in PROGRAMS if shutil.which(name, path=_path()) is None]
    if absent:
        return f"there is no {', '.join(absent)} here; apt-get install slurm-wlm munge"
    return "" if os.geteuid() == 0 else "it starts SLURM's daemons, which takes root"


def free_ports(count: int) -> list[int]:
    """Ports that nothing listens on now."""
    sockets = [socket.socket() for _ in range(count)]
    try:
        for each in sockets:
            each.bind(("localhost", 0))
        return [each.getsockname()[1] for each in sockets]
    finally:
        for each in sockets:
            each.close()


def _path() -> str:
    return f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin"


def _start(command: list[str], environment: dict[str, str]) -> None:
    program = shutil.which(command[0], path=_path())
    assert program is not None  # `missing` says so
    done = subprocess.run(
        [program, *command[1:]], env={**os.environ, **environment}, capture_output=True, text=True, timeout=60
    )
    if done.returncode:
        raise MalError(f"{command[0]} does not start: {(done.stderr or done.stdout).strip()}")


def _stop(pid_file: Path, patience_s: float = 10.0) -> None:
    try:
        pid = int(pid_file.read_text())
        os.kill(pid, 15)
        end = time.monotonic() + patience_s
        while time.monotonic() < end:
            os.kill(pid, 0)
            time.sleep(0.1)
        os.kill(pid, 9)
    except (OSError, ValueError):
        pass


@command
def main(arguments: Sequence[str] | None) -> None:
    parser = argparse.ArgumentParser(prog="python -m slurm.local_cluster", description=__doc__)
    parser.add_argument("action", choices=("up", "down", "status"))
    parser.add_argument("--folder", type=Path, default=FOLDER, help="default: %(default)s")
    parser.add_argument("--cpus", type=int, default=8, help="default: %(default)s")
    parser.add_argument("--gpus", type=int, default=4, help="default: %(default)s")
    options = parser.parse_args(arguments)
    if options.action == "up":
        up(options.folder, cpus=options.cpus, gpus=options.gpus)
        print(f"it is up; lead SLURM's commands to it with:  export SLURM_CONF={options.folder}/slurm.conf")
    elif options.action == "down":
        down(options.folder)
        print("it is down")
    else:
        print(f"it is {'up' if is_up(options.folder) else 'down'} ({options.folder})")


if __name__ == "__main__":
    sys.exit(main())
