"""Read the report XML of OpenI's Indiana University chest X-rays, one file a study.

    <eCitation>
      <uId id="CXR1"/>
      <MedlineCitation><Article><Abstract>
        <AbstractText Label="COMPARISON">None.</AbstractText>
        <AbstractText Label="INDICATION">Positive TB test</AbstractText>
        <AbstractText Label="FINDINGS">The cardiac silhouette and mediastinum size are within ...</AbstractText>
        <AbstractText Label="IMPRESSION">Normal chest x-XXXX.</AbstractText>
      </Abstract></Article></MedlineCitation>
      <MeSH><major>normal</major></MeSH>
      <parentImage id="CXR1_1_IM-0001-3001"><caption>Xray Chest PA and Lateral</caption></parentImage>
      <parentImage id="CXR1_1_IM-0001-4001"><caption>Xray Chest PA and Lateral</caption></parentImage>
    </eCitation>

The path is a folder of such files (`ecgen-radiology/1.xml`, ...) or one of them. A picture is `<parentImage id>` with
the suffix of a picture, under `image_dir` or beside the file. The study is the group. XXXX replaces text that was
removed from the report to protect the patient's identity.

Source: the collection's files, https://openi.nlm.nih.gov/faq (Demner-Fushman et al. 2016,
https://doi.org/10.1093/jamia/ocv080).
"""

import re
import xml.etree.ElementTree as ElementTree
from collections.abc import Iterator, Sequence
from pathlib import Path
from xml.parsers import expat

from vglm.data.problems import BadRow
from vglm.data.readers.rows import (
    IMAGE_SUFFIXES,
    ImageFolders,
    RowCheck,
    SeveralImages,
    check_choice,
    fault,
    refuse_several,
    spread_images,
)
from vglm.data.readers.xrayglm import ENGLISH_QUESTION
from vglm.data.sample import Sample, Turn
from vglm.errors import DataError
from vglm.files import read_bytes

NAME = "openi_xml"
WINDOW = "auto"
SCHEMA = "a folder of <eCitation> XML files, one a study"

_SUFFIXES = tuple(suffix for ending in (*IMAGE_SUFFIXES, ".dcm") for suffix in (ending, ending.upper()))
_HEAD_BYTES = 2048
_MAX_BYTES = 8 << 20
_ROOT = re.compile(rb"^(?:\xef\xbb\xbf)?\s*(?:<\?xml[^>]*>\s*)?(?:<!--.*?-->\s*)*<eCitation[\s>]", re.DOTALL)
_NUMBERS = re.compile(r"\d+")


def recognises(path: Path) -> bool:
    """Whether a file, or the first XML file of a folder, begins with `<eCitation>`."""
    try:
        first = path if path.is_file() else min(path.glob("*.xml"), default=None)
        if first is None or first.suffix.lower() != ".xml" or not first.is_file():
            return False
        with first.open("rb") as file:
            return _ROOT.match(file.read(_HEAD_BYTES)) is not None
    except OSError:
        return False


def read(
    path: Path,
    *,
    image_dir: Path | None = None,
    name: str,
    several_images: SeveralImages = "each",
    sections: Sequence[str] = ("FINDINGS", "IMPRESSION"),
    question: str | None = None,
) -> Iterator[Sample | BadRow]:
    """Read the studies in the order of their numbers.

    Args:
        path: The folder, or one file.
        image_dir: Where pictures lie; beside the files by default.
        name: What sample ids begin with: `<name>#<file>`.
        several_images: What to make of a study with several pictures: `each` makes a sample of every one, `first` of
            the first, `refuse` a bad row.
        sections: Labels of the sections that make up the answer, in this order; those that a report lacks are left out.
        question: The question; XrayGLM's question in English by default.

    Yields:
        A sample for each picture of a good study, and a `BadRow` for another. A study without a picture is a bad row
        whose image is missing.

    Raises:
        DataError: There is no XML file.
    """
    check_choice("several_images", several_images, SeveralImages)
    files = [path] if path.is_file() else sorted(path.glob("*.xml"), key=_natural)
    if not files:
        raise DataError(f"{path}: expected XML files, found none. Pass the folder ecgen-radiology.")
    folders = ImageFolders(path.parent if path.is_file() else path, image_dir)
    for file in files:
        row = file.name
        try:
            root = _parse(file)
        except DataError as error:
            yield BadRow(row, str(error))
            continue
        check = RowCheck(row)
        report = _sections(root)
        parts = [report[label.upper()] for label in sections if label.upper() in report]
        if not parts:
            labels = ", ".join(report) or "no section with text"
            check.fail(
                f"a section {' or '.join(sections)}", labels, "take the study out, or set dataset.options.sections"
            )
        names = [element.get("id", "") for element in root.iter("parentImage") if element.get("id")]
        refuse_several(check, len(names), several_images)
        taken = names if several_images == "each" else names[:1]
        images = [check.image(folders, *(f"{image_name}{suffix}" for suffix in _SUFFIXES)) for image_name in taken]
        bad = check.bad_row()
        if bad is None and not names:
            bad = BadRow(row, fault("a <parentImage id>", "a report without pictures", "add one"), True)
        if bad is not None:
            yield bad
            continue
        study = _attribute(root, "uId") or file.stem
        sample = Sample(
            id=f"{name}#{row}",
            group=study,
            image=None,
            turns=(Turn(question or ENGLISH_QUESTION, " ".join(parts)),),
            language="en",
            meta={
                "study": study,
                "caption": _text(root.find(".//parentImage/caption")),
                "mesh": [text for element in root.findall(".//MeSH/major") if (text := _text(element))],
            },
        )
        yield from spread_images(sample, [image for image in images if image is not None], several_images)


def _parse(file: Path) -> ElementTree.Element:
    """The root of one file; entities are refused, since they can blow up a small file to any size."""
    try:
        content = read_bytes(file, advice="Take it out.", limit=_MAX_BYTES)
        if b"<!ENTITY" in content.replace(b"\0", b""):  # in any width of characters
            raise DataError("expected plain XML, found an entity declaration; fix: write the text itself")
        root = ElementTree.fromstring(content)
    except (ElementTree.ParseError, expat.ExpatError, ValueError, LookupError) as error:
        raise DataError(f"expected XML, found: {error}; fix: correct the file there") from error
    if root.tag != "eCitation":
        raise DataError(f"expected <eCitation>, found <{root.tag}>; fix: take the file out")
    return root


def _sections(root: ElementTree.Element) -> dict[str, str]:
    """Sections with text, by their label in capitals."""
    texts = {element.get("Label", "").upper(): _text(element) for element in root.iter("AbstractText")}
    return {label: text for label, text in texts.items() if label and text}


def _text(element: ElementTree.Element | None) -> str:
    return "" if element is None else " ".join("".join(element.itertext()).split())


def _attribute(root: ElementTree.Element, tag: str) -> str:
    element = root.find(tag)
    return "" if element is None else element.get("id", "")


def _natural(path: Path) -> tuple[list[int], str]:
    """2.xml before 10.xml."""
    return [int(digits) for digits in _NUMBERS.findall(path.stem)], path.name
