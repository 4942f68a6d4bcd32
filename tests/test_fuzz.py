"""Damaged and hostile inputs: a short run of the fuzzer, and those kinds of input that once were findings."""

import gzip
import io
import json
import os
import re
import socket
import tarfile
import zipfile
import zlib
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as parquet
import pytest
from PIL import Image

from tests.fuzz.areas import AREAS
from tests.fuzz.harness import Case, Result, fuzz, keep, replay, tabulate
from tests.fuzz.inputs import dicom
from vglm.data.images import check_image_header, open_image
from vglm.data.problems import BadRow
from vglm.data.readers import add_window, formats, read
from vglm.data.sample import Sample, Turn
from vglm.data.slices import ImageSlice
from vglm.data.windowing import RULES
from vglm.errors import DataError

pytestmark = [
    pytest.mark.skipif(
        not hasattr(os, "mkfifo") or not os.path.isdir("/proc/self"), reason="pipes, and /proc of Linux"
    ),
    pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::ResourceWarning"),
]


def test_every_damaged_input_is_accepted_or_refused() -> None:
    results = fuzz([name for name, area in AREAS.items() if area.is_quick], 300, seed=1)
    assert not [result for result in results if result.is_finding], tabulate(results)
    assert {result.outcome for result in results} == {"ok", "refused"}
    assert len(results) == 300


def test_the_fuzzer_notices_what_goes_wrong(tmp_path: Path) -> None:
    expected = {
        "nothing": "ok",
        "refuse": "refused",
        "raise": "ZeroDivisionError",
        "say nothing": "LONG",
        "crash": "CRASH",
        "write outside": "OUTSIDE",
        "start a process": "OUTSIDE",
        "execute": "EXECUTED",
        "leave": "LEFT",
        "change": "CHANGED",
        "grow": "MEMORY",
    }
    for wrong in expected:
        (tmp_path / wrong / "d").mkdir(parents=True)
        (tmp_path / wrong / "d" / "wrong.txt").write_text(wrong)
        (tmp_path / wrong / "case.json").write_text(json.dumps({"area": "self", "seed": "1"}))
    assert {wrong: replay(tmp_path / wrong).outcome for wrong in expected} == expected
    finding_dir = keep(Result(Case("self", "1", "x"), "CRASH"), tmp_path / "raise" / "d", tmp_path / "findings")
    assert json.loads((finding_dir / "FINDING.txt").read_text())["outcome"] == "CRASH"
    assert replay(finding_dir).outcome == "ZeroDivisionError"


def test_every_format_is_fuzzed() -> None:
    fuzzed = {name.partition("/")[2].partition("-")[0] for name in AREAS if name.startswith("readers/")}
    assert fuzzed == set(formats()) - {"hub"}


# --- what once hung, crashed or left a trace --------------------------------------------------------------------------


def faults(path: Path, **options: Any) -> str:
    """What is wrong with a data set and its rows."""
    try:
        return "\n".join(row.fault for row in read(path, **options) if isinstance(row, BadRow))
    except DataError as error:
        return str(error)


def endless(path: Path) -> None:
    path.symlink_to("/dev/zero")


def bound(path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as one:
        one.bind(os.path.relpath(path))  # which may have 107 bytes


@pytest.mark.parametrize("put", [os.mkfifo, endless, bound])
def test_what_is_no_file_is_not_opened(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, put: Callable[[Path], None]
) -> None:
    monkeypatch.chdir(tmp_path)
    put(tmp_path / "a")
    for format in (None, *sorted(set(formats()) - {"hub"})):
        assert "a is no regular file" in faults(tmp_path / "a", format=format)
    with pytest.raises(DataError, match="is not a file"):
        open_image(tmp_path / "a")
    for picture in (tmp_path / "a", ImageSlice(tmp_path / "a", 0, 10)):
        with pytest.raises(DataError):
            check_image_header(picture)
        sample = Sample("a#1", "g", picture, (Turn("?", "!"),))
        assert isinstance(add_window(sample), Sample)  # what it is, is said when it is opened


@pytest.mark.parametrize("put", [os.mkfifo, endless])
@pytest.mark.parametrize(
    ("area", "file"),
    [
        ("openi_xml", "2.xml"),
        ("lightcurves", "labels.csv"),
        ("lightcurves", "a.csv"),
        ("mimic_cxr", "mimic-cxr-2.0.0-split.csv"),
        ("mimic_cxr", "mimic-cxr-2.0.0-metadata.csv.gz"),
        ("mimic_cxr", "files/p10/p10000032/s50.txt"),
        ("vqa_v2", "annotations.json"),
        ("scienceqa", "problems.json"),
        ("arrow-saved", "train/d.arrow"),
        ("arrow-saved", "train/state.json"),
        ("imagefolder", "train/metadata.jsonl"),
    ],
)
def test_nor_is_it_inside_a_folder(tmp_path: Path, area: str, file: str, put: Callable[[Path], None]) -> None:
    AREAS[f"readers/{area}"].make(tmp_path)
    (tmp_path / file).unlink()
    put(tmp_path / file)
    path = tmp_path / "questions.json" if area == "vqa_v2" else tmp_path
    faults(path)
    refused = faults(path, format=area.partition("-")[0])
    assert refused or area == "imagefolder"  # whose other split is left


def arrow(path: Path, **columns: Any) -> bytes:
    table = pa.table({"question": ["Which?"] * 3, "answer": ["red", "green", "blue"]} | columns)
    with pa.OSFile(str(path), "wb") as sink, pa.ipc.new_file(sink, table.schema) as writer:
        writer.write_table(table)
    return path.read_bytes()


@pytest.mark.parametrize("value", [2**31 - 1, -1, -(2**31), 10_000_000, 12])
def test_an_offset_of_an_arrow_table_that_leads_elsewhere(tmp_path: Path, value: int) -> None:
    content = arrow(tmp_path / "a.arrow")
    offsets = np.array([0, 3, 8, 12], np.int32).tobytes()
    assert content.count(offsets) == 1
    for index in range(1, 4):
        damaged = offsets[: 4 * index] + value.to_bytes(4, "little", signed=True) + offsets[4 * index + 4 :]
        if damaged == offsets:
            continue
        (tmp_path / "a.arrow").write_bytes(content.replace(offsets, damaged))
        assert "expected an Arrow table, found" in faults(tmp_path / "a.arrow") or (value, index) == (12, 2)


def test_an_arrow_table_whose_text_is_none_or_whose_rows_are_too_many(tmp_path: Path) -> None:
    content = arrow(tmp_path / "a.arrow")
    (tmp_path / "a.arrow").write_bytes(content.replace(b"green", b"gr\x80en"))
    assert "expected an Arrow table, found In column 1: Invalid: Invalid UTF8" in faults(tmp_path / "a.arrow")
    table = pa.table({"answer": pa.nulls(10**8), "question": pa.nulls(10**8)})
    with pa.OSFile(str(tmp_path / "a.arrow"), "wb") as sink, pa.ipc.new_file(sink, table.schema) as writer:
        writer.write_table(table)
    assert "100,000,000 rows in 0 bytes" in faults(tmp_path / "a.arrow")


@pytest.mark.parametrize("name", ["../secret.arrow", "/etc/passwd", "a/../../secret.arrow", "", "."])
def test_a_saved_data_set_names_files_of_its_own(tmp_path: Path, name: str) -> None:
    arrow(tmp_path / "secret.arrow")
    folder = tmp_path / "saved"
    (folder / "train").mkdir(parents=True)
    (folder / "state.json").write_text(json.dumps({"_data_files": [{"filename": name}]}))
    assert "leaves its folder" in faults(folder)
    (folder / "dataset_dict.json").write_text(json.dumps({"splits": [name]}))
    assert "leaves its folder" in faults(folder)


def test_a_small_parquet_file_that_unpacks_to_a_huge_table(tmp_path: Path) -> None:
    large = "x" * 900_000
    once = pa.DictionaryArray.from_arrays(pa.array([0] * 20_000, pa.int32()), pa.array([large]))
    nested = pa.ListArray.from_arrays(pa.array([0, 20_000], pa.int32()), once)
    for name, table in {
        "repeated": pa.table({"question": ["?"] * 20_000, "answer": once}),
        "nested": pa.table({"question": ["?"], "answer": pa.StructArray.from_arrays([nested], ["a"])}),
    }.items():
        parquet.write_table(table, tmp_path / f"{name}.parquet", compression="zstd")
        assert (tmp_path / f"{name}.parquet").stat().st_size < 10_000
        assert "unpacks to more than 1,073,741,824 bytes" in faults(tmp_path / f"{name}.parquet")
    few = pa.DictionaryArray.from_arrays(pa.array([0] * 3000, pa.int32()), pa.array(["y" * 500_000]))
    parquet.write_table(pa.table({"question": ["?"] * 3000, "answer": few.slice(0, 3000)}), tmp_path / "few.parquet")
    assert "unpacks to more than" in faults(tmp_path / "few.parquet")
    parquet.write_table(pa.table({"question": ["?"] * 3000, "answer": ["y" * 50] * 3000}), tmp_path / "good.parquet")
    assert faults(tmp_path / "good.parquet", cache_dir=str(tmp_path / "cache")) == ""


def test_a_deflated_dicom_file_that_unpacks_to_more_than_a_picture(tmp_path: Path) -> None:
    content = dicom(deflated=True)
    start = 144 + int.from_bytes(content[140:144], "little")  # behind the header, whose first element is its length
    plain = zlib.decompress(content[start:], -zlib.MAX_WBITS)
    packer = zlib.compressobj(9, zlib.DEFLATED, -zlib.MAX_WBITS)
    bomb = packer.compress(plain) + b"".join(packer.compress(bytes(1 << 22)) for _ in range(80)) + packer.flush()
    (tmp_path / "bomb").write_bytes(content[:start] + bomb)
    assert (tmp_path / "bomb").stat().st_size < 1_000_000
    for picture in (tmp_path / "bomb", ImageSlice(tmp_path / "bomb", 0, (tmp_path / "bomb").stat().st_size)):
        with pytest.raises(DataError, match="unpacks to more than 256 MB"):
            open_image(picture)
    (tmp_path / "good").write_bytes(content)
    assert open_image(tmp_path / "good").size == (4, 3)


@pytest.mark.parametrize("tag", ["WindowCenter", "WindowWidth", "RescaleSlope", "RescaleIntercept"])
@pytest.mark.parametrize("number", [b"fY\x06e", b"1e99", b"nan ", b"-inf", b"    "])
def test_garbage_in_place_of_a_number_of_a_dicom_file(tmp_path: Path, tag: str, number: bytes) -> None:
    import pydicom
    from pydicom.datadict import tag_for_keyword
    from pydicom.tag import Tag

    written = pydicom.dcmread(io.BytesIO(dicom()))
    written[tag].value = "7777"
    stream = io.BytesIO()
    written.save_as(stream)
    which = Tag(tag_for_keyword(tag))
    element = which.group.to_bytes(2, "little") + which.element.to_bytes(2, "little") + b"DS\x04\x00"
    content = stream.getvalue()
    assert content.count(element + b"7777") == 1
    (tmp_path / "p").write_bytes(content.replace(element + b"7777", element + number))
    for rule in RULES:
        row = add_window(Sample("a#1", "g", tmp_path / "p", (Turn("?", "!"),)), rule)
        if isinstance(row, Sample) and row.window is not None:
            json.dumps(row.window.record(), allow_nan=False)
    with suppress(DataError):
        assert open_image(tmp_path / "p").mode == "RGB"


def test_numbers_of_json_that_nothing_else_can_hold(tmp_path: Path) -> None:
    row = {"question": "?", "answer": 10**400, "more": [float("nan"), {"a": float("inf")}]}
    (tmp_path / "a.jsonl").write_text(json.dumps(row) + "\n" + json.dumps(row | {"answer": float("nan")}) + "\n")
    good, bad = read(tmp_path / "a.jsonl")
    assert isinstance(good, Sample)
    assert good.answer == str(10**400)
    assert good.meta == {"more": [None, {"a": None}]}
    assert isinstance(bad, BadRow)


def test_json_that_is_too_deep_or_no_text(tmp_path: Path) -> None:
    deep = "[" * 900 + "]" * 900
    lines = [
        '{"question": "?", "answer": "!", "more": ' + deep + "}",
        '{"question": "?", "answer": "!", "more": ' + deep * 0 + "[" * 100_000 + "}",
        '{"question": "?", "answer": "!", "patient_id": "\\ud83d"}',
        '{"question": "?", "answer": "!", "\\ud83d": 1}',
        '{"question": "?", "answer": ' + "1" * 5000 + "}",
    ]
    (tmp_path / "a.jsonl").write_text('{"question": "?", "answer": "!"}\n' + "\n".join(lines))
    rows = list(read(tmp_path / "a.jsonl"))
    assert [isinstance(row, BadRow) for row in rows[2:]] == [True] * 4


@pytest.mark.parametrize("encoding", ["utf-8", "utf-16"])
def test_entities_of_xml_are_refused_in_any_encoding(tmp_path: Path, encoding: str) -> None:
    AREAS["readers/openi_xml"].make(tmp_path)
    declared = f'<?xml version="1.0" encoding="{encoding}"?><!DOCTYPE e [<!ENTITY a "aaaaaaaaaa">]>'
    text = (tmp_path / "2.xml").read_text().replace('<?xml version="1.0"?>', declared).replace("calm", "&a;" * 1000)
    (tmp_path / "2.xml").write_text(text, encoding=encoding)
    assert "found an entity declaration" in faults(tmp_path, format="openi_xml")


def test_xml_of_many_levels(tmp_path: Path) -> None:
    AREAS["readers/openi_xml"].make(tmp_path)
    (tmp_path / "2.xml").write_text("<eCitation>" + "<a>" * 200_000 + "</a>" * 200_000 + "</eCitation>")
    assert "expected" in faults(tmp_path, format="openi_xml")


@pytest.mark.parametrize("times", [["0", "-9223372036854775808"], ["0", "1e14"], ["0", "1e300"], ["1e308", "-1e308"]])
def test_times_of_a_light_curve_over_any_range(tmp_path: Path, times: list[str]) -> None:
    AREAS["readers/lightcurves"].make(tmp_path)
    lines = (tmp_path / "a.csv").read_text().splitlines()
    lines[2:4] = [f"{time},1.0" for time in times]
    (tmp_path / "a.csv").write_text("\n".join(lines))
    messages = faults(tmp_path, picture_dir=str(tmp_path / "drawn"))
    assert "which would take a periodogram of more than 5,000,000 frequencies" in messages


def test_fluxes_that_no_star_has(tmp_path: Path) -> None:
    """Their squares, and with them the spectrum, are no numbers."""
    AREAS["readers/lightcurves"].make(tmp_path)
    lines = (tmp_path / "a.csv").read_text().splitlines()
    fluxes = [1e-290 if index % 2 else 1e28 for index in range(len(lines) - 2)]
    fluxes[1:-1] = [1e-290] * (len(fluxes) - 2)
    lines[2:] = [f"{line.split(',')[0]},{flux}" for line, flux in zip(lines[2:], fluxes, strict=True)]
    (tmp_path / "a.csv").write_text("\n".join(lines))
    assert "expected fluxes of a star" in faults(tmp_path, picture_dir=str(tmp_path / "drawn"))


def test_a_spreadsheet_that_unpacks_to_anything_or_says_that_it_is_huge(tmp_path: Path) -> None:
    AREAS["readers/xlsx"].make(tmp_path)
    assert faults(tmp_path / "rows.xlsx") == ""
    with zipfile.ZipFile(tmp_path / "rows.xlsx") as archive:
        parts = {name: archive.read(name) for name in archive.namelist()}
    sheet = "xl/worksheets/sheet1.xml"
    for name, content in {
        "packed": parts[sheet] + b"<!-- " + bytes(100 << 20) + b" -->",
        "wide": re.sub(rb'ref="A1:D3"', b'ref="A1:XFD1048576"', parts[sheet]),
    }.items():
        with zipfile.ZipFile(tmp_path / f"{name}.xlsx", "w", zipfile.ZIP_DEFLATED) as archive:
            for name, part in (parts | {sheet: content}).items():
                archive.writestr(name, part)
    assert (tmp_path / "packed.xlsx").stat().st_size < 1_000_000
    assert "more than any spreadsheet of its size" in faults(tmp_path / "packed.xlsx")
    assert len(list(read(tmp_path / "wide.xlsx"))) == 2


@pytest.mark.parametrize("format", sorted(set(formats()) - {"hub"}))
@pytest.mark.parametrize("content", [b"", b"\n", b"\xef\xbb\xbf", b"\0" * 2000])
def test_a_file_with_nothing_in_it(tmp_path: Path, format: str, content: bytes) -> None:
    (tmp_path / "a.csv").write_bytes(content)
    messages = faults(tmp_path / "a.csv", format=format) or not list(read(tmp_path / "a.csv", format=format))
    assert messages


def test_packed_files_that_unpack_to_anything(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("vglm.data.readers.mimic_cxr._LARGEST_TABLE", 1 << 20)
    monkeypatch.setattr("vglm.data.astronomy.files._LARGEST_BYTES", 1 << 20)
    (tmp_path / "x").mkdir()
    AREAS["readers/mimic_cxr"].make(tmp_path / "x")
    packed = gzip.compress(b"dicom_id,ViewPosition\n" + b"a,b\n" * (1 << 19))
    (tmp_path / "x" / "mimic-cxr-2.0.0-metadata.csv.gz").write_bytes(packed)
    assert "has more than 1,048,576 characters" in faults(tmp_path / "x")
    (tmp_path / "y").mkdir()
    AREAS["readers/lightcurves"].make(tmp_path / "y")
    (tmp_path / "y" / "c.fits.gz").write_bytes(gzip.compress(bytes(2 << 20)))
    assert "at most 1,048,576 bytes" in faults(tmp_path / "y", picture_dir=str(tmp_path / "drawn"))


def test_a_line_without_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("vglm.files.lines_of.__kwdefaults__", {"longest": 1000, "error": DataError})
    (tmp_path / "a.jsonl").write_text('{"question": "?", "answer": "!"}\n{"question": "' + "x" * 2000)
    assert "has a line of more than 1,000 characters" in faults(tmp_path / "a.jsonl")


def shard(path: Path, *members: tuple[tarfile.TarInfo, bytes]) -> Path:
    with tarfile.open(path, "w") as tar:
        for member, content in members:
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))
    return path


def with_sum(header: bytes) -> bytes:
    blank = header[:148] + b" " * 8 + header[156:]
    return header[:148] + b"%06o\0 " % sum(blank) + header[156:]


def test_headers_of_a_tar_shard_that_kept_its_reader_for_ever(tmp_path: Path) -> None:
    good = [(tarfile.TarInfo("1.txt"), b"A cat."), (tarfile.TarInfo("2.txt"), b"A dog.")]
    content = bytearray(shard(tmp_path / "a.tar", *good).read_bytes())
    assert faults(tmp_path / "a.tar") == ""
    negative = bytes(content[1024:1148]) + b"\xff" * 11 + b"\x00" + bytes(content[1160:1536])
    content[1024:1536] = with_sum(negative)  # a size below zero
    (tmp_path / "b.tar").write_bytes(content)
    assert "expected an uncompressed tar file, found" in faults(tmp_path / "b.tar")

    header = tarfile.TarInfo("pax")
    header.type = tarfile.XHDTYPE
    endless = shard(tmp_path / "c.tar", (header, b"1" * 200_000), *good)
    assert "a header without end" in faults(endless, format="webdataset")
    assert "expected one of the known formats" in faults(endless)

    content = bytearray(shard(tmp_path / "d.tar", *good).read_bytes())
    content[1024] ^= 1  # the second header no longer has its sum
    (tmp_path / "d.tar").write_bytes(content)
    assert "a damaged header" in faults(tmp_path / "d.tar")
    cut = shard(tmp_path / "e.tar", *good, (tarfile.TarInfo("3.png"), b"x" * 3000)).read_bytes()[:3600]
    (tmp_path / "e.tar").write_bytes(cut)
    assert "whose bytes are not all there" in faults(tmp_path / "e.tar")


def test_a_picture_of_more_than_its_file(tmp_path: Path) -> None:
    Image.new("RGB", (2, 2)).save(tmp_path / "a.png")
    for offset, size in ((0, 2**60), (0, -5), (-3, 5), (2**62, 4), (0, 10_000)):
        with pytest.raises(DataError, match=re.escape(str(tmp_path / "a.png"))):
            open_image(ImageSlice(tmp_path / "a.png", offset, size))
