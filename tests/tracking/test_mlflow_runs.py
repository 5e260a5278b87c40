"""MLflow's runs are a view of the ledger: each once, none left running, and caught up after an outage."""

import dataclasses
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd
import psutil
import pytest
from lazy import Lazy

from moa_ray.config import sweep_file
from moa_ray.config.recipe import Recipe
from moa_ray.tracking.ledger import Ledger
from moa_ray.tracking.results import Result, TrialKind
from moa_ray.tracking.tracker import Setting, Tracker, tracking_uri, ui_command

if TYPE_CHECKING:
    from mlflow.entities import Run

    from moa_ray.tracking.mlflow_runs import Runs

mlflow, mlflow_runs = Lazy("mlflow"), Lazy("moa_ray.tracking.mlflow_runs")


@pytest.fixture(scope="module")
def empty_store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """MLflow's tables without a row, which take it seconds to make."""
    path: Path = tmp_path_factory.mktemp("store") / "mlflow.db"
    mlflow.MlflowClient(f"sqlite:///{path}").search_experiments()
    return path


@pytest.fixture
def ledger(tmp_path: Path, empty_store: Path) -> Ledger:
    """A ledger with two finished trials of one candidate, one of a compound with a quote in its name."""
    plain = {"study": "tracked", "out": str(tmp_path / "out"), "screen": {"name": "bbbc021", "root": str(tmp_path)}}
    ledger = Ledger(tmp_path / "out")
    ledger.open(sweep_file.check({**plain, "recipe": {"weights": "random"}}, "test.yaml"), {"tiles": "t"})
    shutil.copy(empty_store, ledger.out)
    for fold in ("compound=a", "compound=3'-O'Neil \"x\""):
        ledger.write(result(fold))
    return ledger


def result(fold: str, **more: object) -> Result:
    history = pd.DataFrame(
        {"epoch": [1, 2], "loss": [1.0, 0.5], "validation_loss": [None, None], "seconds": [2.0, 2.0]}
    )
    predictions = pd.DataFrame({"prob_a": [1.0]})  # without them a finished trial counts as lost
    values = {
        "status": "finished",
        "predictions": predictions,
        "recipe": {"epochs": 2, "augment": {"blur": 0.5}},
        "seconds": 4.0,
        "epochs": 2,
    }
    return Result("Net-1", fold, **{"history": history, **values, **more})  # type: ignore[arg-type]


def begun_tracker(ledger: Ledger, warnings: list[str] | None = None, uri: str | None = None) -> Tracker:
    tracker = Tracker(ledger, "tracked", uri, "the sweep", (warnings if warnings is not None else []).append)
    tracker.begin({"seed": 7})
    return tracker


def begun_runs(ledger: Ledger) -> "Runs":
    """The runs as the process keeps them, in this one; nothing may go wrong."""
    setting = Setting(ledger.out, tracking_uri(ledger.out, None), "tracked", "the sweep")
    runs: Runs = mlflow_runs.Runs(setting, pytest.fail)
    runs.do("begin", {"seed": 7})
    return runs


def runs_by_key(ledger: Ledger, uri: str | None = None) -> dict[tuple[str, ...], "Run"]:
    """All runs by (candidate, fold); fails where two share a key."""
    client = mlflow.MlflowClient(tracking_uri(ledger.out, uri))
    experiment = client.get_experiment_by_name("tracked")
    assert experiment is not None
    listed = client.search_runs([experiment.experiment_id])
    tags = ("moa_ray.candidate", "moa_ray.fold")
    by_key = {tuple(run.data.tags[tag] for tag in tags if tag in run.data.tags): run for run in listed}
    assert len(by_key) == len(listed)
    return by_key


def test_sweep_recipe_and_fold_are_parent_child_and_grandchild_and_no_process_is_left_behind(ledger: Ledger) -> None:
    tracker = begun_tracker(ledger)
    assert len(senders()) == 1
    tracker.candidate("Net-1", {"k": 3.0}, [])
    assert tracker.finish({"k": 3.0}, [])
    assert not senders()
    tracker.interrupt()  # as where a sweep fails after all is sent
    assert tracker.lacking(["Net-1"]) == []
    runs = runs_by_key(ledger)
    assert {len(key) for key in runs} == {0, 1, 2}
    assert len(runs) == 4
    for key, run in runs.items():
        parent = run.data.tags.get("mlflow.parentRunId")
        assert parent == (runs[key[:-1]].info.run_id if key else None)
        assert run.info.status == "FINISHED"
    assert runs[()].data.params == {"seed": "7"}
    assert runs[("Net-1",)].data.params == {"epochs": "2", "augment.blur": "0.5"}
    assert runs[("Net-1",)].data.metrics == {"k": 3.0}


def test_members_have_runs_with_their_folds_and_their_ensemble_one_without(ledger: Ledger) -> None:
    members = [Recipe(weights="random", seed=seed) for seed in (1, 2)]
    for member in members:
        ledger.write(
            dataclasses.replace(
                result("compound=a", recipe=member.as_dict(), kind=TrialKind.of(member)), candidate=member.candidate
            )
        )
    sender_runs, name = begun_runs(ledger), members[0].ensemble.candidate
    assert set(sender_runs.do("lacking", [name, members[1].candidate])) == {name, members[1].candidate}
    sender_runs.do("summary", (name,), {"k": 3.0}, [], "FINISHED")
    sender_runs.do("finish", {}, [], "FINISHED")
    runs = runs_by_key(ledger)
    assert [key for key in runs if key[:1] == (name,)] == [(name,)]
    assert runs[(name,)].data.metrics == {"k": 3.0}
    assert "seed" not in runs[(name,)].data.params
    for member in members:
        run = runs[(member.candidate,)]
        assert (run.info.run_name, run.data.params["seed"]) == (f"{name}, seed {member.seed}", str(member.seed))
        assert (member.candidate, "compound=a") in runs
    again = begun_runs(ledger)
    assert again.do("lacking", [name]) == []
    late = dataclasses.replace(members[0], seed=3)
    again.do(
        "trial",
        dataclasses.replace(
            result("compound=a", recipe=late.as_dict(), kind=TrialKind.of(late)), candidate=late.candidate
        ),
    )
    assert again.do("lacking", [name]) == [name]


def test_epochs_become_steps(ledger: Ledger) -> None:
    begun_runs(ledger).do("finish", {}, [], "FINISHED")
    run = runs_by_key(ledger)["Net-1", "compound=a"]
    history = mlflow.MlflowClient(tracking_uri(ledger.out, None)).get_metric_history(run.info.run_id, "loss")
    assert [(metric.step, metric.value) for metric in history] == [(1, 1.0), (2, 0.5)]
    assert run.data.metrics == {"loss": 0.5, "seconds": 2.0, "total_seconds": 4.0, "epochs_trained": 2.0}


def test_restart_makes_no_run_twice_and_sends_what_was_missing(ledger: Ledger) -> None:
    begun_runs(ledger).do("interrupt")
    assert {run.info.status for key, run in runs_by_key(ledger).items() if len(key) < 2} == {"KILLED"}
    before = {key: run.info.run_id for key, run in runs_by_key(ledger).items()}
    ledger.write(result("compound=c"))
    again = begun_runs(ledger)
    again.do("summary", ("Net-1",), {}, [], "FINISHED")
    again.do("finish", {}, [], "FINISHED")
    after = runs_by_key(ledger)
    assert before.items() <= {key: run.info.run_id for key, run in after.items()}.items()
    assert after.keys() - before.keys() == {("Net-1", "compound=c")}
    assert {run.info.status for run in after.values()} == {"FINISHED"}


def test_failed_trial_says_why_and_its_later_success_replaces_it(ledger: Ledger) -> None:
    ledger.write(result("compound=c", status="crashed", error="x" * 9000, history=None))
    begun_runs(ledger).do("interrupt")
    run = runs_by_key(ledger)["Net-1", "compound=c"]
    assert run.info.status == "FAILED"
    assert run.data.tags["moa_ray.status"] == "crashed"
    ledger.write(result("compound=c"))
    begun_runs(ledger).do("finish", {}, [], "FINISHED")
    assert runs_by_key(ledger)["Net-1", "compound=c"].info.status == "FINISHED"


def test_artifacts_lie_in_out(ledger: Ledger, tmp_path: Path) -> None:
    sender_runs = begun_runs(ledger)
    (tmp_path / "report.html").write_text("the report")
    sender_runs.do("finish", {}, [tmp_path / "report.html"], "FINISHED")
    (artifact,) = (ledger.out / "mlartifacts").rglob("report.html")
    assert artifact.read_text() == "the report"


@pytest.mark.slow
def test_absent_server_warns_once_and_is_caught_up_later(
    ledger: Ledger, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    warnings: list[str] = []
    down = begun_tracker(ledger, warnings, "http://127.0.0.1:9")
    down.trial(result("compound=a"))
    down.candidate("Net-1", {}, [])
    assert not down.finish({}, [])
    assert len(warnings) == 1
    assert "http://127.0.0.1:9 cannot be reached" in warnings[0]
    store = f"sqlite:///{tmp_path / 'later.db'}"
    later = begun_tracker(ledger, warnings, store)
    assert later.finish({}, [])
    assert len(runs_by_key(ledger, store)) == 4
    assert len(warnings) == 1


def senders() -> list[psutil.Process]:
    """The processes of ours that keep runs."""
    return [child for child in psutil.Process().children() if "moa_ray.tracking.mlflow_runs" in child.cmdline()]


def test_long_training_and_large_recipe_arrive_whole(ledger: Ledger) -> None:
    epochs, recipe = 700, {f"name {number}": number for number in range(250)}
    history = pd.DataFrame({"epoch": range(1, epochs + 1), "loss": 1.0, "accuracy": 0.5})
    ledger.write(result("compound=c", history=history, recipe=recipe))
    begun_runs(ledger).do("finish", {}, [], "FINISHED")
    run = runs_by_key(ledger)["Net-1", "compound=c"]
    client = mlflow.MlflowClient(tracking_uri(ledger.out, None))
    assert {name: len(client.get_metric_history(run.info.run_id, name)) for name in ("loss", "accuracy")} == {
        "loss": epochs,
        "accuracy": epochs,
    }
    assert run.data.params == {"fold": "compound=c", **{name: str(value) for name, value in recipe.items()}}


def test_run_that_was_not_sent_whole_is_completed(ledger: Ledger) -> None:
    begun_runs(ledger).do("finish", {}, [], "FINISHED")
    client = mlflow.MlflowClient(tracking_uri(ledger.out, None))
    whole = runs_by_key(ledger)["Net-1", "compound=a"]
    client.delete_run(whole.info.run_id)
    tags = {name: value for name, value in whole.data.tags.items() if name.startswith(("moa_ray", "mlflow.parent"))}
    client.create_run(whole.info.experiment_id, tags=tags)  # all that a killed sender got to
    begun_runs(ledger).do("finish", {}, [], "FINISHED")
    again = runs_by_key(ledger)["Net-1", "compound=a"]
    assert again.info.status == "FINISHED"
    assert again.data.params == whole.data.params
    assert again.data.metrics == whole.data.metrics


def test_candidates_are_lacking_until_their_runs_end(ledger: Ledger) -> None:
    sender_runs = begun_runs(ledger)
    assert sender_runs.do("lacking", ["Net-1", "Net-2"]) == ["Net-1"]
    sender_runs.do("summary", ("Net-1",), {}, [], "FINISHED")
    assert sender_runs.do("lacking", ["Net-1"]) == []
    sender_runs.do("trial", result("compound=c"))
    assert sender_runs.do("lacking", ["Net-1"]) == ["Net-1"]


@pytest.mark.slow
def test_an_answer_that_comes_at_once_is_not_missed(ledger: Ledger, monkeypatch: pytest.MonkeyPatch) -> None:
    tracker = begun_tracker(ledger)
    send, hear = tracker._send, tracker._hear

    def send_and_wait(value: Any) -> None:
        """The answer is there before anything else is done."""
        send(value)
        assert tracker._connection.poll(60)

    def hear_in_time() -> tuple[str, Any]:
        assert tracker._connection.poll(60), "waits for what was heard before"
        return hear()

    monkeypatch.setattr(tracker, "_send", send_and_wait)
    monkeypatch.setattr(tracker, "_hear", hear_in_time)
    assert tracker.lacking(["Net-1"]) == ["Net-1"]
    assert tracker.finish({}, [])


def test_lost_sender_is_said_once_and_holds_nothing_up(ledger: Ledger) -> None:
    warnings: list[str] = []
    tracker = begun_tracker(ledger, warnings)
    (sender,) = senders()
    sender.kill()
    tracker.trial(result("compound=c"))
    assert tracker.lacking(["Net-1"]) == []
    assert not tracker.finish({}, [])
    assert len(warnings) == 1
    assert "ended with status -9" in warnings[0]


def test_command_that_shows_the_runs_names_the_store(tmp_path: Path) -> None:
    assert ui_command(tmp_path, None) == f"mlflow ui --backend-store-uri sqlite:///{tmp_path.resolve()}/mlflow.db"
    assert ui_command(tmp_path, "sqlite:////runs.db") == "mlflow ui --backend-store-uri sqlite:////runs.db"
    assert ui_command(tmp_path, "http://127.0.0.1:5000") == "http://127.0.0.1:5000"
