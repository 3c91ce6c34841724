"""A real SLURM of two nodes on this machine: munged, slurmctld and two slurmd, on the loopback, in a folder."""

import getpass
import os
import re
import shutil
import socket
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

PATH = os.pathsep.join((str(Path(__file__).parent / "bin"), os.environ["PATH"], "/usr/sbin", "/sbin"))
PROGRAMS = ("munged", "slurmctld", "slurmd", "sbatch", "srun", "scontrol")
INSTALL = "apt-get update && apt-get install -y --no-install-recommends slurm-wlm munge"
NODES = ("n1", "n2")


def missing() -> list[str]:
    """The programs that are not installed."""
    return [program for program in PROGRAMS if shutil.which(program, path=PATH) is None]


def wait_for(condition: Callable[[], object], seconds: float, what: str) -> None:
    """Wait until a condition holds.

    Raises:
        TimeoutError: naming `what`, if it does not come to hold in time.
    """
    end = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > end:
            raise TimeoutError(f"{what}: not within {seconds:g} s")
        time.sleep(0.2)


class Cluster:
    """Two nodes of two CPUs and two pretended GPUs each; to be entered, and left again.

    Args:
        folder: an empty folder with a short path: a socket of munge goes there, whose path has a limit of 108 bytes.

    Attributes:
        environment: with which SLURM's programs find this cluster. Jobs inherit it.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        clean = {
            name: value
            for name, value in os.environ.items()
            if not name.startswith(("SLURM_", "SBATCH_", "SRUN_", "SUBMITIT_", "PL_"))
        }
        # Every node is this machine, which need not know itself by the names of the nodes.
        self.environment = clean | {
            "PATH": PATH,
            "SLURM_CONF": str(folder / "slurm.conf"),
            "MASTER_ADDR": "127.0.0.1",
            "OMP_NUM_THREADS": "1",
        }
        self._daemons: list[subprocess.Popen[bytes]] = []

    def __enter__(self) -> "Cluster":
        self._configure()
        munge = ["--key-file=munge.key", "--pid-file=munged.pid", "--log-file=munged.log", "--seed-file=munge.seed"]
        try:
            self._start("munged", "--foreground", "--force", f"--socket={self.folder}/munge/socket", *munge)
            wait_for((self.folder / "munge" / "socket").exists, 10, "munged")
            self._start("slurmctld", "-D", "-c")
            for node in NODES:
                self._start("slurmd", "-D", "-N", node)
            wait_for(lambda: self.run("sinfo", "-hN", "-tidle", "-o%N").split() == list(NODES), 60, "idle nodes")
        except BaseException:
            self._stop()
            raise
        return self

    def __exit__(self, *error: object) -> None:
        # Jobs outlive the slurmd that started them.
        try:
            self.run("scancel", *self.run("squeue", "-ho%A").split(), check=False)
            wait_for(lambda: not self.run("squeue", "-h"), 30, "the end of all jobs")
        finally:
            self._stop()

    def _configure(self) -> None:
        sockets = [socket.socket() for _ in range(1 + len(NODES))]
        for each in sockets:
            each.bind(("127.0.0.1", 0))
        control, *ports = (each.getsockname()[1] for each in sockets)
        for each in sockets:
            each.close()
        for name in ("munge", "state", "gpus", *(f"spool.{node}" for node in NODES)):
            (self.folder / name).mkdir()
        self.folder.chmod(0o755)
        (self.folder / "munge.key").write_bytes(os.urandom(1024))
        (self.folder / "munge.key").chmod(0o600)
        for gpu in range(2):
            (self.folder / "gpus" / f"gpu{gpu}").touch()
        user, host = getpass.getuser(), socket.gethostname().partition(".")[0]
        settings = {
            "ClusterName": "test",
            "SlurmctldHost": f"{host}(127.0.0.1)",
            "SlurmUser": user,
            "SlurmdUser": user,
            "AuthType": "auth/munge",
            # A requeued job waits until its old credentials have expired.
            "AuthInfo": f"socket={self.folder}/munge/socket,cred_expire=5",
            "SlurmctldPort": control,
            "SlurmctldPidFile": f"{self.folder}/slurmctld.pid",
            "SlurmdPidFile": f"{self.folder}/slurmd.%n.pid",
            "SlurmctldLogFile": f"{self.folder}/slurmctld.log",
            "SlurmdLogFile": f"{self.folder}/slurmd.%n.log",
            "StateSaveLocation": f"{self.folder}/state",
            "SlurmdSpoolDir": f"{self.folder}/spool.%n",
            "ProctrackType": "proctrack/linuxproc",
            "TaskPlugin": "task/none",
            "SwitchType": "switch/none",
            "MpiDefault": "none",
            "AccountingStorageType": "accounting_storage/none",
            "JobAcctGatherType": "jobacct_gather/none",
            "JobCompType": "jobcomp/none",
            "SelectType": "select/cons_tres",
            "SelectTypeParameters": "CR_Core",
            "SchedulerParameters": "sched_interval=1,bf_interval=1,batch_sched_delay=0,sched_min_interval=0",
            "SlurmdParameters": "config_overrides",
            "ReturnToService": 2,
            "MailProg": "/bin/true",
            "KillWait": 10,
            "MinJobAge": 3600,
            "GresTypes": "gpu",
        }
        lines = [f"{name}={value}" for name, value in settings.items()]
        for node, port in zip(NODES, ports, strict=True):
            lines.append(
                f"NodeName={node} NodeHostname={host} NodeAddr=127.0.0.1 Port={port} CPUs=2 RealMemory=4000 Gres=gpu:2"
            )
        lines.append("PartitionName=main Nodes=ALL Default=YES MaxTime=INFINITE State=UP")
        (self.folder / "slurm.conf").write_text("\n".join(lines) + "\n")
        gpus = f"NodeName=n[1-2] Name=gpu File={self.folder}/gpus/gpu[0-1]\n"
        (self.folder / "gres.conf").write_text(gpus)

    def _start(self, *command: str) -> None:
        with (self.folder / f"daemon{len(self._daemons)}.out").open("wb") as out:
            daemon = subprocess.Popen(
                command, cwd=self.folder, env=self.environment, stdout=out, stderr=out, start_new_session=True
            )
        self._daemons.append(daemon)

    def _stop(self) -> None:
        for daemon in reversed(self._daemons):
            daemon.terminate()
            try:
                daemon.wait(20)
            except subprocess.TimeoutExpired:
                daemon.kill()
                daemon.wait()

    def run(self, *command: str, check: bool = True, **environment: str) -> str:
        """What a program of SLURM, or one that calls them, prints."""
        done = subprocess.run(
            command, env=self.environment | environment, capture_output=True, text=True, timeout=300, check=False
        )
        assert done.returncode == 0 or not check, f"{command}: {done.stdout}{done.stderr}"
        return done.stdout

    def job(self, number: str) -> dict[str, str]:
        """What SLURM knows of a job, by its own names: JobState, Restarts, ExitCode."""
        return dict(re.findall(r"(\w+)=(\S*)", self.run("scontrol", "--oneliner", "show", "job", number)))

    def wait(self, number: str, seconds: float = 120) -> dict[str, str]:
        """A job once it has come to its end."""
        ends = ("COMPLETED", "FAILED", "CANCELLED", "TIMEOUT", "NODE_FAIL", "PREEMPTED", "OUT_OF_MEMORY")
        wait_for(lambda: self.job(number)["JobState"] in ends, seconds, f"the end of job {number}")
        return self.job(number)
