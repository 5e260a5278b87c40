"""Child processes of our own, which talk with their parent over a socket and end with it."""

import ctypes
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Mapping
from multiprocessing.connection import Connection
from pathlib import Path
from typing import IO

_KILL_ME_WITH_MY_PARENT = 1  # PR_SET_PDEATHSIG


def begin(
    module: str, environment: Mapping[str, str], stderr: IO[bytes] | None = None
) -> tuple[subprocess.Popen[bytes], Connection]:
    """Run ``python -m MODULE`` in a child process that finds what this process can import.

    Parameters
    ----------
    module : str
        Its dotted name; the first thing that it does is to call `connection_to_parent`.
    environment : mapping
        Variables that differ from this process's.
    stderr : binary file, optional
        Takes what the child says there; by default this process's own.

    Returns
    -------
    process : Popen
        The child, in a process group of its own: Ctrl-C is the parent's to act on.
    connection : Connection
        To the child.
    """
    parent_end, child_end = socket.socketpair()
    path = os.pathsep.join(entry or str(Path.cwd()) for entry in sys.path)
    process = subprocess.Popen(
        [sys.executable, "-m", module, str(child_end.fileno()), str(os.getpid())],
        env={**os.environ, "PYTHONPATH": path, **environment},
        pass_fds=[child_end.fileno()],
        stderr=stderr,
        process_group=0,
    )
    child_end.close()
    return process, Connection(parent_end.detach())


def connection_to_parent() -> Connection | None:
    """Return, in a child process that `begin` started, the connection to its parent.

    Returns
    -------
    Connection or None
        None where the parent has ended already. From now on the system kills the child when the parent ends.
    """
    descriptor, parent = map(int, sys.argv[1:])
    ctypes.CDLL(None).prctl(_KILL_ME_WITH_MY_PARENT, signal.SIGKILL)
    return Connection(descriptor) if os.getppid() == parent else None
