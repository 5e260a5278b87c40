"""Processes: one of our own, which talks over a socket and ends with its parent, and waiting for others."""

import contextlib
import ctypes
import fcntl
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator, Mapping
from multiprocessing.connection import Connection
from pathlib import Path
from typing import IO

_KILL_ME_WITH_MY_PARENT = 1  # PR_SET_PDEATHSIG


def begin(
    module: str, environment: Mapping[str, str], stderr: IO[bytes] | None = None
) -> tuple[subprocess.Popen[bytes], Connection]:
    """Run ``python -m MODULE``, which finds what this process can import; returns it and the connection to it.

    environment : variables that differ from this process's
    stderr : a file for what it says there; by default this process's own
    """
    mine, its = socket.socketpair()
    path = os.pathsep.join(entry or str(Path.cwd()) for entry in sys.path)
    begun = subprocess.Popen(
        [sys.executable, "-m", module, str(its.fileno()), str(os.getpid())],
        env={**os.environ, "PYTHONPATH": path, **environment},
        pass_fds=[its.fileno()],
        stderr=stderr,
        process_group=0,  # Ctrl-C is the parent's to act on
    )
    its.close()
    return begun, Connection(mine.detach())


def connection_to_parent() -> Connection | None:
    """What a module run by `begin` asks first: None where the parent has ended already."""
    descriptor, parent = map(int, sys.argv[1:])
    ctypes.CDLL(None).prctl(_KILL_ME_WITH_MY_PARENT, signal.SIGKILL)
    return Connection(descriptor) if os.getppid() == parent else None


@contextlib.contextmanager
def alone(lock: Path) -> Iterator[None]:
    """Wait until no other process or thread holds a lock file; the system lets go that of a killed process."""
    with lock.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield
