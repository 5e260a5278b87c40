"""Paths and URIs of the sweep file."""

from pathlib import Path

import pytest

from moa_ray.common.uri import Uri, folder, place
from moa_ray.config import sweep_file
from moa_ray.config.sweep_file import Sweep


def check(*overrides: str) -> Sweep:
    plain = {
        "study": "test",
        "out": "runs/test",
        "screen": {"name": "bbbc021", "root": "data"},
        "recipe": {"backbone": "SmallCNN", "weights": "random"},
    }
    return sweep_file.check(plain, "test.yaml", overrides)


def uri(text: str) -> Uri:
    parsed = place(text)
    assert isinstance(parsed, Uri)
    return parsed


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
    copies = {folder(uri(f"s3://{path}")) for path in ("a/x", "b/x", "a/x?region=eu-west-1")}
    assert len(copies) == 3
    assert {copy.parent for copy in copies} == {tmp_path / "moa_ray"}


@pytest.mark.parametrize(
    ("text", "message"),
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
def test_unknown_uri_is_told_with_what_is_known(text: str, message: str) -> None:
    with pytest.raises(ValueError, match=r"^test.yaml: out: ") as error:
        check(f"out={text}")
    assert message in str(error.value)


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
    assert sweep.tile_folder == folder(sweep.out).parent / "tiles"


def test_what_is_used_in_place_is_no_uri() -> None:
    with pytest.raises(ValueError, match="tiles: must be a folder of this machine, but got s3://bucket/t"):
        check("tiles=s3://bucket/t")
    with pytest.raises(ValueError, match="root: must be a folder of this machine"):
        check("screen={name: synthetic, root: s3://bucket/p}")
    with pytest.raises(ValueError, match="must be a folder of this machine"):
        check("screen={name: bbbc014, root: s3://bucket/p, painting: {}}")
