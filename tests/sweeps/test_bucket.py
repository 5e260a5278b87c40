"""A whole sweep with its screen and its OUT in a bucket: begun on one machine, gone on with on another."""

from pathlib import Path

import pytest
import yaml
from buckets import Server
from commands import predictions, run, start, until
from pyarrow import fs

from moa_ray import report, stores
from moa_ray.screens.synthetic import Painting, paint
from moa_ray.tables import TILE_KEY

pytestmark = [pytest.mark.ray, pytest.mark.slow]

OUT = "ours/runs/tiny"


def test_killed_sweep_is_gone_on_with_on_another_machine_and_repeats_no_trial(
    s3: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    size = {"height": 96, "width": 96}
    paint(tmp_path / "painted", Painting(labels=2, compounds=2, concentrations=1, replicates=2, **size))
    fs.copy_files(str(tmp_path / "painted"), "ours/painted", destination_filesystem=s3.system)
    plain = {
        "study": "tiny",
        "seed": 3,
        "out": f"s3://{OUT}",
        "screen": {"name": "bbbc021", "root": "s3://ours/painted"},
        "recipe": {"backbone": "SmallCNN", "weights": "random", "image_size": 32, "epochs": 1, "batch_size": 8},
    }
    sweep = tmp_path / "tiny.yaml"
    sweep.write_text(yaml.safe_dump(plain))
    monkeypatch.setenv("AWS_ENDPOINT_URL", s3.address)
    process = start(sweep, "resources.concurrent=1")
    until(lambda: bool(trials(s3)), process)
    process.kill()
    process.communicate()
    known = trials(s3)
    assert 1 <= len(known) < 4
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "another"))
    assert f"report: s3://{OUT}/report.html" in run(sweep)
    assert len(trials(s3)) == 4
    assert known.items() <= trials(s3).items()
    assert s3.names(OUT) >= {"sweep.yaml", "report.html", "leaderboard.csv", "mlflow.db", "predictions.parquet"}
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "a third"))
    assert report.main([f"s3://{OUT}"]) == 0
    assert f"report: s3://{OUT}/report.html" in capsys.readouterr().out
    table = predictions(stores.folder(stores.place(f"s3://{OUT}")))
    assert table["fold"].nunique() == 4
    assert not table.duplicated(TILE_KEY).any()


def trials(s3: Server) -> dict[str, int]:
    """The trials in the bucket, and when each was written."""
    names = [name for name in s3.names(OUT) if name.endswith("/result.json")]
    return {name: s3.system.get_file_info([f"{OUT}/{name}"])[0].mtime_ns for name in names}
