"""The X-ray labeller against readings by hand, and against itself in the other language.

    python benchmarks/labeller.py FOLDER        openi-zh.json and openi-en.json of XrayGLM, 210 studies

100 studies were drawn by seed 20261127 and read, in English and in Chinese apart, before the labeller was run on them:
which findings are there, for certain or perhaps. A mistranslation counts as what it says. By 60 of them the labeller
was corrected (a sternotomy's scar is no device, the sequela of an infection none); the other 40 were read and
labelled after that. On 2026-11-27:

    studies           en precision  recall  findings    zh precision  recall  findings
    first 60, before          0.93    1.00        52            0.93    1.00        50
    first 60, after           0.98    1.00        52            0.98    1.00        50
    second 40                 0.97    1.00        33            1.00    1.00        32

The author of the rules may have seen all reports of this collection; results on those of other hospitals will be worse.
Kappa is between English and Chinese on all 210 studies; it is not meaningful for few studies.
"""

import argparse
import json
from collections.abc import Mapping
from pathlib import Path

from vglm.text.labeller import label_report

LETTERS = {
    "C": "Cardiomegaly", "M": "Enlarged Cardiomediastinum", "L": "Lung Lesion", "O": "Lung Opacity", "E": "Edema",
    "S": "Consolidation", "P": "Pneumonia", "A": "Atelectasis", "X": "Pneumothorax", "F": "Pleural Effusion",
    "Q": "Pleural Other", "B": "Fracture", "D": "Support Devices",
}  # fmt: skip
READ = {
    "first": """
        572_1 -, 1150_1 -, 2_1 C, 1970_1 CL, 3544_1 AO/EO, 3551_1 L, 980_1 -, 1757_1 -, 63_1 O, 2841_1 -, 1597_1 -,
        2276_1 A, 2539_1 -, 1781_1 -, 3785_1 O, 2672_1 -, 3829_1 ACO, 3960_1 -, 758_1 -, 995_1 D, 1795_1 C, 1794_1 -,
        1434_1 -, 3961_1 OP, 3009_1 -, 2673_1 CEO, 1568_1 -, 229_1 L, 2920_1 -, 573_1 ADO, 1637_1 C, 62_1 D, 2934_1 -,
        3633_1 -, 1409_1 -, 2048_1 DLO, 1964_1 -, 2511_1 DLO, 1352_1 O, 2504_1 -, 1145_1 -, 1810_1 -, 3430_1 CD,
        1346_1 CD, 3814_1 -, 3753_1 AL/L, 639_1 -, 1582_1 -, 3587_1 -, 1958_1 D, 1179_1 DO, 3949_1 CL, 2470_1 -,
        2459_1 -, 215_1 CL, 228_1 -, 3632_1 AFOQ, 1743_1 C, 1838_1 -, 3169_1 LQ/L
    """,
    "second": """
        764_1 -, 189_1 ALO, 1384_1 -, 1232_1 DL, 2667_1 -, 348_1 -, 1018_1 L, 3182_1 L, 3020_1 -, 1622_1 -, 1178_1 -,
        3236_1 -, 2713_1 AO, 1596_1 L, 361_1 -, 994_1 -, 2471_1 -, 1554_1 -, 861_1 -, 2856_1 -, 3237_1 ACDO/CDO,
        1144_1 -, 88_1 CEO, 1569_1 -, 3168_1 B, 1187_1 AEOP/EOP, 1636_1 -, 2921_1 FO, 3342_1 CDO, 3579_1 D, 1024_1 -,
        1019_1 F, 2855_1 -, 3586_1 C, 1839_1 L, 3141_1 -, 3974_1 OP, 2060_1 -/E, 3034_1 -, 2854_1 -
    """,
}
"""Study and its findings; after a slash what the Chinese text says, where that is something else."""


def present(report: str) -> set[str]:
    """The findings that a report has, for certain or perhaps."""
    labels = label_report(report)
    return {letter for letter, name in LETTERS.items() if labels.get(name) in ("positive", "uncertain")}


def read_captions(path: Path) -> dict[str, str]:
    """Image -> report, of a file in XrayGLM's format."""
    content = json.loads(path.read_text(encoding="utf-8"))
    return {row["image_id"]: row["caption"] for row in content["annotations"]}


def compare(name: str, texts: Mapping[str, str], expected: Mapping[str, set[str]]) -> None:
    """Print precision and recall over all findings, and every difference."""
    both = named = true = 0
    for study, labelled in expected.items():
        read = present(texts[study])
        both, named, true = both + len(read & labelled), named + len(read), true + len(labelled)
        for word, some in (("not there", read - labelled), ("missed", labelled - read)):
            if some:
                print(f"    {name} {study} {word}: {', '.join(LETTERS[letter] for letter in sorted(some))}")
    print(f"  {name}: precision {both / named:.2f}, recall {both / true:.2f} ({true} findings)")


def kappa(one: list[bool], other: list[bool]) -> float:
    """Cohen's kappa of two readings."""
    n, shares = len(one), (sum(one) / len(one), sum(other) / len(other))
    by_chance = shares[0] * shares[1] + (1 - shares[0]) * (1 - shares[1])
    agreed = sum(a == b for a, b in zip(one, other, strict=True)) / n
    return (agreed - by_chance) / (1 - by_chance) if by_chance < 1 else float("nan")


def main() -> None:
    """Print both comparisons."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    folder = parser.parse_args().folder
    texts = {name: read_captions(folder / f"openi-{name}.json") for name in ("en", "zh")}
    for part, listed in READ.items():
        rows = [row.split() for row in listed.split(",")]
        print(f"{part} {len(rows)} studies")
        for index, (name, captions) in enumerate(texts.items()):
            readings = {study: (letters.split("/") * 2)[index] for study, letters in rows}
            compare(name, captions, {study: set(letters) - {"-"} for study, letters in readings.items()})
    studies = {image.split("_")[0]: image for image in sorted(texts["en"].keys() & texts["zh"].keys(), reverse=True)}
    labels = {name: [present(captions[image]) for image in studies.values()] for name, captions in texts.items()}
    print(f"English and Chinese, {len(studies)} studies")
    for letter, finding in LETTERS.items():
        one, other = ([letter in letters for letters in labels[name]] for name in ("en", "zh"))
        print(f"  {finding:28} {sum(one):4} {sum(other):4}  kappa {kappa(one, other):.2f}")


if __name__ == "__main__":
    main()
