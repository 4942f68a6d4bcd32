"""Small good data sets, pictures and caches, and what reads each of them: `AREAS` by name."""

import base64
import csv
import gzip
import io
import json
import os
import random
import tarfile
import tempfile
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

WORDS = ("red", "green", "blue")


@dataclass(frozen=True)
class Area:
    """One kind of input.

    Attributes:
        make: Writes a good one to an empty folder.
        read: Reads one, in a way that a random generator chooses; a process of its own does.
        changes_input: Whether reading may change it.
        is_mutated: Whether its files are changed; otherwise `read` draws what is hostile.
        is_quick: Whether it has a part in the short run of the tests.
    """

    make: Callable[[Path], None]
    read: Callable[[Path, random.Random], None]
    changes_input: bool = False
    is_mutated: bool = True
    is_quick: bool = True


def settle(sandbox: Path) -> None:
    """Let a worker keep all that it writes below its sandbox, and be quiet."""
    sys_tmp = sandbox.parent / "tmp"
    sys_tmp.mkdir(exist_ok=True)
    tempfile.tempdir = str(sys_tmp)
    os.environ.update(
        VGLM_CACHE=str(sandbox / "cache"),
        HF_HOME=str(sandbox / "hf"),
        TORCHINDUCTOR_CACHE_DIR=str(sandbox / "torch"),
        TQDM_DISABLE="1",
        PYTHONDONTWRITEBYTECODE="1",
        HF_HUB_OFFLINE="1",
        WANDB_MODE="disabled",
    )
    warnings.simplefilter("ignore")
    quiet = os.open(os.devnull, os.O_WRONLY)
    for stream in (1, 2):
        os.dup2(quiet, stream)


# --- data sets --------------------------------------------------------------------------------------------------------


def _pictures(folder: Path, *names: str) -> None:
    for number, name in enumerate(names):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (4, 3), WORDS[number % 3]).save(folder / name)


def _picture(number: int = 0) -> bytes:
    stream = io.BytesIO()
    Image.new("RGB", (4, 3), WORDS[number % 3]).save(stream, "PNG")
    return stream.getvalue()


def _json(path: Path, value: Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(value, ensure_ascii=False), encoding="utf-8")


def _json_lines(path: Path, rows: Sequence[Any]) -> None:
    path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")


def _csv(path: Path, rows: Sequence[Sequence[Any]], delimiter: str = ",") -> None:
    with path.open("w", newline="", encoding="utf-8") as file:
        csv.writer(file, delimiter=delimiter).writerows(rows)


def _fewshot(folder: Path) -> None:
    _pictures(folder, "0.png", "1.png", "2.png")
    rows = [{"img": f"{index}.png", "prompt": "背景？", "label": WORDS[index], "kind": "colour"} for index in range(3)]
    _json(folder / "dataset.json", [*rows, {"img": None, "prompt": "?", "label": "!", "history": [["a", "b"]]}])


def _jsonl(folder: Path) -> None:
    _pictures(folder, "0.png", "1.png")
    rows = [
        {
            "image": f"{answer}.png",
            "question": "Which?",
            "answer": answer or "red",
            "patient_id": "p",
            "split": "train",
            "score": 0.5,
        }
        for answer in range(2)
    ]
    _json_lines(
        folder / "rows.jsonl", [*rows, {"question": "Which?", "answer": "b", "split": "test", "more": {"a": [1]}}]
    )


def _table(folder: Path) -> None:
    _pictures(folder, "0.png", "1.png")
    rows = [
        ["image", "question", "answer", "study", "split"],
        ["0.png", "a, b?", "1", "s1", "train"],
        ["1.png", "c", "d", "s2", "val"],
    ]
    _csv(folder / "rows.csv", rows)


def _mmbench(folder: Path) -> None:
    picture = base64.b64encode(_picture()).decode()
    head = ["index", "question", "hint", "A", "B", "C", "answer", "category", "image", "l2-category"]
    rows = [
        [241, "Which?", "", "a cat", "a dog", "", "B", "x", picture, "y"],
        [1000241, "Which?", "", "a dog", "a cat", "", "A", "x", 241, "y"],
    ]
    _csv(folder / "mmbench.tsv", [head, *rows], "\t")


def _llava(folder: Path) -> None:
    _pictures(folder, "0.png")
    turns = [{"from": "human", "value": "<image>\nWhat?"}, {"from": "gpt", "value": "A cat."}]
    _json(
        folder / "llava.json",
        [
            {"id": "1", "image": "0.png", "conversations": turns},
            {"id": "2", "conversations": turns[1:] * 0 + [{"from": "human", "value": "Hi"}, turns[1]]},
        ],
    )


def _messages(folder: Path) -> None:
    _pictures(folder, "0.png")
    parts = [{"type": "image"}, {"type": "text", "text": "What?"}]
    rows = [
        {
            "messages": [{"role": "user", "content": parts}, {"role": "assistant", "content": "A cat."}],
            "images": ["0.png"],
        },
        {
            "messages": [
                {"role": "system", "content": "Be kind."},
                {"role": "user", "content": "Hi"},
                {"role": "assistant", "content": "Ho"},
            ]
        },
    ]
    _json_lines(folder / "chat.jsonl", rows)


def _coco(folder: Path) -> None:
    _pictures(folder, "0.png", "1.png")
    images = [{"id": index, "file_name": f"{index}.png", "width": 4} for index in range(2)]
    _json(
        folder / "captions.json",
        {
            "images": images,
            "annotations": [{"id": 7 + index, "image_id": index, "caption": "A dog."} for index in range(2)],
        },
    )


def _vqa(folder: Path) -> None:
    _pictures(folder, "val2014/COCO_val2014_000000000042.jpg")
    question = {"image_id": 42, "question": "How many?", "question_id": 42000}
    _json(folder / "questions.json", {"data_type": "mscoco", "data_subtype": "val2014", "questions": [question]})
    answers = [{"answer": "2", "answer_confidence": "yes", "answer_id": index} for index in range(3)]
    annotation = {
        "question_id": 42000,
        "image_id": 42,
        "multiple_choice_answer": "2",
        "answers": answers,
        "answer_type": "number",
    }
    _json(folder / "annotations.json", {"data_subtype": "val2014", "annotations": [annotation]})


def _pope(folder: Path) -> None:
    _pictures(folder, "0.png")
    rows = [{"question_id": index, "image": "0.png", "text": "Is there a dog?", "label": "yes"} for index in range(2)]
    _json_lines(folder / "coco_pope_random.json", rows)


def _scienceqa(folder: Path) -> None:
    _pictures(folder, "images/train/1/image.png")
    problem = {
        "question": "Which?",
        "choices": ["a", "b"],
        "answer": 0,
        "hint": "",
        "image": "image.png",
        "grade": "grade2",
        "split": "train",
    }
    _json(folder / "problems.json", {"1": problem, "2": problem | {"image": None, "split": "test"}})
    _json(folder / "pid_splits.json", {"train": ["1"], "test": ["2"]})


def _mme(folder: Path) -> None:
    _pictures(folder, "color/1.jpg")
    (folder / "color" / "1.txt").write_text("Is it red?\tYes\nIs it blue?\tNo\n")


def _imagefolder(folder: Path) -> None:
    _pictures(folder, "train/0.png", "train/1.png", "test/2.png")
    _json_lines(
        folder / "train" / "metadata.jsonl",
        [{"file_name": "0.png", "text": "red"}, {"file_name": "1.png", "text": "green", "n": 1}],
    )
    _csv(folder / "test" / "metadata.csv", [["file_name", "text"], ["2.png", "blue"]])


def _webdataset(folder: Path) -> None:
    with tarfile.open(folder / "train-0.tar", "w", format=tarfile.PAX_FORMAT) as tar:
        for name, content in {
            "1.png": _picture(), "1.txt": b"Two cats.", "2.png": _picture(1),
            "2.json": json.dumps({"question": "How many?", "answer": "2", "patient": "p"}).encode(),
            "n" * 120 + ".png": _picture(2), "n" * 120 + ".txt": "名".encode(),
        }.items():  # fmt: skip
            member = tarfile.TarInfo(name)
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))


def _arrow_table() -> Any:
    import pyarrow as pa

    pictures = [{"bytes": _picture(colour), "path": f"{colour}.png"} for colour in range(3)]
    columns = {
        "image": pictures,
        "question": ["Which?"] * 3,
        "answer": list(WORDS),
        "score": [0.5, None, 1.0],
        "tags": [["a"], [], ["b", "c"]],
    }
    table = pa.table(columns)
    return table.append_column("sort", pa.array(["x", "y", "x"]).dictionary_encode()).append_column(
        "day", pa.array([0, 1, 2], pa.timestamp("us", "UTC"))
    )


def _arrow(compression: str | None = None, as_file: bool = True, with_pictures: bool = True) -> Callable[[Path], None]:
    def make(folder: Path) -> None:
        import pyarrow as pa

        table = _arrow_table() if with_pictures else _arrow_table().drop(["image"])
        new = pa.ipc.new_file if as_file else pa.ipc.new_stream
        options = pa.ipc.IpcWriteOptions(compression=compression)
        with pa.OSFile(str(folder / "d.arrow"), "wb") as sink, new(sink, table.schema, options=options) as writer:
            writer.write_table(table, max_chunksize=2)

    return make


def _saved(folder: Path) -> None:
    for split in ("train", "test"):
        (folder / split).mkdir()
        _arrow(as_file=False)(folder / split)
        _json(folder / split / "state.json", {"_data_files": [{"filename": "d.arrow"}], "_split": split})
    _json(folder / "dataset_dict.json", {"splits": ["train", "test"]})


def _parquet(folder: Path) -> None:
    import pyarrow.parquet as parquet

    parquet.write_table(_arrow_table(), folder / "d.parquet", compression="zstd")


def _xlsx(folder: Path) -> None:
    import openpyxl

    _pictures(folder, "0.png", "1.png")
    book = openpyxl.Workbook()
    for row in (["image", "question", "answer", "n"], ["0.png", "Which?", "red", 1.5], ["1.png", "Which?", 2, None]):
        book.active.append(row)
    book.save(folder / "rows.xlsx")


def _llama_factory(folder: Path) -> None:
    _pictures(folder, "0.png")
    tags = {"role_tag": "who", "content_tag": "text", "user_tag": "me", "assistant_tag": "it"}
    columns = {"messages": "said", "images": "photos"}
    _json(
        folder / "dataset_info.json",
        {"pets": {"file_name": "pets.json", "formatting": "sharegpt", "columns": columns, "tags": tags}},
    )
    turns = [{"who": "me", "text": "<image>Who?"}, {"who": "it", "text": "A cat."}]
    _json(folder / "pets.json", [{"said": turns, "photos": ["0.png"]}])


def _class_folders(folder: Path) -> None:
    _pictures(folder, "train/beach/0.jpg", "train/forest/1.jpg", "test/beach/2.jpg", "test/forest/3.jpg")


def _openi(folder: Path) -> None:
    for study in (1, 2):
        _pictures(folder, f"CXR{study}_1.png")
        (folder / f"{study}.xml").write_text(
            f'<?xml version="1.0"?><eCitation><uId id="CXR{study}"/>'
            '<AbstractText Label="FINDINGS">Clear &amp; calm.</AbstractText>'
            f'<AbstractText Label="IMPRESSION">Normal.</AbstractText><MeSH><major>normal</major></MeSH>'
            f'<parentImage id="CXR{study}_1"><caption>PA</caption></parentImage></eCitation>'
        )


def _r2gen(folder: Path) -> None:
    _pictures(folder, "images/1/0.png", "images/1/1.png", "images/2/0.png")
    row = {"id": "1", "report": "Clear.", "image_path": ["1/0.png", "1/1.png"], "split": "train"}
    _json(
        folder / "annotation.json",
        {"train": [row], "val": [], "test": [row | {"id": "2", "image_path": ["2/0.png"], "split": "test"}]},
    )


def _mimic(folder: Path) -> None:
    rows = [
        ["dicom_id", "study_id", "subject_id", "split"],
        ["d1", "50", "10000032", "train"],
        ["d2", "51", "10000033", "test"],
    ]
    for name, study, subject, _ in rows[1:]:
        picture_dir = folder / "files" / "p10" / f"p{subject}"
        _pictures(picture_dir, f"s{study}/{name}.jpg")
        (picture_dir / f"s{study}.txt").write_text(" FINDINGS: Clear.\n\n IMPRESSION: Normal.\n")
    _csv(folder / "mimic-cxr-2.0.0-split.csv", rows)
    views = "dicom_id,subject_id,study_id,ViewPosition\nd1,10000032,50,PA\nd2,10000033,51,LATERAL\n"
    (folder / "mimic-cxr-2.0.0-metadata.csv.gz").write_bytes(gzip.compress(views.encode()))


def _xrayglm(folder: Path) -> None:
    _pictures(folder, "1_1.png", "2_1.png")
    _json(
        folder / "openi-zh.json",
        {"annotations": [{"image_id": f"{subject}_1", "caption": "正常。"} for subject in (1, 2)]},
    )


def _lightcurves(folder: Path) -> None:
    from vglm.data.astronomy.files import write_csv, write_fits
    from vglm.data.astronomy.light_curve import LightCurve

    time = np.arange(60) * 0.1
    curve = LightCurve("KIC 1", time, 1 + 0.1 * np.sin(time * 9))
    write_csv(curve, folder / "a.csv")
    write_fits(curve, folder / "b.fits", telescope="kepler")
    (folder / "c.fits.gz").write_bytes(gzip.compress((folder / "b.fits").read_bytes()))
    rows = [
        [f"KIC {index}", name, "RRAB", 0.68, 0.9, "train"]
        for index, name in enumerate(("a.csv", "b.fits", "c.fits.gz"))
    ]
    _csv(folder / "labels.csv", [["star", "file", "type", "period", "amplitude", "split"], *rows])


def _read_data(format: str, file: str) -> Callable[[Path, random.Random], None]:
    def read_it(folder: Path, rng: random.Random) -> None:
        from vglm.data.division import ByGroup
        from vglm.data.loading import load_dataset
        from vglm.data.readers import read
        from vglm.data.sample import Sample

        path = folder / file if file else folder
        options: dict[str, Any] = {"cache_dir": str(folder.parent / "hf")} if format == "parquet" else {}
        match rng.choice(("named", "known", "splits", "doctor")):
            case "splits":
                halves = ByGroup({"train": 0.5, "test": 0.5})
                load_dataset(path, options=options, **rng.choice(({}, {"division": halves}, {"skip_missing": True})))
            case "doctor":
                from vglm.data.doctor import examine, print_diagnosis

                with examine(str(path), options=options, workers=1) as diagnosis:
                    print_diagnosis(diagnosis)
            case mode:
                for row in read(path, format=format if mode == "named" else None, **options):
                    if isinstance(row, Sample) and row.image is not None:
                        row.open_image()

    return read_it


# --- pictures ---------------------------------------------------------------------------------------------------------


def dicom(deflated: bool = False, rle: bool = False) -> bytes:
    """A grey picture of 4 x 3 pixels and 12 bits."""
    import pydicom
    from pydicom.dataset import FileDataset, FileMetaDataset
    from pydicom.uid import DeflatedExplicitVRLittleEndian, ExplicitVRLittleEndian, RLELossless

    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID = meta.MediaStorageSOPInstanceUID = "1.2.3"
    meta.TransferSyntaxUID = DeflatedExplicitVRLittleEndian if deflated else ExplicitVRLittleEndian
    picture = FileDataset("", {}, file_meta=meta, preamble=b"\0" * 128)
    picture.Rows, picture.Columns, picture.SamplesPerPixel, picture.PhotometricInterpretation = 3, 4, 1, "MONOCHROME2"
    picture.BitsAllocated, picture.BitsStored, picture.HighBit, picture.PixelRepresentation = 16, 12, 11, 0
    picture.WindowCenter, picture.WindowWidth, picture.RescaleSlope, picture.RescaleIntercept = (
        [2048, 1],
        [4096, 1],
        1,
        0,
    )
    picture.SOPClassUID = picture.SOPInstanceUID = "1.2.3"
    picture.PixelData = np.arange(12, dtype="<u2").tobytes()
    if rle:
        picture.compress(RLELossless)
    stream = io.BytesIO()
    pydicom.dcmwrite(stream, picture, enforce_file_format=True)
    return stream.getvalue()


def _image(format: str, mode: str = "RGB", **options: Any) -> Callable[[Path], None]:
    def make(folder: Path) -> None:
        if format == "dicom":
            (folder / "p").write_bytes(dicom(**options))
            return
        noise = np.random.default_rng(0).integers(0, 256, (9, 8, 4), dtype=np.uint8)
        picture = Image.fromarray(noise, "RGBA").convert("L" if mode == "I;16" else mode)
        if mode == "I;16":
            picture = Image.fromarray(np.asarray(picture).astype(np.uint16) * 257)
        picture.save(folder / "p", format, **options)

    return make


def _read_image(folder: Path, rng: random.Random) -> None:
    from vglm.data.dicom import is_dicom
    from vglm.data.images import check_image_header, image_sha256, open_image, read_image_header
    from vglm.data.problems import BadRow
    from vglm.data.readers import add_window
    from vglm.data.sample import Sample, Turn
    from vglm.data.slices import ImageSlice
    from vglm.data.windowing import RULES
    from vglm.errors import DataError

    path = folder / "p"
    size = path.stat().st_size if path.is_file() else 10
    image = rng.choice((path, ImageSlice(path, 0, size), ImageSlice(path, 0, size + rng.choice((0, 1, 2**40)))))
    match rng.choice(("window", "open", "hash", "header")):
        case "window":
            row = add_window(Sample("a#1", "g", image, (Turn("?", "!"),)), rng.choice(RULES))
            if isinstance(row, BadRow):
                raise DataError(row.fault)
            if row.window is not None:
                json.dumps(row.window.record(), allow_nan=False)
            row.open_image()
        case "open":
            assert open_image(image).mode == "RGB"
        case "hash":
            image_sha256(image)
        case "header":
            check_image_header(image)
            if not is_dicom(image):
                read_image_header(image)


# --- caches -----------------------------------------------------------------------------------------------------------

_ENCODER = {"name": "mean", "weights_sha256": "0" * 64, "dtypes": ["float32"], "device": "cpu"}


def _feature_cache(folder: Path, encode: Any) -> Any:
    from vglm.data.feature_cache import FeatureCache

    return FeatureCache(folder / "features", _ENCODER, (2, 3), encode, batch_size=2)


def _samples(folder: Path) -> list[Any]:
    from vglm.data.sample import Sample, Turn

    return [Sample(f"a#{index}", "g", folder / f"{index}.png", (Turn("?", "!"),)) for index in range(5)]


def _encode(pictures: Any) -> Any:
    import torch

    return torch.stack([torch.full((2, 3), float(picture.getpixel((0, 0))[0])) for picture in pictures])


def _pictures_to_encode(folder: Path) -> None:
    for shade in range(5):
        Image.new("RGB", (3, 4), (shade, 0, 0)).save(folder / f"{shade}.png")


def _damaged_features(folder: Path, rng: random.Random) -> None:
    """Whatever became of a cache's files, it is filled again and found again."""
    import vglm.data.feature_cache
    from vglm.cli import main

    from .mutations import mutate_folder

    vglm.data.feature_cache._SETTLED_SECONDS = -1.0  # as if the pictures had been there for long
    cache = folder.parent / "cache"
    os.environ["VGLM_CACHE"] = str(cache)
    _feature_cache(cache, _encode).fill(_samples(folder))
    mutate_folder(rng, cache)
    features = _feature_cache(cache, _encode)
    features.fill(_samples(folder))
    for sample in _samples(folder):
        assert tuple(features[sample].shape) == (2, 3)
    main(["cache"])
    if rng.random() < 0.2:
        main(["cache", "--clear"])


def _tables(folder: Path) -> None:
    _jsonl(folder)
    rows = [{"question": f"{index}?", "answer": "a", "n": index} for index in range(2100)]
    _json_lines(folder / "rows.jsonl", rows)


def _read_tables(folder: Path, rng: random.Random) -> None:
    """A damaged table is made again, and what is read is what was written."""
    from vglm.data.loading import load_dataset

    os.environ["VGLM_CACHE"] = str(folder / "cache")
    rows = load_dataset(folder / "rows.jsonl").train
    assert len(rows) == len([*rows])


def _mutated_table(folder: Path, rng: random.Random) -> None:
    from .mutations import mutate_bytes, mutate_in_place

    _read_tables(folder, rng)
    (stored,) = (folder / "cache" / "tables").glob("*.arrow")
    if rng.random() < 0.2:
        mutate_in_place(rng, stored)
    else:
        stored.write_bytes(mutate_bytes(rng, stored.read_bytes())[0])
    _read_tables(folder, rng)
    from vglm.data.table import SampleTable

    for table in (folder / "cache" / "tables").glob("*.arrow"):
        if table.is_file():
            assert [sample.meta["n"] for sample in SampleTable(table)] == list(range(2100))


# --- the fuzzer itself ------------------------------------------------------------------------------------------------


def _misbehave(folder: Path, rng: random.Random) -> None:
    """Go wrong as the input says, to see that it is noticed."""
    from vglm.errors import DataError

    wrong = (folder / "wrong.txt").read_text()
    if wrong == "refuse":
        raise DataError("a message" * 1000)
    if wrong == "raise":
        raise ZeroDivisionError
    if wrong == "say nothing":
        raise DataError("")
    if wrong == "crash":
        os.kill(os.getpid(), 11)
    if wrong == "write outside":
        (folder.parents[1] / "elsewhere").write_text("x")
    if wrong == "start a process":
        os.system("true")
    if wrong == "execute":
        exec(compile("x = 1", str(folder / "code.py"), "exec"))
    if wrong == "leave":
        (folder.parent / ".x.partial").write_text("x")
    if wrong == "change":
        (folder / "wrong.txt").write_text("other")
    if wrong == "grow":
        np.ones(1700 << 17).sum()


AREAS: dict[str, Area] = {
    "self": Area(lambda folder: (folder / "wrong.txt").write_text("nothing") and None, _misbehave, is_quick=False),
}
AREAS |= {
    f"readers/{format}": Area(make, _read_data(format.partition("-")[0], file))
    for format, (make, file) in {
        "fewshot": (_fewshot, "dataset.json"),
        "jsonl": (_jsonl, "rows.jsonl"),
        "csv": (_table, "rows.csv"),
        "mmbench": (_mmbench, "mmbench.tsv"),
        "llava": (_llava, "llava.json"),
        "messages": (_messages, "chat.jsonl"),
        "coco_captions": (_coco, "captions.json"),
        "vqa_v2": (_vqa, "questions.json"),
        "pope": (_pope, "coco_pope_random.json"),
        "scienceqa": (_scienceqa, ""),
        "mme": (_mme, ""),
        "imagefolder": (_imagefolder, ""),
        "webdataset": (_webdataset, "train-0.tar"),
        "arrow": (_arrow(), "d.arrow"),
        "arrow-stream": (_arrow(as_file=False), "d.arrow"),
        "arrow-packed": (_arrow("zstd", with_pictures=False), "d.arrow"),
        "arrow-saved": (_saved, ""),
        "parquet": (_parquet, "d.parquet"),
        "xlsx": (_xlsx, "rows.xlsx"),
        "llama_factory": (_llama_factory, "pets.json"),
        "class_folders": (_class_folders, ""),
        "openi_xml": (_openi, ""),
        "r2gen": (_r2gen, "annotation.json"),
        "mimic_cxr": (_mimic, ""),
        "xrayglm": (_xrayglm, "openi-zh.json"),
        "lightcurves": (_lightcurves, ""),
    }.items()
}
AREAS |= {
    f"images/{name}": Area(make, _read_image)
    for name, make in {
        "png": _image("PNG"),
        "palette": _image("PNG", "P"),
        "deep": _image("PNG", "I;16"),
        "jpeg": _image("JPEG"),
        "gif": _image("GIF", "P"),
        "tiff": _image("TIFF", compression="tiff_lzw"),
        "tiff-deep": _image("TIFF", "I;16"),
        "webp": _image("WEBP"),
        "bmp": _image("BMP"),
        "ppm": _image("PPM"),
        "jpeg2000": _image("JPEG2000"),
        "dicom": _image("dicom"),
        "dicom-deflated": _image("dicom", deflated=True),
        "dicom-rle": _image("dicom", rle=True),
    }.items()
}
AREAS |= {
    "caches/features": Area(_pictures_to_encode, _damaged_features, is_mutated=False),
    "caches/tables": Area(_tables, _mutated_table, changes_input=True, is_mutated=False, is_quick=False),
}
