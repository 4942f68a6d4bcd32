from pathlib import Path

import numpy as np
import pytest

from vglm.data.astronomy.questions import TYPES
from vglm.data.images import open_image
from vglm.data.readers import read
from vglm.data.sample import Sample
from vglm.errors import ConfigError, DataError
from vglm.text.prompt import LANGUAGES
from vglm.worlds.lightcurves import SHARES as TYPES_IN_TURN
from vglm.worlds.star_dialogues import StarDialogues, main, star_splits, write_star_set


def test_a_star_is_asked_four_questions_about_one_picture() -> None:
    stars = StarDialogues(stars=3, seed=5)
    assert len(stars) == 12
    for number in range(3):
        samples = stars[4 * number : 4 * number + 4]
        assert {sample.group for sample in samples} == {f"stars-5-{number}"}
        assert len({sample.image.tobytes() for sample in samples}) == 1
        kinds = [(sample.meta["kind"], sample.language) for sample in samples]
        assert kinds[:2] == [("type", "zh"), ("type", "en")]
        assert kinds[2:] == [("period", LANGUAGES[number % 2]), ("amplitude", LANGUAGES[1 - number % 2])]
        assert samples[0].answer == f"{TYPES[samples[0].meta['type']].chinese}。"
        assert all((sample.language == "en") == sample.answer.isascii() for sample in samples)
    assert len({sample.id for sample in stars}) == 12


def test_samples_do_not_depend_on_the_order_of_asking() -> None:
    forwards, backwards = StarDialogues(3, 5), StarDialogues(3, 5)
    last_first = [backwards[index] for index in reversed(range(12))][::-1]
    for one, other in zip(forwards, last_first, strict=True):
        assert one.image.tobytes() == other.image.tobytes()
        assert (one.id, one.turns, one.meta) == (other.id, other.turns, other.meta)
    with pytest.raises(IndexError):
        forwards[12]


def test_splits_share_no_star_and_say_what_they_are() -> None:
    splits = star_splits(train_stars=4, test_stars=3, seed=1, test_seed=2)
    groups = [{sample.group for sample in split} for split in (splits.train, splits.test)]
    assert [len(stars) for stars in groups] == [4, 3]
    assert not groups[0] & groups[1]
    assert [splits.train[4 * number].meta["type"] for number in range(4)] == list(TYPES_IN_TURN)[:4]
    natural = star_splits(train_stars=4, test_stars=3, seed=1, test_seed=2, balanced=False)
    assert natural.data_hash != splits.data_hash
    assert natural.test[0].turns == splits.test[0].turns  # what is tested on stays as unequal as it is
    other = star_splits(train_stars=4, test_stars=3, seed=3, test_seed=2)
    assert splits.data_hash != other.data_hash
    with pytest.raises(ConfigError, match="both 1: the test would be on training stars"):
        star_splits(train_stars=4, test_stars=3, seed=1, test_seed=1)


@pytest.mark.parametrize("file_format", ["csv", "fits"])
def test_stars_written_to_files_and_read_look_the_same(tmp_path: Path, file_format: str) -> None:
    """The way of a real star, from its file to its picture, ends where the simulated one does."""
    write_star_set(tmp_path / "set", stars=4, seed=5, format=file_format)
    samples = list(read(tmp_path / "set", picture_dir=tmp_path / "pictures"))
    expected = StarDialogues(stars=4, seed=5)
    assert len(samples) == 4 * 6
    for number in range(4):
        sample, twin = samples[6 * number], expected[4 * number]
        assert isinstance(sample, Sample)
        assert (sample.group, sample.turns, sample.language) == (twin.group, twin.turns, twin.language)
        read_back, drawn = (np.asarray(open_image(picture.image), int) for picture in (sample, twin))
        assert (np.abs(read_back - drawn).max(axis=2) > 0).mean() < 0.005  # a rounded value may move a pixel


def test_the_command_line_writes_all_or_nothing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([str(tmp_path / "set"), "--stars", "2", "--seed", "3"]) == 0
    assert sorted(path.name for path in (tmp_path / "set").iterdir()) == [
        "SYNTHETIC",  # by which a report on them is stamped
        "labels.csv",
        "stars-3-0.csv",
        "stars-3-1.csv",
    ]
    assert main([str(tmp_path / "set"), "--stars", "2", "--seed", "3"]) == 2
    assert "not an empty folder" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        main([str(tmp_path / "other"), "--stars", "0", "--seed", "3"])
    assert not (tmp_path / "other").exists()
    with pytest.raises(DataError, match="cannot be written"):
        write_star_set(tmp_path / "set" / "labels.csv" / "below", stars=1, seed=1)
