import math
from collections import Counter
from itertools import combinations

import numpy as np

from vglm.worlds.scenes import COLOURS, COUNTS, KINDS, PLACES, sample_scene

SCENES = [sample_scene(np.random.default_rng([5, i])) for i in range(4_000)]


def _deviation(counts: Counter, cells: int) -> float:
    """The largest distance of a count from its expectation, in standard deviations of a uniform draw."""
    expected = len(SCENES) / cells
    assert len(counts) == cells
    return max(abs(n - expected) for n in counts.values()) / math.sqrt(expected * (1 - 1 / cells))


def test_attributes_are_uniform_and_independent() -> None:
    attributes = {"kind": KINDS, "colour": COLOURS, "count": COUNTS, "place": PLACES}
    for name, values in attributes.items():
        assert _deviation(Counter(getattr(scene, name) for scene in SCENES), len(values)) < 4
    for one, other in combinations(attributes, 2):
        pairs = Counter((getattr(scene, one), getattr(scene, other)) for scene in SCENES)
        assert _deviation(pairs, len(attributes[one]) * len(attributes[other])) < 4.5


def test_subjects_lie_apart_and_inside_the_picture() -> None:
    for scene in SCENES:
        assert len(scene.subjects) == scene.count
        for subject in scene.subjects:
            edge = subject.width / 2
            assert edge < subject.x < 1 - edge
            assert edge < subject.y < 1 - edge
        for one, other in combinations(scene.subjects, 2):
            assert math.hypot(one.x - other.x, one.y - other.y) > (one.width + other.width) / 2


def test_scenes_follow_from_the_generator() -> None:
    assert sample_scene(np.random.default_rng(3)) == sample_scene(np.random.default_rng(3))
    assert len({scene.texture_seed for scene in SCENES}) == len(SCENES)
