"""OUT in a bucket: what is written arrives whole, another machine goes on from it, and no failure loses anything."""

import json
from collections.abc import Iterator
from pathlib import Path

import pandas as pd
import pytest
from buckets import Server
from commands import until_true

from moa_ray import report
from moa_ray.common import uri
from moa_ray.common.errors import InputError
from moa_ray.common.object_store import Store
from moa_ray.common.uri import Uri, place
from moa_ray.config import sweep_file
from moa_ray.config.sweep_file import Sweep
from moa_ray.tracking import bucket_sync
from moa_ray.tracking.bucket_sync import BucketSync
from moa_ray.tracking.ledger import Ledger
from moa_ray.tracking.results import Result

STUDY = {"tiles": "t", "labels": ["A", "B"], "weights": {}}


@pytest.fixture(autouse=True)
def short_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bucket_sync, "_PAUSE", 0.02)


@pytest.fixture
def out(s3: Server) -> Uri:
    parsed = place(s3.uri("ours/runs/test"))
    assert isinstance(parsed, Uri)
    return parsed


def sweep(out: Uri) -> Sweep:
    plain = {
        "study": "test",
        "out": str(out),
        "screen": {"name": "bbbc021", "root": "s3://ours/data"},
        "recipe": {"backbone": "SmallCNN", "weights": "random"},
    }
    return sweep_file.check(plain, "test.yaml")


def result(fold: str = "compound=a", **more: object) -> Result:
    tables = {"history": pd.DataFrame({"epoch": [1]}), "predictions": pd.DataFrame({"prob_A": [0.5]})}
    return Result("c", fold, **{"status": "finished", "recipe": {"epochs": 1}, **tables, **more})  # type: ignore[arg-type]


def begin(out: Uri, sync: BucketSync) -> Ledger:
    ledger = Ledger(out, sync.send)
    ledger.open(sweep(out), STUDY)
    sync.claim()
    return ledger


def run(out: Uri, *results: Result) -> list[str]:
    """A sweep that records some trials; what it warned of."""
    warnings: list[str] = []
    with BucketSync(out, warnings.append) as sync:
        ledger = begin(out, sync)
        for trial in results:
            ledger.write(trial)
    assert sync.complete is not any("files are not at" in warning for warning in warnings)
    return warnings


def on_another_machine(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "another"))


@pytest.fixture
def gone(s3: Server) -> Iterator[Server]:
    """For a test that stops the server: it is back afterwards."""
    yield s3
    if not s3.running:
        s3.start()


def contents(folder: Path) -> dict[str, bytes]:
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file() and not path.name.startswith(".")
    }


def test_folder_is_sent_nowhere(tmp_path: Path) -> None:
    with BucketSync(tmp_path, pytest.fail) as sync:
        (tmp_path / "a").write_text("a")
        sync.claim()
        sync.send(tmp_path / "a")
    assert sync.folder == tmp_path
    assert sync.complete
    assert list(tmp_path.iterdir()) == [tmp_path / "a"]


def test_all_that_is_written_is_in_the_bucket_at_the_end(out: Uri, s3: Server) -> None:
    with BucketSync(out, pytest.fail) as sync:
        begin(out, sync).write(result())
        (sync.folder / "figures").mkdir()
        (sync.folder / "figures" / "a.svg").write_text("<svg>")
        (sync.folder / ".writing").write_text("half")
    wanted = {"history.parquet", "predictions.parquet", "result.json"}
    assert s3.names("ours/runs/test") == {
        "sweep.yaml",
        "figures/a.svg",
        "ledger/study.json",
        *(f"ledger/c/compound=a/{name}" for name in wanted),
    }


def test_trial_arrives_while_the_sweep_goes_on_and_its_result_last(
    out: Uri, s3: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    sent: list[str] = []
    send = Store.send
    monkeypatch.setattr(Store, "send", lambda store, name, folder: (sent.append(name), send(store, name, folder))[1])
    with BucketSync(out, pytest.fail) as sync:
        begin(out, sync).write(result())
        until_true(lambda: "ledger/c/compound=a/result.json" in s3.names("ours/runs/test"))
    trial = [name for name in sent if name.startswith("ledger/c/")]
    assert len(trial) == 3
    assert trial[-1].endswith("result.json")


def test_another_machine_goes_on_from_the_bucket(
    out: Uri, s3: Server, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    run(out, result("compound=a"))
    first, before = uri.folder(out), contents(uri.folder(out))
    on_another_machine(monkeypatch, tmp_path)
    with BucketSync(out, pytest.fail) as sync:
        assert sync.folder != first
        assert contents(sync.folder) == before
        ledger = begin(out, sync)
        assert {trial.key for trial in ledger.results()} == {("c", "compound=a")}
        ledger.write(result("compound=b"))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    with BucketSync(out, pytest.fail):
        assert {trial.fold for trial in Ledger(out).results()} == {"compound=a", "compound=b"}
        assert Ledger(out).load(result("compound=b")).predictions is not None


def test_nothing_is_sent_or_fetched_twice(out: Uri, monkeypatch: pytest.MonkeyPatch) -> None:
    run(out, result())
    monkeypatch.setattr(Store, "send", lambda *given: pytest.fail("sent"))
    monkeypatch.setattr(Store, "fetch", lambda *given: pytest.fail("fetched"))
    with BucketSync(out, pytest.fail):
        pass


def test_trial_that_was_run_again_takes_the_place_of_the_earlier_on_any_machine(
    out: Uri, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    run(out, result(status="crashed", predictions=None))
    on_another_machine(monkeypatch, tmp_path)
    until_true(lambda: Store(out).files()["ledger/c/compound=a/result.json"].time < _now(out))
    run(out, result())
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    with BucketSync(out, pytest.fail):
        (read,) = Ledger(out).results()
    assert read.status == "finished"


def _now(out: Uri) -> int:
    """The store's clock, which counts seconds."""
    Store(out).write(".now", b"")
    return Store(out).files()[".now"].time


# Failures -------------------------------------------------------------------------------------------------------------


def test_bucket_that_is_missing_is_told_before_anything_runs(s3: Server) -> None:
    with (
        pytest.raises(InputError, match=r"^out: s3://none/x\?.*NO_SUCH_BUCKET.*look at the bucket"),
        BucketSync(place(s3.uri("none/x")), pytest.fail),
    ):
        pytest.fail("began")


def test_denied_access_is_told_without_the_key(out: Uri, s3: Server) -> None:
    s3.deny(True)
    try:
        with (
            pytest.raises(InputError, match=r"^out: s3://ours/runs/test.*credentials") as error,
            BucketSync(out, pytest.fail),
        ):
            pytest.fail("began")
    finally:
        s3.deny(False)
    assert "a-secret" not in str(error.value)
    assert "a-key" not in str(error.value)


def test_server_that_is_not_there_is_told_before_anything_runs(out: Uri, gone: Server) -> None:
    gone.stop()
    with pytest.raises(InputError, match=r"^out: s3://ours/runs/test"), BucketSync(out, pytest.fail):
        pytest.fail("began")


def test_server_that_comes_back_gets_what_it_missed(out: Uri, gone: Server) -> None:
    warnings: list[str] = []
    with BucketSync(out, warnings.append) as sync:
        ledger = begin(out, sync)
        until_true(lambda: sync.complete)
        gone.stop()
        ledger.write(result())
        until_true(lambda: bool(warnings))
        gone.start()
    assert "ledger/c/compound=a/result.json" in gone.names("ours/runs/test")
    assert sync.complete
    (warning,) = warnings
    assert "The sweep goes on, and it is tried again" in warning


@pytest.mark.slow
def test_what_was_never_sent_is_sent_at_the_next_start(out: Uri, gone: Server) -> None:
    warnings: list[str] = []
    with BucketSync(out, warnings.append) as sync:
        ledger = begin(out, sync)
        until_true(lambda: sync.complete)
        gone.stop()
        ledger.write(result())
    assert not sync.complete
    assert warnings[-1].startswith(f"3 files are not at {out}, ledger/c/compound=a/")
    assert [trial.status for trial in Ledger(out).results()] == ["finished"]
    gone.start()
    with BucketSync(out, pytest.fail) as again:
        until_true(lambda: again.complete)
        assert "ledger/c/compound=a/result.json" in gone.names("ours/runs/test")


def test_trial_whose_tables_cannot_be_fetched_is_not_there(
    out: Uri, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    run(out, result())
    on_another_machine(monkeypatch, tmp_path)
    fetch = Store.fetch

    def broken(store: Store, name: str, *more: object) -> None:
        if name.endswith("predictions.parquet"):
            raise OSError("broken off")
        fetch(store, name, *more)  # type: ignore[arg-type]

    monkeypatch.setattr(Store, "fetch", broken)
    with pytest.raises(InputError, match="broken off"), BucketSync(out, pytest.fail):
        pytest.fail("began")
    assert list(Ledger(out).results()) == []


def foreign(out: Uri) -> bytes:
    """Begin another sweep there, as another machine would; what it calls itself."""
    study = json.dumps({**STUDY, "id": "another"}).encode()
    Store(out).write("ledger/study.json", study)
    return study


def test_sweep_that_another_has_overtaken_does_not_begin(out: Uri) -> None:
    with BucketSync(out, lambda warning: None) as sync:
        study = foreign(out)
        with pytest.raises(InputError, match="holds another sweep than"):
            begin(out, sync)
    with Store(out).open("ledger/study.json") as file:
        assert file.read() == study


def test_sweep_that_is_overwritten_leaves_the_other_alone_and_keeps_its_own(out: Uri, s3: Server) -> None:
    warnings: list[str] = []
    with BucketSync(out, warnings.append) as sync:
        ledger = begin(out, sync)
        until_true(lambda: sync.complete)
        study = foreign(out)
        ledger.write(result())
    assert not sync.complete
    assert "holds another sweep than" in warnings[0]
    assert s3.names("ours/runs/test") == {"sweep.yaml", "ledger/study.json"}
    with Store(out).open("ledger/study.json") as file:
        assert file.read() == study
    assert len(list(Ledger(out).results())) == 1
    with pytest.raises(InputError, match="move the copy away"), BucketSync(out, pytest.fail):
        pytest.fail("began")


def test_bucket_that_was_emptied_begins_anew_and_the_copy_is_kept(out: Uri, s3: Server) -> None:
    run(out, result())
    s3.system.delete_dir_contents("ours")
    warnings: list[str] = []
    with BucketSync(out, warnings.append) as sync:
        assert list(Ledger(out).results()) == []
    (warning,) = warnings
    (kept,) = sync.folder.parent.glob(f"{sync.folder.name}-*")
    assert str(kept) in warning
    assert (kept / "ledger" / "c" / "compound=a" / "result.json").exists()


# The report -----------------------------------------------------------------------------------------------------------


def test_report_of_what_is_in_no_bucket_is_one_sentence(out: Uri, capsys: pytest.CaptureFixture[str]) -> None:
    assert report.main([str(out)]) == 2
    assert capsys.readouterr().err == f"{out}: no sweep was run here: ledger/study.json is missing\n"


def test_report_of_predictions_goes_to_a_folder(out: Uri, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    assert report.main([str(out), "--predictions", str(tmp_path / "none.csv")]) == 2
    assert "a report of --predictions goes to a folder" in capsys.readouterr().err
