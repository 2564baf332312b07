"""A real Slurm of two nodes on this machine, which a test starts and ends: nothing of it is a stand-in.

Controller, accounting on a MariaDB of its own, and a daemon a node; all listen on loopback, and all files are in one
folder. No cgroups and no systemd, so that a container is enough; but only root can start it. Memory is therefore
looked at once a second, and a job that takes more than it asked for is ended as cgroups would end it.
"""

import contextlib
import os
import shlex
import shutil
import signal
import socket
import subprocess
import time

import psutil

PROGRAMS = ("munged", "mariadbd", "mariadb-install-db", "mariadb", "slurmdbd", "slurmctld", "slurmd", "sbatch", "sacct")
NODES = ("n0", "n1")
PORTS = range(16817 + os.getpid() % 100 * 10, 19000, 10)  # of controllers; daemons take those that follow
READY_S = 60
ENVIRONMENT = os.environ | {"PATH": f"{os.environ['PATH']}:/usr/sbin:/sbin"}

SLURM = """\
ClusterName=toy
SlurmctldHost={host}(127.0.0.1)
SlurmUser=root
SlurmdUser=root
AuthType=auth/munge
AuthInfo=cred_expire=5,socket={folder}/munge.socket
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool-%n
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd-%n.pid
SlurmctldLogFile={folder}/slurmctld.log
SlurmdLogFile={folder}/slurmd-%n.log
SlurmctldPort={port}
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SwitchType=switch/none
MpiDefault=none
JobAcctGatherType=jobacct_gather/linux
JobAcctGatherFrequency=task=1
JobAcctGatherParams=OverMemoryKill
CommunicationParameters=NoInAddrAny,NoCtldInAddrAny
SelectType=select/cons_tres
SelectTypeParameters=CR_Core_Memory
DefMemPerCPU=8000
SchedulerParameters=sched_interval=1,bf_interval=2,batch_sched_delay=0,sched_min_interval=0
GresTypes=gpu,shard
SlurmdParameters=config_overrides
ReturnToService=2
PreemptType=preempt/partition_prio
PreemptMode=REQUEUE
SlurmdTimeout=5
KillWait=5
{accounting}
NodeName=n[0-1] NodeHostname={host} NodeAddr=127.0.0.1 Port=[{n0}-{n1}] CPUs=8 RealMemory=64000 Gres=gpu:2,shard:8
PartitionName=main Nodes=n[0-1] Default=YES MaxTime=60 State=UP PriorityTier=1 PreemptMode=REQUEUE GraceTime=15
PartitionName=urgent Nodes=n[0-1] MaxTime=60 State=UP PriorityTier=2
"""
ACCOUNTING = """\
AccountingStorageType=accounting_storage/slurmdbd
AccountingStorageHost=127.0.0.1
AccountingStoragePort={dbd}
AccountingStoragePass={folder}/munge.socket
AccountingStorageEnforce=associations
"""
GRES = """\
AutoDetect=off
NodeName=n0 Name=gpu File={folder}/dev/nvidia[0-1]
NodeName=n1 Name=gpu File={folder}/dev/nvidia[2-3]
NodeName=n[0-1] Name=shard Count=8
"""
SLURMDBD = """\
AuthType=auth/munge
AuthInfo=socket={folder}/munge.socket
DbdHost={host}
DbdAddr=127.0.0.1
DbdPort={dbd}
SlurmUser=root
StorageType=accounting_storage/mysql
StorageHost=localhost
StorageUser=root
StorageLoc=slurm_acct_db
LogFile={folder}/slurmdbd.log
PidFile={folder}/slurmdbd.pid
"""


def missing():
    """Why no Slurm can be started here; None if one can."""
    if os.geteuid() or not shutil.which("unshare"):
        return "only root can start a Slurm, and only on Linux"
    absent = [name for name in PROGRAMS if not shutil.which(name, path=ENVIRONMENT["PATH"])]
    if absent:
        return f"{', '.join(absent)} not installed (slurm-wlm munge slurmdbd mariadb-server-core mariadb-client-core)"
    return None


def _is_free(port):
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) != 0


class Slurm:
    """The cluster while it is up.

    Args:
        folder: of its files; its path must be short, since sockets are among them.
        accounting: whether ended jobs are remembered.

    Attributes:
        environment: of processes that are to find this cluster.
    """

    def __init__(self, folder, *, accounting=True):
        port = next(port for port in PORTS if all(map(_is_free, range(port, port + 5))))
        self.folder = folder
        self.environment = {"SLURM_CONF": str(folder / "slurm.conf"), "PATH": ENVIRONMENT["PATH"]}
        self._processes = {}
        self._accounting = accounting
        values = {
            "folder": folder,
            "host": socket.gethostname(),
            "port": port,
            "dbd": port + 2,
            "n0": port + 3,
            "n1": port + 4,
        }
        values["accounting"] = ACCOUNTING.format(**values) if accounting else ""
        for name in ("state", "spool-n0", "spool-n1", "dev"):
            (folder / name).mkdir(parents=True)
        for number in range(4):  # what stands for a GPU is /dev/null
            os.mknod(folder / "dev" / f"nvidia{number}", 0o666 | 0o020000, os.makedev(1, 3))
        for name, text in (("slurm", SLURM), ("gres", GRES), ("slurmdbd", SLURMDBD)):
            (folder / f"{name}.conf").write_text(text.format(**values))
            (folder / f"{name}.conf").chmod(0o600)
        (folder / "munge.key").write_bytes(os.urandom(128))

    def __enter__(self):
        try:
            self._munge()
            if self._accounting:
                self._database()
                self._start("slurmdbd", "slurmdbd", "-D")
                self._wait("slurmdbd", ["sacctmgr", "-i", "add", "cluster", "toy"])
                self.ask("sacctmgr", "-i", "add", "account", "physics", "cluster=toy")
                self.ask("sacctmgr", "-i", "add", "user", "root,nobody", "account=physics")
            self._start("slurmctld", "slurmctld", "-D", "-c")
            for node in NODES:
                self.start_node(node)
            self._wait(
                "slurmctld",
                ["sh", "-c", "sinfo --noheader --Node --partition=main --format %t | grep -c idle | grep -qx 2"],
            )
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *error):
        for name in reversed(list(self._processes)):
            self.kill(name, signal.SIGTERM)

    def start_controller(self):
        """Start the controller, which remembers its jobs, as after a crash."""
        self._start("slurmctld", "slurmctld", "-D")
        self._wait("slurmctld", ["squeue"])

    def start_node(self, node, without=None):
        """Start a node's daemon, as after a crash; ``without`` is a folder that the node does not see."""
        daemon = [shutil.which("slurmd", path=ENVIRONMENT["PATH"]), "-D", "-N", node]
        if without is None:
            self._start(node, *daemon)
        else:  # an empty disk lies over it, for this daemon alone
            over = f'mount -t tmpfs none "{without}" && exec {shlex.join(daemon)}'
            self._start(node, "unshare", "--mount", "sh", "-c", over)

    def crash_node(self, node):
        """Let a node die with all that runs on it; how many processes of jobs that were."""
        daemon = self._processes.pop(node)
        victims = [process for process in psutil.process_iter() if self._is_of_job(process, node)]
        for victim in [daemon, *victims]:
            with contextlib.suppress(psutil.NoSuchProcess):
                victim.kill()
        daemon.wait(10)
        return len(victims)

    def _is_of_job(self, process, node):
        """Whether a process belongs to a job on a node: one of the job's own, or Slurm's that watches it."""
        with contextlib.suppress(psutil.Error):
            watched = process.children() if process.name() == "slurmstepd" else [process]
            for each in watched:
                environment = each.environ()
                if environment.get("SLURM_CONF") == self.environment["SLURM_CONF"]:
                    return environment.get("SLURMD_NODENAME") == node
        return False

    def ask(self, *command):
        """What a command of Slurm prints."""
        answer = subprocess.run(command, env=ENVIRONMENT | self.environment, capture_output=True, text=True, check=True)
        return answer.stdout

    def accepts(self, *command):
        """Whether a command of Slurm succeeds."""
        return not subprocess.run(command, env=ENVIRONMENT | self.environment, capture_output=True).returncode

    def states(self, column="%T"):
        """What the queue says of each job."""
        lines = self.ask("squeue", "--array", "--noheader", f"--format=%i {column}").splitlines()
        return dict(line.split(maxsplit=1) for line in lines)

    def empty(self):
        """Cancel what is queued, and wait until it is gone."""
        self.ask("scancel", "--quiet", "--user=root")
        self.ask("scancel", "--quiet", "--user=nobody")
        while self.states():
            time.sleep(0.1)

    def kill(self, name, signum=signal.SIGKILL):
        """End one of the daemons."""
        process = self._processes.pop(name)
        with contextlib.suppress(psutil.NoSuchProcess):
            process.send_signal(signum)
            try:
                process.wait(10)
            except psutil.TimeoutExpired:
                process.kill()
                process.wait(10)

    def _munge(self):
        user = {}
        if shutil.which("runuser"):
            shutil.chown(self.folder / "munge.key", "munge", "munge")
            shutil.chown(self.folder, "munge", "munge")
            user = {"user": "munge", "group": "munge", "extra_groups": []}
        (self.folder / "munge.key").chmod(0o400)
        (self.folder / "munge").mkdir()
        shutil.chown(self.folder / "munge", "munge", "munge")
        paths = {"key-file": "munge.key", "socket": "munge.socket", "seed-file": "munge/seed"}
        paths |= {"log-file": "munge/log", "pid-file": "munge/pid"}
        flags = [f"--{name}={self.folder / path}" for name, path in paths.items()]
        self._start("munge", "munged", "--foreground", "--force", *flags, **user)
        self._wait("munge", ["munge", f"--socket={self.folder / 'munge.socket'}", "--no-input"])

    def _database(self):
        data, socket_ = self.folder / "database", self.folder / "database.socket"
        install = ["mariadb-install-db", "--no-defaults", "--user=root", f"--datadir={data}", "--skip-test-db"]
        subprocess.run([*install, "--auth-root-authentication-method=normal"], check=True, capture_output=True)
        flags = ["--no-defaults", "--user=root", f"--datadir={data}", f"--socket={socket_}", "--skip-networking"]
        self._start("mariadb", "mariadbd", *flags)
        query = ["mariadb", f"--socket={socket_}", "--user=root", "-e", "create database slurm_acct_db"]
        self._wait("mariadb", query)

    def _start(self, name, program, *arguments, **more):
        command = [shutil.which(program, path=ENVIRONMENT["PATH"]), *arguments]
        environment = ENVIRONMENT | self.environment | {"MYSQL_UNIX_PORT": str(self.folder / "database.socket")}
        with open(self.folder / f"{name}.out", "ab") as log:
            self._processes[name] = psutil.Popen(
                command, env=environment, stdin=subprocess.DEVNULL, stdout=log, stderr=log, **more
            )

    def _wait(self, name, question):
        """Until a question is answered by a daemon that has just been started."""
        deadline = time.monotonic() + READY_S
        while not self.accepts(*question):
            if self._processes[name].poll() is not None or time.monotonic() > deadline:
                raise RuntimeError(f"{name} does not start: {(self.folder / f'{name}.out').read_text()[-2000:]}")
            time.sleep(0.1)
