"""Find the patient, study or picture of a row: one form of ids for every format, and the column names in use for them.

    ids_in({"PatientID": 7.0, "study_id": " s1", "note": "x"})    Id(1, "PatientID", "7"), Id(20, "study_id", "s1")
    folder_ids("/data/patient00007/study2/view1.png")      Id(19, "the pictures' names", "patient00007"), ...

7, 7.0, "7" and " 7" are one id; not-a-number, null, true and empty texts are not ids.
"""

import math
import os
import re
import unicodedata
from collections.abc import Mapping
from functools import lru_cache
from typing import Any, NamedTuple

# The widest come first: pictures of one patient belong together even if they are of several studies. Without case,
# blanks, - and _, as CheXpert (Plus), MIMIC, NIH, PadChest, RSNA, OpenI and DICOM's headers spell them, among others.
_GROUPS = ("group",)
_PATIENTS = (
    *("patientid", "subjectid", "patient", "patientnumber", "patientno", "patientuid", "patientidentifier", "mrn"),
    *("deidpatientid", "anonpatientid", "anonymizedpatientid", "participantid", "personid", "患者id", "病人id"),
    *("患者编号", "病人编号", "患者", "病人", "病历号"),
)
_PATIENT_FOLDER = "patient folder"
_STUDIES = (
    *("studyid", "study", "studyinstanceuid", "studyuid", "accessionnumber", "accession", "examid", "caseid", "uid"),
    *("检查号", "检查id", "就诊号", "住院号"),
)
_STUDY_FOLDER = "study folder"
_PICTURES = ("imageid",)
_ORDER = {
    name: rank
    for rank, name in enumerate((*_GROUPS, *_PATIENTS, _PATIENT_FOLDER, *_STUDIES, _STUDY_FOLDER, *_PICTURES))
}
_STUDY, _PICTURE = _ORDER[_STUDIES[0]], _ORDER[_PICTURES[0]]
_IN_NAMES = "the pictures' names"

_NOTHING = frozenset(("", "nan", "none", "null", "<na>", "n/a", "nat"))
_WHOLE_NUMBER = re.compile(r"([+-]?\d+)\.0*")
_PATIENT_PART = re.compile(
    r"(?:patient|person|subject|participant|pat|case)[-_ ]?\d\w*|sub-\w*\d\w*|p\d{8}|(?:患者|病人)\w*\d\w*",
    re.IGNORECASE,
)
_STUDY_PART = re.compile(r"(?:study|exam|visit|session|ses|accession)[-_ ]?\d\w*|s\d{8}", re.IGNORECASE)
_PATIENT_FILE = re.compile(r"((?:patient|person|subject|participant)[-_ ]?\d+)(?=[-_. ])", re.IGNORECASE)


class Id(NamedTuple):
    """One thing that a row is of.

    Attributes:
        rank: Which kind of id it is; the lower, the more rows it holds together.
        source: Where it stands, as a text for users.
        name: The id itself, in the form of `group_name`.
    """

    rank: int
    source: str
    name: str

    @property
    def scope(self) -> int:
        """0 for a group or a patient, 1 for a study, 2 for a picture."""
        return (self.rank >= _STUDY) + (self.rank >= _PICTURE)


def group_name(value: Any) -> str | None:
    """The one form of an id, whatever a format or a program made of it; None where there is none.

    Args:
        value: A cell, a key's value, or a part of a file's name.
    """
    if value is None or isinstance(value, bool):
        return None
    if isinstance(value, int):
        return str(value)
    if isinstance(value, float):
        return None if not math.isfinite(value) else str(int(value)) if value.is_integer() else str(value)
    if not isinstance(value, str):
        return None
    text = value
    if not text.isalnum() or not text.isascii():
        text = " ".join(unicodedata.normalize("NFKC", value.strip("\ufeff\u200b")).split())
        if (number := _WHOLE_NUMBER.fullmatch(text)) is not None:
            text = number[1]
    return None if text.lower() in _NOTHING else text


def ids_in(row: Mapping[str, Any]) -> tuple[Id, ...]:
    """What a row itself says about belonging together, under the usual names, the widest first."""
    columns = _placed_columns(tuple(row))
    if not columns:
        return ()
    return tuple(Id(rank, key, name) for rank, key in columns if (name := group_name(row[key])) is not None)


def id_columns(keys: tuple[str, ...]) -> list[str]:
    """Which of a row's keys hold ids, the widest first."""
    return [key for _, key in _placed_columns(keys)]


@lru_cache(1024)  # most rows of a file have the same keys
def _placed_columns(keys: tuple[str, ...]) -> tuple[tuple[int, str], ...]:
    plain = ((re.sub(r"[\s_\-.]+", "", key).casefold(), key) for key in keys if isinstance(key, str))
    return tuple(sorted((_ORDER[name], key) for name, key in plain if name in _ORDER))


def folder_ids(picture: str, root: str = "") -> tuple[Id, ...]:
    """The patient and the study that a picture's folders, or the beginning of its name, show.

    Args:
        picture: Its path.
        root: The folder that all pictures are below, which is left out.
    """
    folder, _, name = picture.rpartition("/")
    patient, study = _of_folder(folder, root)
    if patient is None and (match := _PATIENT_FILE.match(name)) is not None:
        patient = match[1]
    named = ((_PATIENT_FOLDER, patient), (_STUDY_FOLDER, study))
    return tuple(Id(_ORDER[kind], _IN_NAMES, name) for kind, name in named if name is not None)


@lru_cache(4096)
def _of_folder(folder: str, root: str) -> tuple[str | None, str | None]:
    parts = [part for part in (os.path.relpath(folder, root) if root else folder).split("/") if part not in ("", ".")]
    patient = next((part for part in parts if _PATIENT_PART.fullmatch(part)), None)
    index = next((index for index, part in enumerate(parts) if _STUDY_PART.fullmatch(part)), None)
    return patient, None if index is None else "/".join(parts[: index + 1])
