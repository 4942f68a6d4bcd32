import gzip
import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from vglm.data.problems import BadRow
from vglm.data.readers import read, read_samples, recognise
from vglm.data.windowing import Window
from vglm.errors import ConfigError, DataError

REPORT = "The heart is normal in size. The lungs are clear."
XML = """<?xml version="1.0" encoding="utf-8"?>
<eCitation>
  <meta type="rr"/>
  <uId id="CXR{number}"/>
  <MedlineCitation><Article><Abstract>
    <AbstractText Label="COMPARISON">None.</AbstractText>
    <AbstractText Label="INDICATION"/>
    <AbstractText Label="FINDINGS">{findings}</AbstractText>
    <AbstractText Label="IMPRESSION">Normal chest x-XXXX.</AbstractText>
  </Abstract></Article></MedlineCitation>
  <MeSH><major>normal</major></MeSH>
  {images}
</eCitation>
"""


def write_image(path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("L", (4, 4), 99).save(path)


# --- R2Gen ------------------------------------------------------------------------------------------------------------


@pytest.fixture
def r2gen(tmp_path: Path) -> Path:
    rows = {
        "train": [
            {"id": "CXR1_1", "report": REPORT, "image_path": ["CXR1_1/0.png", "CXR1_1/1.png"], "split": "train"},
            {
                "id": "02aa",
                "study_id": 50414267,
                "subject_id": 10000032,
                "report": "心影不大。",
                "image_path": ["m.jpg"],
            },
        ],
        "val": [{"id": "CXR2_1", "report": REPORT, "image_path": "CXR1_1/0.png", "split": "val"}],
        "test": [],
    }
    for name in ("CXR1_1/0.png", "CXR1_1/1.png", "m.jpg"):
        write_image(tmp_path / "images" / name)
    (tmp_path / "annotation.json").write_text(json.dumps(rows))
    return tmp_path / "annotation.json"


def test_r2gen_gives_each_picture_with_its_split_and_group(r2gen):
    assert recognise(r2gen).NAME == "r2gen"
    samples = list(read_samples(r2gen))
    assert [sample.id for sample in samples] == [
        "annotation.json#train:1.1",
        "annotation.json#train:1.2",
        "annotation.json#train:2",
        "annotation.json#val:1",
    ]
    assert [sample.group for sample in samples] == ["CXR1_1", "CXR1_1", "10000032", "CXR2_1"]
    assert [sample.meta["split"] for sample in samples] == ["train", "train", "train", "validation"]
    assert samples[2].meta["study"] == "50414267"
    assert samples[1].image == r2gen.parent / "images/CXR1_1/1.png"
    assert (samples[0].answer, samples[0].language, samples[2].language) == (REPORT, "en", "zh")
    assert samples[2].question == "通过这张胸部X光影像可以诊断出什么？"


def test_r2gen_takes_the_first_picture_or_refuses_several(r2gen):
    assert next(sample.id for sample in read_samples(r2gen, several_images="first")) == "annotation.json#train:1"
    assert len(list(read_samples(r2gen, several_images="first"))) == 3
    with pytest.raises(DataError, match="train:1: expected one image"):
        list(read_samples(r2gen, several_images="refuse"))
    with pytest.raises(ConfigError, match="several_images must be one of"):
        list(read_samples(r2gen, several_images="all"))


def test_r2gen_collects_all_bad_rows(tmp_path):
    rows = {
        "train": [
            "a row",
            {"id": "1", "report": "", "image_path": ["a.png"]},
            {"id": "2", "report": REPORT, "image_path": []},
            {"id": "3", "report": REPORT, "image_path": ["gone.png"]},
            {"id": "4", "report": REPORT, "image_path": ["../../secret.png"]},
            {"id": "5", "report": REPORT, "image_path": ["a.png"], "split": "test"},
        ]
    }
    write_image(tmp_path / "a.png")
    path = tmp_path / "annotation.json"
    path.write_text(json.dumps(rows))
    results = list(read(path, format="r2gen"))
    assert all(isinstance(row, BadRow) for row in results)
    assert [row.row for row in results] == [f"train:{number}" for number in range(1, 7)]
    assert [row.is_missing_image for row in results] == [False, False, False, True, False, False]
    for fault, part in zip(
        [row.fault for row in results],
        ["found a text", "an empty text", "'image_path'", "no such file", "leaves it", "'split' 'train' as the list"],
        strict=True,
    ):
        assert part in fault
        assert "fix:" in fault
    path.write_text('{"train": [], "extra": []}')
    with pytest.raises(DataError, match="expected train, val and test"):
        list(read(path, format="r2gen"))


def test_deep_pictures_get_a_window_in_x_ray_formats_and_on_request_in_others(tmp_path):
    Image.fromarray(np.arange(0, 4096, 16, dtype=np.uint16).reshape(16, 16)).save(tmp_path / "a.png")
    row = {"report": REPORT, "caption": REPORT, "image_id": "a", "image_path": ["a.png"]}
    (tmp_path / "annotation.json").write_text(json.dumps({"train": [row]}))
    (tmp_path / "openi.json").write_text(json.dumps({"annotations": [row]}))
    (tmp_path / "seed.json").write_text(json.dumps([{"img": "a.png", "prompt": "?", "label": REPORT}]))
    for name in ("annotation.json", "openi.json"):
        (sample,) = read_samples(tmp_path / name)
        assert sample.window.rule == "percentiles"
        (sample,) = read_samples(tmp_path / name, window="2048/4096")
        assert sample.window == Window("given", 2048.0, 4096.0)
    (sample,) = read_samples(tmp_path / "seed.json")
    assert sample.window is None
    (sample,) = read_samples(tmp_path / "seed.json", window="percentiles")
    assert sample.window.rule == "percentiles"
    with pytest.raises(ConfigError, match=r"dataset\.options\.window must be one of"):
        list(read_samples(tmp_path / "seed.json", window="bright"))
    with pytest.raises(DataError, match=r"(?s)1 of 1 rows.*names no window"):
        list(read_samples(tmp_path / "seed.json", window="file"))


# --- OpenI XML --------------------------------------------------------------------------------------------------------


def write_xml(folder: Path, number: int, images: tuple[str, ...], findings: str = REPORT) -> None:
    parents = "".join(
        f'<parentImage id="{name}"><caption>Xray Chest PA and Lateral</caption></parentImage>' for name in images
    )
    (folder / f"{number}.xml").write_text(XML.format(number=number, images=parents, findings=findings))


def test_openi_xml_reads_a_folder_in_order(tmp_path):
    for number in (10, 2):
        names = (f"CXR{number}_1_IM-0001-3001", f"CXR{number}_1_IM-0001-4001")
        write_xml(tmp_path, number, names)
        for name in names:
            write_image(tmp_path / "png" / f"{name}.png")
    assert recognise(tmp_path).NAME == "openi_xml"
    assert recognise(tmp_path / "2.xml").NAME == "openi_xml"
    samples = list(read_samples(tmp_path, image_dir=tmp_path / "png", name="openi"))
    assert [sample.id for sample in samples] == [
        "openi#2.xml.1",
        "openi#2.xml.2",
        "openi#10.xml.1",
        "openi#10.xml.2",
    ]
    assert {sample.group for sample in samples} == {"CXR2", "CXR10"}
    assert samples[0].answer == f"{REPORT} Normal chest x-XXXX."
    assert samples[0].meta == {"study": "CXR2", "caption": "Xray Chest PA and Lateral", "mesh": ["normal"]}
    impression = read_samples(tmp_path, image_dir=tmp_path / "png", sections=["impression"], several_images="first")
    assert [sample.answer for sample in impression] == ["Normal chest x-XXXX."] * 2


def test_openi_xml_reports_what_is_wrong_with_each_file(tmp_path):
    write_xml(tmp_path, 1, ("gone",))
    write_xml(tmp_path, 2, ())
    (tmp_path / "3.xml").write_text("<eCitation><uId id='CXR3'/>")
    (tmp_path / "4.xml").write_text("<other/>")
    (tmp_path / "5.xml").write_text('<!DOCTYPE x [<!ENTITY a "aaaa">]><eCitation>&a;</eCitation>')
    (tmp_path / "6.xml").write_text("<eCitation><AbstractText Label='FINDINGS'> </AbstractText></eCitation>")
    rows = list(read(tmp_path, format="openi_xml"))
    assert [(row.row, row.is_missing_image) for row in rows] == [
        ("1.xml", True),
        ("2.xml", True),
        ("3.xml", False),
        ("4.xml", False),
        ("5.xml", False),
        ("6.xml", False),
    ]
    for row, part in zip(
        rows, ["no such file", "without pictures", "XML", "<other>", "entity", "no section with text"], strict=True
    ):
        assert part in row.fault
    with pytest.raises(DataError, match="6 of 6 rows cannot be used"):
        list(read_samples(tmp_path, format="openi_xml"))


# --- MIMIC-CXR-JPG ----------------------------------------------------------------------------------------------------

RECORDS = (("aa-1", "501", "10000032", "train", "PA"), ("aa-2", "501", "10000032", "train", "LATERAL"))
RECORDS += (("bb-1", "502", "11000011", "validate", "AP"), ("cc-1", "503", "12000000", "test", "PA"))
TEXT = """                                 FINAL REPORT
 EXAMINATION:  CHEST (PA AND LAT)

 INDICATION:  Cough.

 FINDINGS:
 There is no focal consolidation,
 pleural effusion or pneumothorax.

 IMPRESSION:
 No acute process.
"""


@pytest.fixture
def mimic(tmp_path: Path) -> Path:
    with gzip.open(tmp_path / "mimic-cxr-2.0.0-split.csv.gz", "wt") as file:
        file.write("dicom_id,study_id,subject_id,split\n")
        file.writelines(",".join(record[:4]) + "\n" for record in RECORDS)
    metadata = "dicom_id,subject_id,study_id,PerformedProcedureStepDescription,ViewPosition\n"
    metadata += "".join(f"{r[0]},{r[2]},{r[1]},CHEST,{r[4]}\n" for r in RECORDS)
    (tmp_path / "mimic-cxr-2.0.0-metadata.csv").write_text(metadata)
    for dicom, study, subject, _, _ in RECORDS:
        folder = tmp_path / f"files/p{subject[:2]}/p{subject}"
        write_image(folder / f"s{study}/{dicom}.jpg")
        (folder / f"s{study}.txt").write_text(TEXT)
    return tmp_path


def test_mimic_cxr_joins_split_view_and_report(mimic):
    assert recognise(mimic).NAME == "mimic_cxr"
    assert recognise(mimic / "mimic-cxr-2.0.0-split.csv.gz").NAME == "mimic_cxr"
    samples = list(read_samples(mimic, name="mimic"))
    assert [sample.id for sample in samples] == ["mimic#2", "mimic#3", "mimic#4", "mimic#5"]
    assert [sample.meta["split"] for sample in samples] == ["train", "train", "validation", "test"]
    assert [sample.meta["view"] for sample in samples] == ["PA", "LATERAL", "AP", "PA"]
    assert [sample.group for sample in samples] == ["p10000032", "p10000032", "p11000011", "p12000000"]
    assert samples[0].answer == ("There is no focal consolidation, pleural effusion or pneumothorax. No acute process.")
    assert samples[0].image == mimic / "files/p10/p10000032/s501/aa-1.jpg"


def test_mimic_cxr_picks_views_first_pictures_and_sections(mimic):
    assert [sample.meta["view"] for sample in read_samples(mimic, views=["PA", "AP"])] == ["PA", "AP", "PA"]
    assert len(list(read_samples(mimic, several_images="first"))) == 3
    assert next(iter(read_samples(mimic, sections=["IMPRESSION"]))).answer == "No acute process."
    assert next(iter(read_samples(mimic, sections=["CONCLUSION"]))).answer == "No acute process."
    assert next(iter(read_samples(mimic, sections=["INDICATION"]))).answer == "Cough."


# Made up, in the forms that MIT-LCP's section_parser.py tells apart, and in small letters.
REPORTS = {
    "one heading for both": (
        " FINAL REPORT\n EXAMINATION:  CHEST\n \n INDICATION:  Eval for pneumonia.\n \n"
        " FINDINGS AND IMPRESSION: \n \n Small effusion.\n  No edema.\n",
        "Small effusion. No edema.",
    ),
    "a slash": (" INDICATION:  Fever.\n\n FINDINGS/IMPRESSION:  Clear.\n", "Clear."),
    "a conclusion": (
        " FINDINGS:  Clear.\n\n CONCLUSION:  Normal.\n\n NOTIFICATION:  Dr. X at 9:12 AM.\n",
        "Clear. Normal.",
    ),
    "small letters": (" History:  Cough.\n\n Findings:  Clear.\n\n Impression:  Normal.\n", "Clear. Normal."),
    "misspelt": (" IMPRESSOIN:  Normal.\n\n COMPARISION:  None.\n", "Normal."),
    "a view": (" HISTORY: Cough.\n\n CHEST, TWO VIEWS:  Clear.\n\n TECHNIQUE:  Two views.\n", "Clear."),
    "no heading for it": (
        " WET READ: ___ 9:12 PM\n  Normal.\n FINAL REPORT\n REASON FOR EXAM:  Cough.\n \n AP view.\n \n Edema.\n",
        "AP view. Edema.",
    ),
    "no heading": ("                 FINAL REPORT\n CHEST\n \n Clear lungs.\n", "Clear lungs."),
    "twice": (" FINDINGS:  First.\n\n IMPRESSION:  Old.\n\n IMPRESSION:  New.\n\n ADDENDUM:  Later.\n", "First. New."),
    "colons within": (
        " FINDINGS:\n\n 1. ET TUBE: 3 cm above. NOTE: rotated.\n At 9:12 AM: seen.\n\n IMPRESSION: \n\n",
        "1. ET TUBE: 3 cm above. NOTE: rotated. At 9:12 AM: seen.",
    ),
    "an empty one": (" FINDINGS: \n\n IMPRESSION:  Normal.\n", "Normal."),
}


@pytest.mark.parametrize(("report", "answer"), REPORTS.values(), ids=REPORTS)
def test_mimic_cxr_reports_are_divided_as_section_parser_does(mimic, report, answer):
    (mimic / "files/p10/p10000032/s501.txt").write_text(report)
    assert next(iter(read_samples(mimic))).answer == answer


def test_a_report_without_the_sections_is_refused_or_left_out(mimic, caplog):
    (mimic / "files/p10/p10000032/s501.txt").write_text(" FINAL REPORT\n INDICATION:  Cough.\n")
    message = r":2: expected a section FINDINGS or IMPRESSION, found s501\.txt with preamble, indication; fix:"
    with pytest.raises(DataError, match=message):
        list(read_samples(mimic))
    assert len(list(read_samples(mimic, skip_reports=True))) == 2
    assert "left out 2 rows, whose report has no FINDINGS or IMPRESSION" in caplog.text


def test_mimic_cxr_collects_bad_lines(mimic):
    with gzip.open(mimic / "mimic-cxr-2.0.0-split.csv.gz", "at") as file:
        file.write("dd-1,504,13000000,train\nee,505,../14,train\nff,501,10000032,unknown\ngg,501\n")
    (mimic / "files/p10/p10000032/s501/aa-1.jpg").unlink()
    bad = [row for row in read(mimic) if isinstance(row, BadRow)]
    assert [(row.row, row.is_missing_image) for row in bad] == [
        (2, True),
        (6, False),
        (7, False),
        (8, False),
        (9, False),
    ]
    for row, part in zip(bad, ["no such file", "reports_dir", "'subject_id'", "'split'", "4 columns"], strict=True):
        assert part in row.fault
    metadata = mimic / "mimic-cxr-2.0.0-metadata.csv"
    lines = metadata.read_text().splitlines()
    metadata.write_text("\n".join([*lines, lines[1].rpartition(",")[0] + ",LL"]))
    with pytest.raises(DataError, match=r"expected one row with dicom_id .*, found the views .* and LL"):
        list(read_samples(mimic))
    metadata.unlink()
    with pytest.raises(DataError, match="views needs"):
        list(read_samples(mimic, views=["PA"]))
    with gzip.open(mimic / "mimic-cxr-2.0.0-split.csv.gz", "wt") as file:
        file.write("dicom_id,split\n")
    with pytest.raises(DataError, match="expected the columns dicom_id, study_id, subject_id, split"):
        list(read(mimic, format="mimic_cxr"))


def test_no_format_takes_anothers_files(r2gen, tmp_path):
    (tmp_path / "rows.csv").write_text("image,text\na.png,hello\n")
    (tmp_path / "page.xml").write_text("<html/>")
    for name in ("rows.csv", "page.xml", "images"):
        from vglm.data.readers import formats

        for reader in ("r2gen", "openi_xml", "mimic_cxr"):
            assert not formats()[reader].recognises(tmp_path / name)
