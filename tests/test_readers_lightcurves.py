from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from vglm.data.astronomy.files import write_csv, write_fits
from vglm.data.astronomy.light_curve import LightCurve
from vglm.data.problems import BadRow
from vglm.data.readers import lightcurves, read, read_samples, recognise
from vglm.data.sample import Sample
from vglm.errors import ConfigError, DataError

HEAD = "star,file,type,period,amplitude,split,note\n"


def _star(period: float) -> LightCurve:
    rng = np.random.default_rng(round(1000 * period))
    time = np.arange(0, 20, 0.02)
    flux = 1e4 * (1 + 0.1 * np.sin(2 * np.pi * time / period) + 0.001 * rng.standard_normal(len(time)))
    return LightCurve.clean("KIC 9", time, flux)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "tess").mkdir()
    write_fits(_star(0.68), tmp_path / "a_llc.fits", telescope="kepler")
    write_fits(_star(0.69), tmp_path / "b_llc.fits", telescope="kepler")
    write_csv(_star(2.4), tmp_path / "tess" / "c.csv")
    return tmp_path


def _table(folder: Path, rows: str, head: str = HEAD) -> Path:
    (folder / "labels.csv").write_text(head + rows, encoding="utf-8")
    return folder / "labels.csv"


def _rows(path: Path, **options: Any) -> list[Sample | BadRow]:
    return list(read(path, picture_dir=path.parent / "pictures", **options))


def test_a_table_gives_questions_about_each_star(folder: Path) -> None:
    table = _table(folder, "KIC 9,a_llc.fits,RRAB,0.682,0.21,train,bright\nTIC 3,tess/c.csv,食双星,2.4,,val,\n")
    samples = _rows(table)
    assert all(isinstance(sample, Sample) for sample in samples)
    assert [sample.id for sample in samples] == [f"labels.csv#2.{turn}" for turn in range(1, 7)] + [
        f"labels.csv#3.{turn}" for turn in range(1, 5)
    ]
    assert [sample.answer for sample in samples] == [
        "天琴座RR型变星。", "RR Lyrae star.", "约0.5天。", "About 0.5 days.", "约0.2星等。", "About 0.2 mag.",
        "食双星。", "Eclipsing binary.", "约2天。", "About 2 days.",
    ]  # fmt: skip
    assert {sample.group for sample in samples} == {"KIC 9", "TIC 3"}
    assert {key: value for key, value in samples[0].meta.items() if key != "light_curve"} == {
        "note": "bright", "type": "rr_lyrae", "period": 0.682, "amplitude": 0.21, "split": "train",
        "kind": "type", "language": "zh",
    }  # fmt: skip
    assert samples[-1].meta["split"] == "validation"
    with Image.open(samples[0].image) as picture:
        assert (picture.mode, picture.size) == ("RGB", (64, 64))


def test_files_of_one_star_are_one_group_even_without_a_name(folder: Path) -> None:
    table = _table(folder, "a_llc.fits,RRAB\nb_llc.fits,RRAB\ntess/c.csv,EA\n", head="file,type\n")
    samples = _rows(table, questions=["type"], languages=["en"])
    assert [sample.group for sample in samples] == ["KIC 9", "KIC 9", "c"]
    assert samples[0].image != samples[1].image


def test_pictures_are_drawn_once_and_follow_file_and_settings(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    table = _table(folder, "KIC 9,a_llc.fits,RRAB,,,,\n")
    before = (folder / "a_llc.fits").read_bytes()
    first = _rows(table)[0].image
    assert _rows(table, size=128)[0].image != first
    assert _rows(table, view="raw")[0].image != first
    monkeypatch.setattr(lightcurves, "measure", lambda curve: pytest.fail("drawn again"))
    assert _rows(table)[0].image == first
    assert (folder / "a_llc.fits").read_bytes() == before
    assert sorted(path.suffix for path in (folder / "pictures").iterdir()) == [".png"] * 3


def test_all_that_is_wrong_is_said_at_once(folder: Path) -> None:
    (folder / "empty.csv").write_text("time,flux\n")
    (folder / "cut.fits").write_bytes((folder / "a_llc.fits").read_bytes()[:3000])
    table = _table(
        folder,
        "A,a_llc.fits,RRAB,0.6,0.2,train,\n"
        "B,a_llc.fits,RR Lyre star,-1,much,later,\n"
        "C,empty.csv,EA,,,,\n"
        "D,cut.fits,,,,,\n"
        "E,gone.fits,EA,,,,\n"
        "F,../other.fits,EA,,,,\n",
    )
    bad = [row for row in _rows(table) if isinstance(row, BadRow)]
    assert [row.row for row in bad] == [3, 4, 5, 6, 7]
    assert [row.is_missing_image for row in bad] == [False, False, False, True, False]
    for text in ("write 'RR Lyrae star'", "period in days, above 0, found '-1'", "found 'much'", "split to be train"):
        assert text in bad[0].fault
    assert bad[1].fault.startswith("expected at least 30 measurements, found 0; fix:")
    assert "'type' to say something" in bad[2].fault
    assert "; also expected " in bad[2].fault
    assert "'gone.fits'" in bad[3].fault
    assert "leaves it" in bad[4].fault
    with pytest.raises(DataError, match=r"5 of 11 rows cannot be used(.|\n)*labels.csv:3: expected"):
        list(read_samples(table, picture_dir=folder / "pictures"))


def test_a_laboratorys_own_types_are_taken_on_request(folder: Path) -> None:
    table = _table(folder, "KIC 9,a_llc.fits,rotator,,,,\n")
    assert "other_types=true" in _rows(table)[0].fault
    assert [sample.answer for sample in _rows(table, other_types=True)] == ["rotator。", "rotator."]


def test_a_star_about_which_nothing_can_be_asked_is_not_dropped_in_silence(folder: Path) -> None:
    table = _table(folder, "A,a_llc.fits,RRAB,0.6,,,\nB,a_llc.fits,RRAB,,0.2,,\n")
    good, good_too, bad = _rows(table, questions=["period"])
    assert [good.answer, good_too.answer] == ["约0.5天。", "About 0.5 days."]
    assert bad == BadRow(3, "expected a value to ask about in period, found empty cells; fix: fill one in")


def test_tables_of_light_curves_are_told_from_other_tables(folder: Path) -> None:
    table = _table(folder, "KIC 9,a_llc.fits,RRAB,,,,\n")
    assert recognise(table).NAME == recognise(folder).NAME == "lightcurves"
    for text in (
        "",
        "file,type\n",
        "image,label\na.png,b\n",
        "file,type\na.png,cat\n",
        "\udcff".encode("utf-8", "replace").decode(),
    ):
        (folder / "other.csv").write_text(text)
        assert not lightcurves.recognises(folder / "other.csv")
    assert not lightcurves.recognises(folder / "tess")
    assert not lightcurves.recognises(folder / "a_llc.fits")
    assert not lightcurves.recognises(folder / "nothing.csv")


def test_tabs_and_semicolons_separate_too(folder: Path) -> None:
    for mark in "\t;":
        table = _table(folder, f"a_llc.fits{mark}EA\n", head=f"File{mark}Type\n")
        assert _rows(table, languages=["en"], questions=["type"])[0].answer == "Eclipsing binary."


def test_a_table_without_its_columns_is_refused(folder: Path) -> None:
    table = _table(folder, "a\n", head="name\n")
    with pytest.raises(DataError, match=r"expected the columns file and type, found name\. Add file and type"):
        _rows(table, format="lightcurves")
    (folder / "labels.csv").write_bytes("file,type\n星.csv,EA\n".encode("gbk"))
    with pytest.raises(DataError, match="Save the file as UTF-8"):
        _rows(table, format="lightcurves")


@pytest.mark.parametrize(
    "options",
    [
        {"view": "polar"},
        {"questions": ["colour"]},
        {"languages": []},
        {"languages": "en"},
        {"flux": "raw"},
        {"size": 4},
    ],
)
def test_impossible_options_are_refused(folder: Path, options: dict[str, Any]) -> None:
    table = _table(folder, "KIC 9,a_llc.fits,RRAB,,,,\n")
    with pytest.raises(ConfigError, match=r"must be|at least"):
        _rows(table, **options)
