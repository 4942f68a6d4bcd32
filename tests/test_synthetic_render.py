from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

from vglm.worlds.render import RGB, render
from vglm.worlds.scenes import COLOURS, KINDS, PLACES, Scene, sample_scene


def _scene(*seed: int) -> Scene:
    return sample_scene(np.random.default_rng(seed))


def _pixels(picture: Image.Image) -> np.ndarray:
    return np.asarray(picture).astype(int)


@pytest.mark.parametrize("size", [16, 64, 224])
def test_pictures_have_the_size_asked_for_and_repeat(size: int) -> None:
    picture = render(_scene(1), size)
    assert (picture.mode, picture.size) == ("RGB", (size, size))
    assert picture.tobytes() == render(_scene(1), size).tobytes()


def test_a_larger_picture_shows_the_same_scene() -> None:
    for i in range(20):
        scene = _scene(2, i)
        small = _pixels(render(scene, 64))
        large = _pixels(render(scene, 128).reduce(2))
        assert np.abs(small - large).mean() < 12


@pytest.mark.parametrize("kind", KINDS)
def test_subjects_fill_their_circles_and_stay_within(kind: str) -> None:
    """Pixels that depend on the subjects' colour lie inside the circles, and in each of them are many."""
    y, x = (np.mgrid[:64, :64] + 0.5) / 64
    for i in range(10):
        scene = replace(_scene(3, i), kind=kind)
        red, blue = (_pixels(render(replace(scene, colour=colour))) for colour in ("red", "blue"))
        changed = np.abs(red - blue).sum(axis=2) > 30
        covered = np.zeros_like(changed)
        for subject in scene.subjects:
            circle = np.hypot(x - subject.x, y - subject.y) <= (subject.width / 2 + 1 / 64)
            assert changed[circle].mean() > 0.25
            covered |= circle
        assert not (changed & ~covered).any()


@pytest.mark.parametrize("colour", COLOURS)
def test_subjects_have_their_colour(colour: str) -> None:
    """Most pixels that another colour would change are nearest to the colour's own shade."""
    for i, kind in enumerate(KINDS):
        scene = replace(_scene(4, i), kind=kind, colour=colour)
        pixels, red, blue = (_pixels(render(replace(scene, colour=name))) for name in (colour, "red", "blue"))
        filled = pixels[np.abs(red - blue).sum(axis=2) > 300]
        nearest = [min(RGB, key=lambda name: np.abs(pixel - RGB[name]).sum()) for pixel in filled]
        assert nearest.count(colour) > 0.75 * len(nearest) > 0


def test_places_can_be_told_apart() -> None:
    """The nearest of 20 thumbnails a place is one of the same place, whatever stands in front."""
    seen = {place: _thumbnails(place, range(20)) for place in PLACES}
    right = 0
    for place in PLACES:
        for new in _thumbnails(place, range(100, 110)):
            right += min(PLACES, key=lambda other: min(np.abs(new - old).mean() for old in seen[other])) == place
    assert right >= 80


def _thumbnails(place: str, seeds: range) -> list[np.ndarray]:
    return [_pixels(render(replace(_scene(5, seed), place=place), 16).reduce(2)) for seed in seeds]


def test_a_place_never_looks_the_same_twice() -> None:
    for place in PLACES:
        pictures = {render(replace(_scene(6, i), place=place, subjects=())).tobytes() for i in range(10)}
        assert len(pictures) == 10
