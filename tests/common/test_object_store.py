"""The files below a URI: what is sent and fetched, and what a store that fails says."""

import types
from pathlib import Path

import pytest
from buckets import Server
from pyarrow import fs

from moa_ray.common import object_store
from moa_ray.common.errors import InputError
from moa_ray.common.object_store import FileVersion, Store
from moa_ray.common.uri import Uri, place


def uri(text: str) -> Uri:
    parsed = place(text)
    assert isinstance(parsed, Uri)
    return parsed


def test_file_that_is_sent_and_fetched_is_the_same_here_and_there(s3: Server, tmp_path: Path) -> None:
    store = Store(uri(s3.uri("ours/a b")))
    sent = tmp_path / "here" / "sub" / "größe %20.html"
    sent.parent.mkdir(parents=True)
    sent.write_bytes(b"content")
    version = store.send("sub/größe %20.html", tmp_path / "here")
    assert store.files() == {"sub/größe %20.html": version}
    assert FileVersion.of(sent) == version
    store.fetch_all(store.files(), tmp_path / "other")
    fetched = tmp_path / "other" / "sub" / "größe %20.html"
    assert fetched.read_bytes() == b"content"
    assert FileVersion.of(fetched) == version


def test_browser_shows_a_report_that_was_sent(s3: Server, tmp_path: Path) -> None:
    (tmp_path / "report.html").write_text("<p>")
    Store(uri(s3.uri("ours/x"))).send("report.html", tmp_path)
    assert s3.system.open_input_stream("ours/x/report.html").metadata()["Content-Type"] == b"text/html"


def test_store_is_found_by_query_and_by_the_variable_of_aws_tools(s3: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    by_query = Store(uri(s3.uri("ours/x")))
    by_query.write("a", b"1")
    monkeypatch.setenv("AWS_ENDPOINT_URL", s3.address)
    assert Store(uri("s3://ours/x")).files() == by_query.files() != {}


def test_file_that_comes_short_is_not_there_at_all(s3: Server, tmp_path: Path) -> None:
    store = Store(uri(s3.uri("ours/x")))
    store.write("a", b"12345")
    with pytest.raises(OSError, match="a changed while it was fetched"):
        store.fetch("a", FileVersion(6, 0), tmp_path)
    assert list(tmp_path.glob("*a*")) == []
    assert not any(path.name.endswith(".part") for path in tmp_path.iterdir())


@pytest.mark.parametrize("name", ["../a", "b/../../a", "/etc/a"])
def test_name_that_leads_out_of_the_folder_is_refused(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    listed = fs.FileInfo(f"bucket/x/{name}", fs.FileType.File, size=1, mtime_ns=0)
    monkeypatch.setattr(
        object_store, "_system", lambda uri: types.SimpleNamespace(get_file_info=lambda below: [listed])
    )
    with pytest.raises(InputError, match="leads out of it"):
        Store(uri("s3://bucket/x")).files()


def test_next_free_out_is_found_in_the_store(s3: Server) -> None:
    from moa_ray.tracking.ledger import fresh

    for name in ("ours/runs/a/x", "ours/runs/a-2/x"):
        s3.system.open_output_stream(name).close()
    out = uri(s3.uri("ours/runs/a"))
    assert fresh(out) == out.with_name("a-3")
    out.with_name("a-3").copy.mkdir(parents=True)  # begun on this machine, and nothing is sent yet
    assert fresh(out) == out.with_name("a-4")


def test_absent_server_is_a_sentence_within_seconds(s3: Server) -> None:
    out = uri(s3.uri("ours/runs/a"))
    s3.stop()
    try:
        with pytest.raises(InputError, match=r"^out: s3://ours/runs/a.*: cannot be reached"):
            object_store.exists(out)
    finally:
        s3.start()
