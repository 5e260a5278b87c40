"""A whole sweep with its screen and its OUT in a bucket: begun on one machine, gone on with on another."""

from pathlib import Path

import factories
import pytest
import yaml
from buckets import Server
from commands import QUICK, predictions, run_here, start, until
from pyarrow import fs

from moa_ray import report
from moa_ray.common import uri
from moa_ray.common.schema import TILE_KEY
from moa_ray.config.painting import Painting
from moa_ray.screens.painted_bbbc021 import paint

OUT = "ours/runs/tiny"

pytestmark = pytest.mark.usefixtures("quick_trials")


def test_killed_sweep_is_gone_on_with_on_another_machine_and_repeats_no_trial(
    s3: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    paint(tmp_path / "painted", Painting(**factories.painting()))
    fs.copy_files(str(tmp_path / "painted"), "ours/painted", destination_filesystem=s3.system)
    plain = {
        "study": "tiny",
        "seed": 3,
        "out": f"s3://{OUT}",
        "screen": {"name": "bbbc021", "root": "s3://ours/painted"},
        "recipe": factories.recipe(epochs=1),
    }
    sweep = tmp_path / "tiny.yaml"
    sweep.write_text(yaml.safe_dump(plain))
    monkeypatch.setenv("AWS_ENDPOINT_URL", s3.address)
    process = start(sweep, "resources.concurrent=1", program=QUICK)
    until(lambda: bool(trials(s3)), process)
    process.kill()
    process.communicate()
    known = trials(s3)
    assert 1 <= len(known) < 4
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "another"))
    assert f"report: s3://{OUT}/report.html" in run_here(sweep)
    assert len(trials(s3)) == 4
    assert known.items() <= trials(s3).items()
    assert s3.names(OUT) >= {"sweep.yaml", "report.html", "leaderboard.csv", "mlflow.db", "predictions.parquet"}
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "a third"))
    assert report.main([f"s3://{OUT}"]) == 0
    assert f"report: s3://{OUT}/report.html" in capsys.readouterr().out
    table = predictions(uri.folder(uri.place(f"s3://{OUT}")))
    assert table["fold"].nunique() == 4
    assert not table.duplicated(TILE_KEY).any()


def trials(s3: Server) -> dict[str, int]:
    """The trials in the bucket, and when each was written."""
    names = [name for name in s3.names(OUT) if name.endswith("/result.json")]
    return {name: s3.system.get_file_info([f"{OUT}/{name}"])[0].mtime_ns for name in names}
