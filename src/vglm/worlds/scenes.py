"""The content of a synthetic picture: some subjects of one kind and colour in a place.

    Scene(kind="fish", colour="red", count=2, place="beach", subjects=(Subject(...), Subject(...)), texture_seed=71)

Kind, colour, count and place are drawn uniformly and independently of each other, so that a guess at one of them is
right one time in `len(KINDS)`, `len(COLOURS)`, `len(COUNTS)` or `len(PLACES)`, whatever else is known about the scene.
"""

from dataclasses import dataclass

import numpy as np

KINDS = ("ball", "star", "heart", "tree", "house", "car", "fish", "boat", "cat", "umbrella", "flower", "cup")
COLOURS = ("red", "orange", "yellow", "green", "blue", "purple", "black", "white")
COUNTS = (1, 2, 3, 4)
PLACES = ("beach", "snow", "desert", "forest", "grass", "sea", "night sky", "street", "room", "wheat field")
NEW_PLACES = ("moon", "volcano", "bookshelf", "maples", "seabed")
"""Places that pre-training neither shows nor names."""

LATTICE = 8
"""Subjects stand in the middle of the cells of a lattice of this many rows and columns, outermost cells left free."""
SPACING = 3
"""Least distance between two subjects, in cells, across or down."""
SMALLEST, LARGEST = 0.34, 0.37
"""Width of a subject as a share of the picture's width; below `SPACING` cells, so that subjects do not touch."""
MAX_TILT = 0.08
"""Largest rotation of a subject, in radians either way."""


@dataclass(frozen=True, slots=True)
class Subject:
    """Where one subject stands.

    Attributes:
        x: Centre from the left edge, as a share of the picture's width.
        y: Centre from the upper edge, as a share of the picture's height.
        width: Diameter of the circle it fits in, as a share of the picture's width.
        tilt: Rotation in radians, clockwise.
        mirrored: Whether left and right are swapped.
    """

    x: float
    y: float
    width: float
    tilt: float
    mirrored: bool


@dataclass(frozen=True, slots=True)
class Scene:
    """Everything a picture is drawn from; equal scenes give equal pictures.

    Attributes:
        kind: What the subjects are, one of `KINDS`.
        colour: Colour of every subject, one of `COLOURS`.
        count: Number of subjects, one of `COUNTS`.
        place: Where they are, one of `PLACES`.
        subjects: One entry per subject; their circles do not overlap.
        texture_seed: Seed of the place's texture and of the small shifts in its colours.
    """

    kind: str
    colour: str
    count: int
    place: str
    subjects: tuple[Subject, ...]
    texture_seed: int


def sample_scene(rng: np.random.Generator) -> Scene:
    """Draw a scene; `dataclasses.replace` fixes its kind, colour or place afterwards."""
    kind, colour, count, place = (int(rng.integers(len(values))) for values in (KINDS, COLOURS, COUNTS, PLACES))
    return Scene(
        kind=KINDS[kind],
        colour=COLOURS[colour],
        count=COUNTS[count],
        place=PLACES[place],
        subjects=_place_subjects(rng, COUNTS[count]),
        texture_seed=int(rng.integers(2**32)),
    )


def _place_subjects(rng: np.random.Generator, count: int) -> tuple[Subject, ...]:
    """Place `count` subjects in random cells, apart from each other; a draw that leaves too little room is repeated."""
    while True:
        cells: list[tuple[int, int]] = []
        for column, row in rng.integers(1, LATTICE - 1, size=(12 * count, 2)).tolist():
            if all(max(abs(column - x), abs(row - y)) >= SPACING for x, y in cells):
                cells.append((column, row))
            if len(cells) == count:
                return tuple(_subject(rng, *cell) for cell in cells)


def _subject(rng: np.random.Generator, column: int, row: int) -> Subject:
    width, tilt, mirror = rng.random(3).tolist()
    return Subject(
        x=(column + 0.5) / LATTICE,
        y=(row + 0.5) / LATTICE,
        width=SMALLEST + width * (LARGEST - SMALLEST),
        tilt=(2 * tilt - 1) * MAX_TILT,
        mirrored=mirror < 0.5,
    )
