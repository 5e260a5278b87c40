"""MLflow's runs are a view of the ledger: each once, none left running, and caught up after an outage."""

import dataclasses
from pathlib import Path
from typing import Any

import pandas as pd
import psutil
import pytest
from mlflow import MlflowClient
from mlflow.entities import Run

from moa_ray import spec, tracking
from moa_ray.ledger import Ledger, Result
from moa_ray.recipe import Recipe
from moa_ray.runs import Runs
from moa_ray.tracking import Setting, Tracker


@pytest.fixture
def book(tmp_path: Path) -> Ledger:
    """A ledger with two finished trials of one candidate, one of a compound with a quote in its name."""
    plain = {"study": "tracked", "out": str(tmp_path / "out"), "screen": {"name": "bbbc021", "root": str(tmp_path)}}
    book = Ledger(tmp_path / "out")
    book.open(spec.check({**plain, "recipe": {"weights": "random"}}, "test.yaml"), {"tiles": "t"})
    for fold in ("compound=a", "compound=3'-O'Neil \"x\""):
        book.write(result(fold))
    return book


def result(fold: str, **more: object) -> Result:
    history = pd.DataFrame(
        {"epoch": [1, 2], "loss": [1.0, 0.5], "validation_loss": [None, None], "seconds": [2.0, 2.0]}
    )
    values = {"status": "finished", "recipe": {"epochs": 2, "augment": {"blur": 0.5}}, "seconds": 4.0, "epochs": 2}
    return Result("Net-1", fold, **{"history": history, **values, **more})  # type: ignore[arg-type]


def tracker(book: Ledger, warnings: list[str] | None = None, uri: str | None = None) -> Tracker:
    made = Tracker(book, "tracked", uri, "the sweep", (warnings if warnings is not None else []).append)
    made.begin({"seed": 7})
    return made


def kept(book: Ledger) -> Runs:
    """The runs as the process keeps them, in this one; nothing may go wrong."""
    made = Runs(Setting(book.out, tracking.uri(book.out, None), "tracked", "the sweep"), pytest.fail)
    made.do("begin", {"seed": 7})
    return made


def runs(book: Ledger, uri: str | None = None) -> dict[tuple[str, ...], Run]:
    """All runs by (candidate, fold); fails where two share a key."""
    client = MlflowClient(tracking.uri(book.out, uri))
    experiment = client.get_experiment_by_name("tracked")
    assert experiment is not None
    found = client.search_runs([experiment.experiment_id])
    tags = ("moa_ray.candidate", "moa_ray.fold")
    by_key = {tuple(run.data.tags[tag] for tag in tags if tag in run.data.tags): run for run in found}
    assert len(by_key) == len(found)
    return by_key


def test_sweep_recipe_and_fold_are_parent_child_and_grandchild(book: Ledger) -> None:
    made = tracker(book)
    made.candidate("Net-1", {"k": 3.0}, [])
    assert made.finish({"k": 3.0}, [])
    found = runs(book)
    assert {len(key) for key in found} == {0, 1, 2}
    assert len(found) == 4
    for key, run in found.items():
        parent = run.data.tags.get("mlflow.parentRunId")
        assert parent == (found[key[:-1]].info.run_id if key else None)
        assert run.info.status == "FINISHED"
    assert found[()].data.params == {"seed": "7"}
    assert found[("Net-1",)].data.params == {"epochs": "2", "augment.blur": "0.5"}
    assert found[("Net-1",)].data.metrics == {"k": 3.0}


def test_members_have_runs_with_their_folds_and_their_ensemble_one_without(book: Ledger) -> None:
    members = [Recipe(weights="random", seed=seed) for seed in (1, 2)]
    for member in members:
        book.write(dataclasses.replace(result("compound=a", recipe=member.as_dict()), candidate=member.candidate))
    made, name = kept(book), members[0].ensemble.candidate
    assert set(made.do("lacking", [name, members[1].candidate])) == {name, members[1].candidate}
    made.do("summary", (name,), {"k": 3.0}, [], "FINISHED")
    made.do("finish", {}, [], "FINISHED")
    found = runs(book)
    assert [key for key in found if key[:1] == (name,)] == [(name,)]
    assert found[(name,)].data.metrics == {"k": 3.0}
    assert "seed" not in found[(name,)].data.params
    for member in members:
        run = found[(member.candidate,)]
        assert (run.info.run_name, run.data.params["seed"]) == (f"{name}, seed {member.seed}", str(member.seed))
        assert (member.candidate, "compound=a") in found
    again = kept(book)
    assert again.do("lacking", [name]) == []
    late = dataclasses.replace(members[0], seed=3)
    again.do("trial", dataclasses.replace(result("compound=a", recipe=late.as_dict()), candidate=late.candidate))
    assert again.do("lacking", [name]) == [name]


def test_epochs_become_steps(book: Ledger) -> None:
    kept(book).do("finish", {}, [], "FINISHED")
    run = runs(book)["Net-1", "compound=a"]
    history = MlflowClient(tracking.uri(book.out, None)).get_metric_history(run.info.run_id, "loss")
    assert [(metric.step, metric.value) for metric in history] == [(1, 1.0), (2, 0.5)]
    assert run.data.metrics == {"loss": 0.5, "seconds": 2.0, "total_seconds": 4.0, "epochs_trained": 2.0}


def test_restart_makes_no_run_twice_and_sends_what_was_missing(book: Ledger) -> None:
    kept(book).do("interrupt")
    assert {run.info.status for key, run in runs(book).items() if len(key) < 2} == {"KILLED"}
    before = {key: run.info.run_id for key, run in runs(book).items()}
    book.write(result("compound=c"))
    again = kept(book)
    again.do("summary", ("Net-1",), {}, [], "FINISHED")
    again.do("finish", {}, [], "FINISHED")
    after = runs(book)
    assert before.items() <= {key: run.info.run_id for key, run in after.items()}.items()
    assert after.keys() - before.keys() == {("Net-1", "compound=c")}
    assert {run.info.status for run in after.values()} == {"FINISHED"}


def test_failed_trial_says_why_and_its_later_success_replaces_it(book: Ledger) -> None:
    book.write(result("compound=c", status="crashed", error="x" * 9000, history=None))
    kept(book).do("interrupt")
    run = runs(book)["Net-1", "compound=c"]
    assert run.info.status == "FAILED"
    assert run.data.tags["moa_ray.status"] == "crashed"
    book.write(result("compound=c"))
    kept(book).do("finish", {}, [], "FINISHED")
    assert runs(book)["Net-1", "compound=c"].info.status == "FINISHED"


def test_artifacts_lie_in_out(book: Ledger, tmp_path: Path) -> None:
    made = kept(book)
    (tmp_path / "report.html").write_text("the report")
    made.do("finish", {}, [tmp_path / "report.html"], "FINISHED")
    (artifact,) = (book.out / "mlartifacts").rglob("report.html")
    assert artifact.read_text() == "the report"


def test_absent_server_warns_once_and_is_caught_up_later(
    book: Ledger, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    warnings: list[str] = []
    down = tracker(book, warnings, "http://127.0.0.1:9")
    down.trial(result("compound=a"))
    down.candidate("Net-1", {}, [])
    assert not down.finish({}, [])
    assert len(warnings) == 1
    assert "http://127.0.0.1:9 cannot be reached" in warnings[0]
    store = f"sqlite:///{tmp_path / 'later.db'}"
    later = tracker(book, warnings, store)
    assert later.finish({}, [])
    assert len(runs(book, store)) == 4
    assert len(warnings) == 1


def senders() -> list[psutil.Process]:
    """The processes of ours that keep runs."""
    return [child for child in psutil.Process().children() if "moa_ray.runs" in child.cmdline()]


def test_no_process_is_left_behind(book: Ledger) -> None:
    made = tracker(book)
    assert len(senders()) == 1
    made.finish({}, [])
    assert not senders()
    made.interrupt()  # as where a sweep fails after all is sent


def test_long_training_and_large_recipe_arrive_whole(book: Ledger) -> None:
    epochs, recipe = 700, {f"name {number}": number for number in range(250)}
    history = pd.DataFrame({"epoch": range(1, epochs + 1), "loss": 1.0, "accuracy": 0.5})
    book.write(result("compound=c", history=history, recipe=recipe))
    kept(book).do("finish", {}, [], "FINISHED")
    run = runs(book)["Net-1", "compound=c"]
    client = MlflowClient(tracking.uri(book.out, None))
    assert {name: len(client.get_metric_history(run.info.run_id, name)) for name in ("loss", "accuracy")} == {
        "loss": epochs,
        "accuracy": epochs,
    }
    assert run.data.params == {"fold": "compound=c", **{name: str(value) for name, value in recipe.items()}}


def test_run_that_was_not_sent_whole_is_completed(book: Ledger) -> None:
    kept(book).do("finish", {}, [], "FINISHED")
    client = MlflowClient(tracking.uri(book.out, None))
    whole = runs(book)["Net-1", "compound=a"]
    client.delete_run(whole.info.run_id)
    tags = {name: value for name, value in whole.data.tags.items() if name.startswith(("moa_ray", "mlflow.parent"))}
    client.create_run(whole.info.experiment_id, tags=tags)  # all that a killed sender got to
    kept(book).do("finish", {}, [], "FINISHED")
    again = runs(book)["Net-1", "compound=a"]
    assert again.info.status == "FINISHED"
    assert again.data.params == whole.data.params
    assert again.data.metrics == whole.data.metrics


def test_candidates_are_lacking_until_their_runs_end(book: Ledger) -> None:
    made = tracker(book)
    assert made.lacking(["Net-1", "Net-2"]) == ["Net-1"]
    made.candidate("Net-1", {}, [])
    assert made.lacking(["Net-1"]) == []
    made.trial(result("compound=c"))
    assert made.lacking(["Net-1"]) == ["Net-1"]
    made.interrupt()
    assert made.lacking(["Net-1"]) == []


def test_an_answer_that_comes_at_once_is_not_missed(book: Ledger, monkeypatch: pytest.MonkeyPatch) -> None:
    made = tracker(book)
    send, hear = made._send, made._hear

    def send_and_wait(value: Any) -> None:
        """The answer is there before anything else is done."""
        send(value)
        assert made._connection.poll(60)

    def hear_in_time() -> tuple[str, Any]:
        assert made._connection.poll(60), "waits for what was heard before"
        return hear()

    monkeypatch.setattr(made, "_send", send_and_wait)
    monkeypatch.setattr(made, "_hear", hear_in_time)
    assert made.lacking(["Net-1"]) == ["Net-1"]
    assert made.finish({}, [])


def test_lost_sender_is_said_once_and_holds_nothing_up(book: Ledger) -> None:
    warnings: list[str] = []
    made = tracker(book, warnings)
    (sender,) = senders()
    sender.kill()
    made.trial(result("compound=c"))
    assert made.lacking(["Net-1"]) == []
    assert not made.finish({}, [])
    assert len(warnings) == 1
    assert "ended with status -9" in warnings[0]


def test_command_that_shows_the_runs_names_the_store(tmp_path: Path) -> None:
    assert (
        tracking.ui_command(tmp_path, None) == f"mlflow ui --backend-store-uri sqlite:///{tmp_path.resolve()}/mlflow.db"
    )
    assert tracking.ui_command(tmp_path, "sqlite:////runs.db") == "mlflow ui --backend-store-uri sqlite:////runs.db"
    assert tracking.ui_command(tmp_path, "http://127.0.0.1:5000") == "http://127.0.0.1:5000"
