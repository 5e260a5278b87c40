"""Paths and URIs of the sweep file, and the files below a URI."""

import types
from pathlib import Path

import pytest
from buckets import Server
from pyarrow import fs

from moa_ray import spec, stores
from moa_ray.spec import Sweep
from moa_ray.stores import Mark, Store, Uri, place


def check(*overrides: str) -> Sweep:
    plain = {
        "study": "test",
        "out": "runs/test",
        "screen": {"name": "bbbc021", "root": "data"},
        "recipe": {"backbone": "SmallCNN", "weights": "random"},
    }
    return spec.check(plain, "test.yaml", overrides)


def uri(text: str) -> Uri:
    found = place(text)
    assert isinstance(found, Uri)
    return found


# URIs -----------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "text",
    [
        "s3://bucket/a/b",
        "s3://bucket",
        "gs://bucket/a",
        "s3://bucket/with space/100%25#1",
        "s3://bucket/a?endpoint_override=127.0.0.1:9000&scheme=http",
        "s3://bucket/a?anonymous=true&region=eu-north-1",
    ],
)
def test_uri_is_written_as_it_was_read(text: str) -> None:
    assert str(uri(text)) == text


def test_file_uri_and_path_are_one_folder() -> None:
    assert place("file:///data/a%20b") == place("/data/a b") == Path("/data/a b")
    assert place("file://localhost/data") == Path("/data")


def test_parts_of_a_uri_keep_how_its_store_is_reached() -> None:
    out = uri("s3://bucket/runs/one/?scheme=http")
    assert str(out / "report.html") == "s3://bucket/runs/one/report.html?scheme=http"
    assert str(out.with_name("one-2")) == "s3://bucket/runs/one-2?scheme=http"
    assert out.name == "one"


def test_each_uri_has_a_copy_of_its_own(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    copies = {stores.folder(uri(f"s3://{path}")) for path in ("a/x", "b/x", "a/x?region=eu-west-1")}
    assert len(copies) == 3
    assert {copy.parent for copy in copies} == {tmp_path / "moa_ray"}


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("s3://bucket", "a folder in the bucket must stand there, as in s3://bucket/runs"),
        ("http://host/a", "http:// is not among the places that are known: s3://"),
        ("s3://", "a bucket and folders must stand there"),
        ("s3://bucket//a", "a bucket and folders must stand there"),
        ("s3://bucket/../a", "a bucket and folders must stand there"),
        ("s3://bucket/a?endpoint=host", "s3://...?endpoint=: of a s3:// URI only endpoint_override, scheme"),
        ("gs://bucket/a?region=x", "of a gs:// URI only endpoint_override, scheme, anonymous are known"),
        ("file://host/a", "names a folder of this machine"),
    ],
)
def test_unknown_uri_is_told_with_what_is_known(text: str, said: str) -> None:
    with pytest.raises(ValueError, match=r"^test.yaml: out: ") as error:
        check(f"out={text}")
    assert said in str(error.value)


@pytest.mark.parametrize(
    "text", ["s3://KEYID:SECRET@bucket/a", "s3://KEYID:SEC/SECRET@bucket/a", "s3://bucket/a?secret_key=SECRET"]
)
def test_credentials_in_a_uri_are_refused_and_not_repeated(text: str) -> None:
    with pytest.raises(ValueError, match=r"^test.yaml: out: ") as error:
        check(f"out={text}")
    assert "SECRET" not in str(error.value)


def test_sweep_file_keeps_its_uris() -> None:
    text = "s3://bucket/runs/x?region=eu-west-1"
    sweep = check(f"out={text}", "screen.root=s3://bucket/data")
    assert f"out: {text}\n" in sweep.as_yaml()
    assert "root: s3://bucket/data\n" in sweep.as_yaml()
    assert sweep.tile_folder == stores.folder(sweep.out).parent / "tiles"


def test_what_is_used_in_place_is_no_uri() -> None:
    with pytest.raises(ValueError, match="tiles: must be a folder of this machine, but got s3://bucket/t"):
        check("tiles=s3://bucket/t")
    with pytest.raises(ValueError, match="root: must be a folder of this machine"):
        check("screen={name: synthetic, root: s3://bucket/p}")
    with pytest.raises(ValueError, match="must be a folder of this machine"):
        check("screen={name: bbbc014, root: s3://bucket/p, painting: {}}")


# Files ----------------------------------------------------------------------------------------------------------------


def test_file_that_is_sent_and_fetched_is_the_same_here_and_there(s3: Server, tmp_path: Path) -> None:
    store = Store(uri(s3.uri("ours/a b")))
    sent = tmp_path / "here" / "sub" / "größe %20.html"
    sent.parent.mkdir(parents=True)
    sent.write_bytes(b"content")
    mark = store.send("sub/größe %20.html", tmp_path / "here")
    assert store.files() == {"sub/größe %20.html": mark}
    assert Mark.of(sent) == mark
    store.fetch_all(store.files(), tmp_path / "other")
    fetched = tmp_path / "other" / "sub" / "größe %20.html"
    assert fetched.read_bytes() == b"content"
    assert Mark.of(fetched) == mark


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
        store.fetch("a", Mark(6, 0), tmp_path)
    assert list(tmp_path.glob("*a*")) == []
    assert not any(path.name.endswith(".part") for path in tmp_path.iterdir())


@pytest.mark.parametrize("name", ["../a", "b/../../a", "/etc/a"])
def test_name_that_leads_out_of_the_folder_is_refused(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    listed = fs.FileInfo(f"bucket/x/{name}", fs.FileType.File, size=1, mtime_ns=0)
    monkeypatch.setattr(stores, "_system", lambda uri: types.SimpleNamespace(get_file_info=lambda below: [listed]))
    with pytest.raises(ValueError, match="leads out of it"):
        Store(uri("s3://bucket/x")).files()


def test_next_free_out_is_found_in_the_store(s3: Server) -> None:
    from moa_ray.ledger import fresh

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
        with pytest.raises(ValueError, match=r"^out: s3://ours/runs/a.*: cannot be reached"):
            out.exists()
    finally:
        s3.start()
