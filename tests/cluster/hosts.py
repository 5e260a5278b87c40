"""Hosts on one machine, for tests of real clusters: each has a network, processes, mounts and a name of its own.

All that is made are processes and one folder. The switch between the hosts lies in the network of the desk, where the
user sits, and a network ends with its processes: whatever ends those leaves nothing behind, also a kill of who made
them.
"""

import contextlib
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO

import psutil

REPOSITORY = Path(__file__).resolve().parents[2]
HOME = "/home/root"
VISIBLE = tuple(
    dict.fromkeys([REPOSITORY, Path(sys.prefix), Path(sys.base_prefix)])
)  # on every host, at the same place
TOOLS = ("ip", "nsenter", "rsync", "setpriv", "ssh", "ssh-keygen", "sshd", "unshare")
PATIENCE = 300  # seconds after which what takes seconds is taken for hung

_NETWORK = "10.77.0"
_NAMESPACES = ("--net", "--pid", "--mount", "--uts", "--ipc")
_SSHD = """\
Port 22
HostKey /etc/ssh/host_key
AuthorizedKeysFile /etc/ssh/key.pub
PidFile none
UsePAM no
PermitRootLogin prohibit-password
StrictModes no
MaxStartups 100
"""
# Run by process 1 of a host. Paths that stay visible are opened first: what is mounted then may lie over them.
_BOOT = """\
set -eu
folder=$1 name=$2
shift 2
hostname "$name"
for file in passwd shadow hosts ssh; do mount --bind "$folder/etc/$file" "/etc/$file"; done
declare -A visible
for path in "$@"; do exec {handle}<"$path"; visible[$path]=$handle; done
for path in home tmp; do mount --bind "$folder/$path" "/$path"; done
for path in /run /dev/shm; do mount -t tmpfs -o mode=1777 own "$path"; done
for path in "${!visible[@]}"; do
    mkdir -p "$path"
    mount --no-canonicalize --bind "/proc/self/fd/${visible[$path]}" "$path"
done
mkdir -m 755 /run/sshd
exec "$(command -v sshd)" -D -e
"""


def lacking() -> str:
    """Why hosts cannot be made here; empty where they can."""
    if os.geteuid() != 0:
        return "needs root"
    missing = [tool for tool in TOOLS if shutil.which(tool) is None]
    return f"needs {', '.join(missing)}" if missing else ""


def until(condition: Callable[[], object], what: str, running: "Running | None" = None) -> None:
    """Wait for a condition, while a command runs."""
    deadline = time.monotonic() + PATIENCE
    while not condition():
        assert running is None or running.process.poll() is None, f"ended before {what}\n{running.log.read_text()}"
        assert time.monotonic() < deadline, f"waited in vain until {what}"
        time.sleep(0.05)


@dataclass(frozen=True)
class Running:
    """A command on a host, and where its output comes."""

    process: "subprocess.Popen[bytes]"
    log: Path

    def end(self) -> str:
        """Its output, once it has ended well."""
        status = self.process.wait(PATIENCE)
        output = self.log.read_text()
        assert status == 0, f"ended with {status}\n{output}"
        return output


class Host:
    """One host. Its disk, `folder`, outlives a crash.

    address : in the network of the hosts
    """

    def __init__(self, name: str, number: int, folder: Path) -> None:
        self.name, self.address, self.folder = name, f"{_NETWORK}.{number}", folder
        self.home = folder / HOME.lstrip("/")
        self._commands = 0

    def boot(self) -> None:
        """Begin its processes, and with them its namespaces."""
        log = self.folder / "sshd.log"
        boot = ["bash", "-c", _BOOT, "boot", str(self.folder), self.name]
        fork = ["unshare", *_NAMESPACES, "--fork", "--kill-child", "--mount-proc", "--", *boot, *map(str, VISIBLE)]
        with log.open("w") as output:
            # Whoever made the hosts takes them along, however it ends.
            self._parent = subprocess.Popen(
                ["setpriv", "--pdeathsig", "KILL", *fork], stdout=output, stderr=output, stdin=subprocess.DEVNULL
            )
        until(lambda: "listening" in log.read_text() or self._parent.poll() is not None, f"{self.name} runs")
        assert self._parent.poll() is None, log.read_text()
        (self._first,) = psutil.Process(self._parent.pid).children()

    def crash(self) -> None:
        """End all its processes at once."""
        self._parent.kill()
        self._parent.wait()
        psutil.wait_procs([self._first], timeout=PATIENCE)

    @property
    def processes(self) -> list[psutil.Process]:
        """What runs there beside its sshd."""
        return [process for process in self._first.children(recursive=True) if not _is(process, "sshd")]

    def running(self, *words: str) -> list[psutil.Process]:
        """Its processes whose command has one of the words."""
        return [process for process in self.processes if any(_is(process, word) for word in words)]

    def ip(self, command: str) -> None:
        """Change something of its network."""
        assert self._enter(["--net"], "ip", *command.split()).wait() == 0, command

    def start(self, command: str) -> Running:
        """Begin a command there as a user who is logged in would, in the folder of the project."""
        shell = ["env", "-i", f"HOME={HOME}", "USER=root", "LANG=C.UTF-8", f"PATH={os.defpath}:/usr/sbin:/sbin", "bash"]
        line = f"source ~/.bashrc; cd ~/moa_ray && exec {command}"
        self._commands += 1
        log = self.folder / f"command-{self._commands}.log"
        with log.open("w") as output:
            return Running(self._enter(_NAMESPACES, *shell, "-c", line, output=output), log)

    def run(self, command: str) -> str:
        """Output of a command that must end well."""
        return self.start(command).end()

    def join(self, desk: "Host") -> None:
        """Plug it into the switch, which is the desk's."""
        if self is desk:
            self.ip("link add lan type bridge")
            self.ip(f"addr add {self.address}/24 dev lan")
            self.ip("link set lan up")
        else:
            desk.ip(f"link add {self.name} type veth peer name eth0 netns {self._first.pid}")
            desk.ip(f"link set {self.name} master lan up")
            self.ip(f"addr add {self.address}/24 dev eth0")
            self.ip("link set eth0 up")
            self.ip(f"route add default via {desk.address}")  # Ray finds its own address along it
        self.ip("link set lo up")

    def _enter(
        self, namespaces: Sequence[str], *command: str, output: IO[str] | None = None
    ) -> "subprocess.Popen[bytes]":
        enter = ["nsenter", f"--target={self._first.pid}", *namespaces, "--", *command]
        return subprocess.Popen(enter, stdout=output, stderr=output, stdin=subprocess.DEVNULL)


def _is(process: psutil.Process, word: str) -> bool:
    try:
        return word in " ".join(process.cmdline())
    except psutil.Error:  # it has just ended
        return False


class Hosts:
    """A desk and others beside it, by their names."""

    def __init__(self, folder: Path, names: list[str]) -> None:
        self.desk, *self.others = [Host(name, number, folder / name) for number, name in enumerate(["desk", *names], 1)]
        for host in (self.desk, *self.others):
            self._install(host)

    def __getitem__(self, name: str) -> Host:
        (host,) = [host for host in self.others if host.name == name]
        return host

    def boot(self, *hosts: Host) -> None:
        """Begin some hosts and plug them in."""
        for host in hosts:
            host.boot()
            host.join(self.desk)

    def cut(self, host: Host) -> None:
        """Pull its plug."""
        self.desk.ip(f"link set {host.name} down")

    def mend(self, host: Host) -> None:
        """Put it in again."""
        self.desk.ip(f"link set {host.name} up")

    def _install(self, host: Host) -> None:
        """Its disk: a login that takes the desk's key, and the environment that the tests run in."""
        etc, project = host.folder / "etc", host.home / "moa_ray"
        for folder in (etc / "ssh", project, host.folder / "tmp"):
            folder.mkdir(parents=True)
        (host.folder / "tmp").chmod(0o1777)
        (etc / "passwd").write_text(f"root:x:0:0::{HOME}:/bin/bash\nsshd:x:100:65534::/run/sshd:/usr/sbin/nologin\n")
        (etc / "shadow").write_text("root:*:1::::::\n")
        names = [f"{other.address} {other.name}" for other in (self.desk, *self.others)]
        (etc / "hosts").write_text("\n".join(["127.0.0.1 localhost", *names, ""]))
        (etc / "ssh" / "sshd_config").write_text(_SSHD)
        _make_key(etc / "ssh" / "host_key")
        if host is self.desk:
            _make_key(etc / "ssh" / "key")
        else:
            shutil.copy(self.desk.folder / "etc" / "ssh" / "key.pub", etc / "ssh")
        (project / ".venv").symlink_to(sys.prefix)
        (host.home / ".bashrc").touch()


def _make_key(path: Path) -> None:
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(path)], check=True)


@contextlib.contextmanager
def made(folder: Path) -> Iterator[Hosts]:
    """A desk, a head and two workers that run while the block does; their folder stays."""
    hosts = Hosts(folder, ["head", "worker1", "worker2"])
    begun: list[Host] = []
    try:
        for host in (hosts.desk, *hosts.others):
            begun.append(host)
            hosts.boot(host)
        yield hosts
    finally:
        for host in reversed(begun):
            host.crash()
