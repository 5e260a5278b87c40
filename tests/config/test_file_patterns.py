"""Patterns of file names: parts are found, what does not match says where, ready patterns know real names."""

import re

import pytest

from moa_ray.config.file_patterns import FilePattern, read_pattern


def parts(written: str, path: str) -> dict[str, str] | None:
    """The parts that the first matching pattern finds, those alone that are there."""
    for pattern in read_pattern(written):
        if (found := pattern.match(path)) is not None:
            return found
    return None


def test_parts_are_found_in_the_end_of_a_path() -> None:
    pattern = "r{row}c{col}f{Metadata_Field}p01-ch{channel}sk1fk1fl1.tiff"
    expected = {"row": "01", "col": "12", "field": "3", "channel": "2"}
    for path in (
        "r01c12f3p01-ch2sk1fk1fl1.tiff",
        "P1/Images/r01c12f3p01-ch2sk1fk1fl1.TIFF",
        "z.zip!r01c12f3p01-ch2sk1fk1fl1.tiff",
    ):
        assert parts(pattern, path) == expected
    assert parts(pattern, "xr01c12f3p01-ch2sk1fk1fl1.tiff") is None
    assert parts(pattern, "r01c12f3p01-ch2sk1fk1fl1.tiff.bak") is None


def test_folders_stars_further_parts_and_repeated_ones() -> None:
    pattern = "{plate}/*/{Metadata_Label}_{plate}_{well}-{channel:[a-z]+}{:[0-9]*}.tif"
    path = "deep/P1/any/toxic_P1_AF48-dapi12.tif"
    assert parts(pattern, path) == {"plate": "P1", "Metadata_Label": "toxic", "well": "AF48", "channel": "dapi"}
    assert parts(pattern, path.replace("_P1_", "_P2_")) is None


@pytest.mark.parametrize(
    ("path", "clause"),
    [
        ("a01_2.png", "does not go on as '.tif'"),
        ("x/a01-2.tif", "does not go on as '_'"),
        ("_a01.tif", "does not begin '{well}'"),
    ],
)
def test_mismatch_says_where(path: str, clause: str) -> None:
    assert FilePattern("{well}_{channel}.tif").mismatch(path) == clause


def test_mismatch_of_folders_says_how_many() -> None:
    assert FilePattern("{plate}/x/{well}.tif").mismatch("x/A01.tif") == "lies in 1 folders, not in 2"


@pytest.mark.parametrize(
    ("written", "message"),
    [
        ("opera_fenix", "unknown pattern 'opera_fenix'; did you mean 'opera_phenix'"),
        ("{wel}.tif", "unknown part '{wel}'; did you mean 'well'"),
        ("{row}.tif", "{well}, or {row} and {col}, must be parts"),
        ("{row}{col}{well}.tif", "say the same"),
        ("{well}{}.tif", "has no name"),
        ("{well.tif", "stands alone"),
        ("{well}{channel:[}.tif", "is no regular expression"),
    ],
)
def test_wrong_pattern_is_named(written: str, message: str) -> None:
    with pytest.raises(ValueError, match=re.escape(message)):
        read_pattern(written)


@pytest.mark.parametrize(
    ("name", "path", "expected"),
    [
        ("opera_phenix", "r01c24f09p01-ch5sk1fk1fl1.tiff", "row 01 col 24 field 09 z 01 channel 5 t 1"),
        (
            "opera_phenix",
            "BR1/Images/r16c01f1p12-ch1sk3fk1fl1.tiff",
            "plate BR1 row 16 col 01 field 1 z 12 channel 1 t 3",
        ),
        (
            "opera_phenix",
            "BR00116991__2020-11-05T19_51_35-Measurement1/Images/r01c01f01p01-ch1sk1fk1fl1.tiff",
            "plate BR00116991 row 01 col 01 field 01 z 01 channel 1 t 1",
        ),
        ("operetta", "Images/r01c03f02p01-ch01t01.tiff", "row 01 col 03 field 02 z 01 channel 01 t 01"),
        ("operetta", "P2/r02c03f01p01rc3-ch1sk1fk1fl1.tiff", "plate P2 row 02 col 03 field 01 z 01 channel 3 t 1"),
        (
            "cv8000",
            "x/AssayPlate_Greiner_#655090_C02_T0001F001L01A02Z01C03.tif",
            "plate AssayPlate_Greiner_#655090 well C02 t 0001 field 001 z 01 channel 03",
        ),
        ("cv8000", "P1_AA01_T0002F012L01A01Z03C10.png", "plate P1 well AA01 t 0002 field 012 z 03 channel 10"),
        (
            "imagexpress",
            "2015-07-31/4014/TimePoint_1/val screen_B02_s1_w15EC1177F-9DC7-4534-9623-9DCA396EFA00.tif",
            "plate 4014 t 1 well B02 field 1 channel 1",
        ),
        (
            "imagexpress",
            "TimePoint_2/ZStep_3/exp_H12_s4_w2A52B1177-9DC7-4534-9623-9DCA396EFA00.TIF",
            "t 2 z 3 well H12 field 4 channel 2",
        ),
        (
            "imagexpress",
            "plate_folder/TimePoint_1/ZStep_2/A01_s1_w2.tif",
            "plate plate_folder t 1 z 2 well A01 field 1 channel 2",
        ),
        ("imagexpress", "IXMtest_A01_w1A52B1177-9DC7-4534-9623-9DCA396EFA00.tif", "plate IXMtest well A01 channel 1"),
        ("imagexpress", "A01_s1_w12_z2.tif", "well A01 field 1 channel 12 z 2"),
        ("imagexpress", "timepoint0/cells_t0_C05_s0_w1_z2.tif", "plate cells t 0 well C05 field 0 channel 1 z 2"),
        (
            "micromanager",
            "P1/A1-Site_0/img_channel000_position000_time000000000_z004.tif",
            "plate P1 well A1 field 0 channel 000 t 000000000 z 004",
        ),
        (
            "micromanager",
            "B10-Site_12/Default/img_000000001_DAPI_000.tif",
            "well B10 field 12 t 000000001 channel DAPI z 000",
        ),
        (
            "micromanager",
            "E01/img_channel001_position008_time000000000_z000.tif",
            "well E01 channel 001 field 008 t 000000000 z 000",
        ),
        ("in_cell", "P1/A - 01(fld 1 wv 390 - Blue).tif", "plate P1 row A col 01 field 1 channel 390 - Blue"),
        (
            "in_cell",
            "Plate1_HA41_B - 02(fld 01 wv DAPI - DAPI).tif",
            "plate Plate1_HA41 row B col 02 field 01 channel DAPI - DAPI",
        ),
        (
            "in_cell",
            "B - 02(fld 01 wv Blue - FITC - time 03 - 0 ms).tif",
            "row B col 02 field 01 channel Blue - FITC t 03",
        ),
        ("in_cell", "F - 001(fld 2 wv Cy3 - Cy3 z 05).tif", "row F col 001 field 2 channel Cy3 - Cy3 z 05"),
        ("in_cell", "A - 1(fld 1 z 2 wv 405 - Blue).tif", "row A col 1 field 1 z 2 channel 405 - Blue"),
        ("in_cell", "A - 1(wv 405 - Blue).tif", "row A col 1 channel 405 - Blue"),
    ],
)
def test_ready_patterns_know_the_names_that_microscopes_write(name: str, path: str, expected: str) -> None:
    found = parts(name, path)
    assert found is not None
    part = "(plate|row|col|well|field|channel|z|t)"
    texts = [match[:2] for match in re.findall(rf"{part} (.+?)(?= {part} |$)", expected)]
    assert found == dict(texts)


@pytest.mark.parametrize(
    ("name", "path"),
    [
        ("opera_phenix", "Images/Index.idx.xml"),
        ("imagexpress", "4014/TimePoint_1/val screen_B02_s1_w1_thumb62D4A363-7C7E-40D0-8A9E-55EC6681574D.tif"),
        ("imagexpress", "4014/4014.HTD"),
        ("cv8000", "SC_BP445-45_40x_M10_CH01.tif"),
        ("micromanager", "A1-Site_0/metadata.txt"),
        ("in_cell", "P1/A - 01(fld 1 wv 390 - Blue).tif.thumb"),
    ],
)
def test_ready_patterns_leave_out_what_is_no_image_of_a_field(name: str, path: str) -> None:
    assert parts(name, path) is None
