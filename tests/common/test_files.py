"""Files are written whole or not at all, named by any text, and locked against other processes and threads."""

import os
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path

import pytest
from commands import until
from filelock import Timeout

from moa_ray.common import files


def killed(*_: object) -> None:
    raise KeyboardInterrupt


@pytest.mark.parametrize(
    "write",
    [
        lambda path: files.write_text(path, "after"),
        lambda path: files.write_bytes(path, b"after"),
        lambda path: files.write_json(path, {"after": 1}),
    ],
    ids=["text", "bytes", "json"],
)
@pytest.mark.parametrize("step", ["fsync", "replace"])
def test_file_whose_writing_is_interrupted_is_as_before(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, write: Callable[[Path], None], step: str
) -> None:
    path = tmp_path / "file"
    files.write_text(path, "before")
    with monkeypatch.context() as patch:
        patch.setattr(*((os, "fsync") if step == "fsync" else (Path, "replace")), killed)
        with pytest.raises(KeyboardInterrupt):
            write(path)
    assert [(entry.name, entry.read_text()) for entry in tmp_path.iterdir()] == [("file", "before")]


def test_content_is_on_the_disk_before_its_name_and_the_name_before_the_call_ends(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    steps: list[str] = []
    fsync, replace = os.fsync, Path.replace
    monkeypatch.setattr(os, "fsync", lambda descriptor: (steps.append(_kind(descriptor)), fsync(descriptor)))
    monkeypatch.setattr(Path, "replace", lambda path, target: (steps.append("rename"), replace(path, target)))
    files.write_text(tmp_path / "größe.txt", "größe")
    assert steps == ["file", "rename", "folder"]
    assert (tmp_path / "größe.txt").read_bytes() == "größe".encode()


def _kind(descriptor: int) -> str:
    return "folder" if Path(f"/proc/self/fd/{descriptor}").is_dir() else "file"


@pytest.mark.parametrize("name", ["compound=a/b", "..", ".", "µ", "x" * 300, "x" * 299 + "y"])
def test_any_text_names_a_file_of_its_own_in_the_folder(tmp_path: Path, name: str) -> None:
    file = tmp_path / files.file_name(name)
    file.write_text("")
    assert list(tmp_path.iterdir()) == [file]
    assert files.file_name(name) != files.file_name("x" * 298)


def test_lock_keeps_threads_apart(tmp_path: Path) -> None:
    inside, most = [0], [0]

    def work() -> None:
        for _ in range(20):
            with files.file_lock(tmp_path / "lock"):
                inside[0] += 1
                most[0] = max(most[0], inside[0])
                inside[0] -= 1

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert most == [1]


def test_lock_of_a_killed_process_is_free(tmp_path: Path) -> None:
    code = (
        "import sys, time; from pathlib import Path; from moa_ray.common.files import file_lock\n"
        "with file_lock(Path(sys.argv[1])): Path(sys.argv[2]).touch(); time.sleep(9999)"
    )
    held = tmp_path / "held"
    command = [sys.executable, "-c", code, str(tmp_path / "lock"), str(held)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    lock = files.file_lock(tmp_path / "lock")
    try:
        until(held.exists, process)
        with pytest.raises(Timeout):
            lock.acquire(blocking=False)
    finally:
        process.kill()
        process.communicate()
    with lock:
        assert lock.is_locked
