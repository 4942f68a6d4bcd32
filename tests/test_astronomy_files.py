import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from astropy.io import fits
from hypothesis import given
from hypothesis import strategies as st

from vglm.data.astronomy.files import read_light_curve, read_star_name, write_csv, write_fits
from vglm.data.astronomy.light_curve import LightCurve
from vglm.errors import ConfigError, DataError

TIME = 131.5 + np.arange(50) * 0.02043
FLUX = 21000 + 300 * np.sin(TIME * 9)


def _csv(path: Path, text: str) -> Path:
    path.write_text(text, encoding="utf-8")
    return path


def _lines(*columns: Any, mark: str = ",") -> str:
    return "\n".join(mark.join(f"{value:.9g}" for value in row) for row in zip(*columns, strict=True)) + "\n"


def mission_file(path: Path, *, telescope: str, flux: np.ndarray = FLUX, **more: Any) -> Path:
    """A light-curve file with the columns and keywords of the Kepler Archive Manual and the TESS products document."""
    quality = np.zeros(len(flux), dtype=np.int32)
    quality[3] = 1  # attitude tweak
    quality[4] = 1 << 12 if telescope == "TESS" else 1 << 17  # stray light, sensitivity: these are kept
    columns = [
        fits.Column("TIME", "D", unit="BJD - 2454833", array=np.where(np.arange(len(flux)) == 8, np.nan, TIME)),
        fits.Column("TIMECORR", "E", array=np.zeros(len(flux))),
        fits.Column("CADENCENO", "J", array=np.arange(len(flux))),
        fits.Column("SAP_FLUX", "E", unit="e-/s", array=flux * 0.9 + 500),
        fits.Column("SAP_FLUX_ERR", "E", unit="e-/s", array=np.full(len(flux), 9.0)),
        fits.Column("PDCSAP_FLUX", "E", unit="e-/s", array=np.where(np.arange(len(flux)) == 6, np.nan, flux)),
        fits.Column("PDCSAP_FLUX_ERR", "E", unit="e-/s", array=np.full(len(flux), 8.0)),
        fits.Column("QUALITY" if telescope == "TESS" else "SAP_QUALITY", "J", array=quality),
    ]
    primary = fits.PrimaryHDU()
    primary.header["TELESCOP"] = telescope
    primary.header["OBJECT"] = more.get("star", "KIC 3733346")
    table = fits.BinTableHDU.from_columns(columns, name="LIGHTCURVE")
    aperture = fits.ImageHDU(np.zeros((4, 4), dtype=np.int32), name="APERTURE")
    fits.HDUList([primary, table, aperture]).writeto(path)
    return path


@pytest.mark.parametrize("telescope", ["Kepler", "K2", "TESS"])
def test_a_mission_file_gives_its_corrected_flux_without_flagged_points(tmp_path: Path, telescope: str) -> None:
    curve = read_light_curve(mission_file(tmp_path / "a_llc.fits", telescope=telescope))
    assert curve.star == "KIC 3733346"
    dropped = [3, 6, 8]  # a bad quality, no flux, no time
    unflagged = [index for index in range(50) if index not in dropped]
    assert curve.time == pytest.approx(TIME[unflagged])
    assert curve.flux == pytest.approx(FLUX[unflagged] / np.median(FLUX[unflagged].astype(np.float32)), rel=1e-6)
    assert curve.error is not None


def test_the_plain_flux_is_there_on_request(tmp_path: Path) -> None:
    path = mission_file(tmp_path / "a.fits", telescope="Kepler")
    plain, corrected = read_light_curve(path, flux="sap"), read_light_curve(path, flux="pdcsap")
    assert len(plain.time) == len(corrected.time) + 1  # only the corrected one has a hole
    assert np.ptp(plain.flux) < np.ptp(corrected.flux)


def test_a_compressed_file_and_one_of_the_community_are_read(tmp_path: Path) -> None:
    packed = mission_file(tmp_path / "a.fits.gz", telescope="TESS")
    assert len(read_light_curve(packed).time) == 47
    table = fits.BinTableHDU.from_columns([fits.Column("T", "D", array=TIME), fits.Column("FCOR", "E", array=FLUX)])
    fits.HDUList([fits.PrimaryHDU(), table]).writeto(tmp_path / "b.fits")
    assert read_light_curve(tmp_path / "b.fits").star == "b"
    table.columns["FCOR"].name = "FLUX"
    fits.HDUList([fits.PrimaryHDU(), table]).writeto(tmp_path / "c.fits")
    assert read_light_curve(tmp_path / "c.fits").star == "c"


def fits_table(path: Path, **columns: np.ndarray) -> Path:
    made = [
        fits.Column(name, "D" if values.ndim == 1 else f"{values.shape[1]}D", array=values)
        for name, values in columns.items()
    ]
    fits.HDUList([fits.PrimaryHDU(), fits.BinTableHDU.from_columns(made)]).writeto(path, overwrite=True)
    return path


@pytest.mark.parametrize(
    "names", [("T", "FRAW", "FCOR"), ("TIME", "RAW_FLUX", "CORR_FLUX"), ("TIME", "SAP_FLUX", "KSPSAP_FLUX")]
)
def test_the_corrected_flux_of_the_community_is_taken(tmp_path: Path, names: tuple[str, str, str]) -> None:
    time, raw, corrected = names
    path = fits_table(tmp_path / "a.fits", **{time: TIME, raw: FLUX[::-1], corrected: FLUX})
    assert read_light_curve(path).flux == pytest.approx(FLUX / np.median(FLUX))
    assert read_light_curve(fits_table(path, **{time: TIME, raw: FLUX})).flux == pytest.approx(FLUX / np.median(FLUX))


def test_points_under_thruster_fire_are_dropped(tmp_path: Path) -> None:
    path = fits_table(tmp_path / "a.fits", T=TIME, FCOR=FLUX, MOVING=np.where(np.arange(50) == 7, 1.0, 0.0))
    assert len(read_light_curve(path).time) == 49


def test_a_column_without_measurements_gives_way_to_the_next(tmp_path: Path) -> None:
    path = mission_file(tmp_path / "a.fits", telescope="TESS", flux=FLUX)
    with fits.open(path, mode="update") as units:
        units[1].data["PDCSAP_FLUX"][:] = np.nan
    assert len(read_light_curve(path).time) == 48
    with pytest.raises(DataError, match=r"measurements in a\.fits, found none in PDCSAP_FLUX; fix: .*flux=auto"):
        read_light_curve(path, flux="pdcsap")


def test_pixels_and_unknown_columns_are_told_apart(tmp_path: Path) -> None:
    pixels = fits_table(tmp_path / "a.fits", TIME=TIME, FLUX=np.ones((50, 4)))
    with pytest.raises(DataError, match=r"found target pixels; fix: pass the mission's light-curve file, not pixels"):
        read_light_curve(pixels)
    with pytest.raises(DataError, match=r"TIME and PDCSAP_FLUX or .*, found TIME, COUNTS; fix: pass the .* CSV"):
        read_light_curve(fits_table(tmp_path / "b.fits", TIME=TIME, COUNTS=FLUX))


def test_nameless_magnitudes_are_asked_about(tmp_path: Path) -> None:
    magnitudes = 14 - 2.5 * np.log10(FLUX / np.median(FLUX))
    path = _csv(tmp_path / "ogle.dat", _lines(TIME, magnitudes, magnitudes * 0 + 0.01, mark=" "))
    with pytest.raises(DataError, match=r"found values from 13\.98\d* to 14\.01\d*, maybe magnitudes; fix"):
        read_light_curve(path)
    assert read_light_curve(path, magnitudes=True).flux == pytest.approx(FLUX / np.median(FLUX), rel=1e-6)
    assert read_light_curve(path, magnitudes=False).flux == pytest.approx(magnitudes / np.median(magnitudes), rel=1e-6)
    for names in ("# time mag error\n", "hjd I_mag I_mag_err\n"):
        named = read_light_curve(_csv(path, names + _lines(TIME, magnitudes, magnitudes * 0 + 0.01, mark=" ")))
        assert named.flux == pytest.approx(FLUX / np.median(FLUX), rel=1e-6)


def test_damaged_fits_files_are_refused_in_one_kind_of_error(tmp_path: Path) -> None:
    whole = mission_file(tmp_path / "a.fits", telescope="Kepler").read_bytes()
    for size in (0, 100, 2881, 5000, 5760, 6000, 7900):  # the table lies from 5760 to 7960
        (tmp_path / "cut.fits").write_bytes(whole[:size])
        with pytest.raises(DataError, match=r"expected .* found .*; fix: "):
            read_light_curve(tmp_path / "cut.fits")
    (tmp_path / "text.fits").write_text("time,flux\n1,2\n")
    for read in (read_light_curve, read_star_name):
        with pytest.raises(DataError, match=r"expected text.fits to be a FITS file, found damage"):
            read(tmp_path / "text.fits")


@pytest.mark.parametrize(
    "text",
    [
        "# KIC 1\ntime,flux,error\n" + _lines(TIME, FLUX, FLUX * 0 + 8),
        "Flux, Time, flux_err, quality\n" + _lines(FLUX, TIME, FLUX * 0 + 8, FLUX * 0),
        _lines(TIME, FLUX, FLUX * 0 + 8),
        _lines(TIME, FLUX, FLUX * 0 + 8, mark="   "),
        "time;flux;error\n" + _lines(TIME, FLUX, FLUX * 0 + 8, mark=";"),
        "time\tmag\te_mag\n" + _lines(TIME, 12 - 2.5 * np.log10(FLUX), 8 / FLUX / 0.921034, mark="\t"),
    ],
)
def test_tables_as_people_write_them_give_one_light_curve(tmp_path: Path, text: str) -> None:
    curve = read_light_curve(_csv(tmp_path / "star 7.csv", text))
    assert curve.star == "star 7"
    assert curve.time == pytest.approx(TIME, rel=1e-8)
    assert curve.flux == pytest.approx(FLUX / np.median(FLUX), rel=1e-3)
    assert curve.error == pytest.approx(8 / np.median(FLUX) * np.ones(50), rel=1e-3)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "found no line; fix"),
        ("phase,flux\n0.1,2\n", "`time` and `flux` .*found phase, flux; fix: name them so"),
        ("time,flux\n1,2\n2,x\n", "a number in column 2 of line 3 of a.csv, found 'x'; fix"),
        ("time,flux\n1,2\n2\n", "column 2 of line 3 of a.csv, found 1 columns"),
        ("time,flux\n1,\n2,3\n", "at least 30 measurements, found 1"),
    ],
)
def test_a_broken_table_says_where_and_what(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(DataError, match=message):
        read_light_curve(_csv(tmp_path / "a.csv", text))


def test_text_in_another_encoding_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_bytes("时间,flux\n".encode("gbk"))
    with pytest.raises(DataError, match=r"expected a.csv to be text, found byte 2 .*; fix: save it as CSV"):
        read_light_curve(tmp_path / "a.csv")


@given(st.text(alphabet="0123456789.,;-+eE \t\n#timefluxnmag", max_size=200))
def test_any_text_is_a_light_curve_or_a_data_error(tmp_path_factory: pytest.TempPathFactory, text: str) -> None:
    path = _csv(tmp_path_factory.mktemp("any") / "a.csv", text)
    try:
        assert isinstance(read_light_curve(path), LightCurve)
    except DataError as error:
        message = str(error)
        assert "; fix: " in message


@pytest.mark.parametrize("telescope", ["kepler", "tess"])
def test_what_is_written_reads_back(tmp_path: Path, telescope: Any) -> None:
    curve = LightCurve.clean("KIC 5", TIME, FLUX, FLUX * 0 + 8)
    write_csv(curve, tmp_path / "a.csv")
    write_fits(curve, tmp_path / "a.fits", telescope=telescope)
    for name in ("a.csv", "a.fits"):
        back = read_light_curve(tmp_path / name, star="KIC 5")
        assert back.time == pytest.approx(curve.time, rel=1e-8)
        assert back.flux == pytest.approx(curve.flux, rel=1e-6)
    assert read_star_name(tmp_path / "a.fits") == "KIC 5"
    assert read_star_name(tmp_path / "a.csv") == "a"


def test_without_astropy_the_message_says_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = mission_file(tmp_path / "a.fits", telescope="Kepler")
    monkeypatch.setitem(sys.modules, "astropy.io", None)
    with pytest.raises(ConfigError, match=r"need astropy.*pip install -e \.\[astronomy\]"):
        read_light_curve(path)
