"""The feature cache by itself, with an encoder of three lines in place of a vision tower."""

import hashlib
import multiprocessing
import os
import pickle
import shutil
import tempfile
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from vglm.caching import VARIABLE, cache_folder
from vglm.cli import main
from vglm.data.feature_cache import FeatureCache, _Index, bytes_of_a_picture, clear_cache, list_cache
from vglm.data.images import image_sha256
from vglm.data.sample import Sample, Turn
from vglm.data.windowing import Window
from vglm.errors import CacheError, DataError

SHAPE = (2, 3)
ENCODER: dict[str, Any] = {"name": "mean", "weights_sha256": "0" * 64, "dtypes": ["float32"], "device": "cpu"}


class MeanColour:
    """Encodes a picture as its mean colour, twice; remembers how many pictures it saw."""

    def __init__(self) -> None:
        self.seen = 0

    def __call__(self, pictures: Sequence[Image.Image]) -> torch.Tensor:
        self.seen += len(pictures)
        means = [np.asarray(picture, np.float32).mean((0, 1)) for picture in pictures]
        return torch.from_numpy(np.stack([np.stack([mean, -mean]) for mean in means]))


@pytest.fixture
def encode() -> MeanColour:
    return MeanColour()


@pytest.fixture
def cache(tmp_path: Path, encode: MeanColour) -> FeatureCache:
    return FeatureCache(tmp_path / "cache", ENCODER, SHAPE, encode, batch_size=2)


def of(picture: Path | Image.Image | None, **meta: Any) -> Sample:
    return Sample("a.json#1", "g", picture, (Turn("?", "!"),), meta=meta)


def paint(path: Path, *colours: tuple[int, int, int]) -> list[Sample]:
    path.mkdir(exist_ok=True)
    for number, colour in enumerate(colours):
        Image.new("RGB", (3, 4), colour).save(path / f"{number}.png")
    return [of(path / f"{number}.png") for number in range(len(colours))]


def settle(monkeypatch: pytest.MonkeyPatch) -> None:
    """As if some time had passed since the files were written."""
    monkeypatch.setattr("vglm.data.feature_cache._SETTLED_SECONDS", -1.0)


def test_each_distinct_picture_is_encoded_once(tmp_path: Path, cache: FeatureCache, encode: MeanColour) -> None:
    files = paint(tmp_path / "a", (10, 20, 30), (40, 50, 60), (10, 20, 30))
    in_memory = [of(Image.new("RGB", (3, 4), (7, 8, 9))) for _ in range(2)]
    filled = cache.fill([*files, of(None), *in_memory])
    assert (filled.pictures, filled.encoded, encode.seen) == (3, 3, 3)
    assert filled.size_bytes == sum(file.stat().st_size for file in cache.folder.glob("*/*.safetensors"))
    assert cache[files[2]].tolist() == [[10, 20, 30], [-10, -20, -30]]
    assert torch.equal(cache[in_memory[0]], cache[of(Image.new("RGB", (3, 4), (7, 8, 9)))])
    assert cache[files[1]].tolist()[0] == [40, 50, 60]
    assert (
        str(cache.fill(files))
        == f"2 pictures' features cached ({filled.size_bytes * 2 / 3 / 1e6:.1f} MB), 0 of them new"
    )


def test_a_second_run_decodes_and_encodes_nothing(
    tmp_path: Path, cache: FeatureCache, encode: MeanColour, monkeypatch: pytest.MonkeyPatch
) -> None:
    settle(monkeypatch)
    files = paint(tmp_path / "a", (10, 20, 30), (40, 50, 60))
    cache.fill(files)
    monkeypatch.setattr("vglm.data.feature_cache.open_image_of", None)
    monkeypatch.setattr("vglm.data.feature_cache._hash_encoded", None)
    again = FeatureCache(tmp_path / "cache", ENCODER, SHAPE)
    assert again.fill(files).encoded == 0
    assert again[files[1]].tolist()[0] == [40, 50, 60]


@pytest.mark.parametrize("is_known", [False, True])
def test_a_file_that_changes_is_seen_even_with_its_size_and_time_unchanged(
    tmp_path: Path, cache: FeatureCache, is_known: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    if is_known:
        settle(monkeypatch)
    (sample,) = paint(tmp_path / "a", (10, 20, 30))
    file = tmp_path / "a" / "0.png"
    before = file.stat()
    cache.fill([sample])
    bmp = tmp_path / "a" / "new.png"
    Image.new("RGB", (3, 4), (11, 20, 30)).save(bmp)
    content = bmp.read_bytes()
    file.write_bytes(content + b"\0" * (before.st_size - len(content)))
    os.utime(file, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert file.stat().st_size == before.st_size
    with pytest.raises(
        DataError, match=r"a\.json#1: .*0\.png is not among the images whose features are cached: it changed"
    ):
        FeatureCache(tmp_path / "cache", ENCODER, SHAPE)[sample]
    assert cache.fill([sample]).encoded == 1
    assert cache[sample].tolist()[0] == [11, 20, 30]


def test_a_file_that_is_shown_in_another_way_is_another_picture(
    tmp_path: Path, cache: FeatureCache, encode: MeanColour, monkeypatch: pytest.MonkeyPatch
) -> None:
    settle(monkeypatch)
    (sample,) = paint(tmp_path / "a", (200, 200, 200))
    dark = replace(sample, window=Window("given", 2048, 4096))

    def through_its_window(shown: Sample) -> Image.Image:
        with Image.open(tmp_path / "a" / "0.png") as picture:
            return picture.point(lambda value: value // 2) if shown.window else picture.copy()

    monkeypatch.setattr("vglm.data.feature_cache.open_image_of", through_its_window)
    for _ in range(2):
        cache.fill([sample, dark])
        assert (cache[sample][0, 0], cache[dark][0, 0]) == (200, 100)
    assert encode.seen == 2


def test_another_encoder_has_a_place_of_its_own(tmp_path: Path, cache: FeatureCache, encode: MeanColour) -> None:
    files = paint(tmp_path / "a", (1, 2, 3))
    cache.fill(files)
    for key, value in {"weights_sha256": "1" * 64, "device": "cuda", "dtypes": ["float16"], "new": 0}.items():
        other = FeatureCache(tmp_path / "cache", {**ENCODER, key: value}, SHAPE)
        assert files[0] not in other
    assert files[0] in FeatureCache(tmp_path / "cache", {**ENCODER, "name": "the same, renamed"}, SHAPE)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_features_come_back_bit_for_bit(tmp_path: Path, dtype: torch.dtype) -> None:
    made = torch.randn(1, 32, 64).to(dtype)
    cache = FeatureCache(tmp_path, ENCODER, (32, 64), lambda pictures: made)
    sample = of(Image.new("RGB", (2, 2)))
    cache.fill([sample])
    assert cache[sample].dtype == dtype
    assert torch.equal(cache[sample], made[0])


def test_a_copy_in_a_worker_reads_but_does_not_encode(cache: FeatureCache, tmp_path: Path) -> None:
    files = paint(tmp_path / "a", (1, 2, 3))
    cache.fill(files)
    copy = pickle.loads(pickle.dumps(cache))
    assert torch.equal(copy[files[0]], cache[files[0]])
    with pytest.raises(ValueError, match="only read"):
        copy.fill([of(Image.new("RGB", (1, 1)))])


def _fill(folder: Path, files: list[Sample]) -> None:
    FeatureCache(folder, ENCODER, SHAPE, MeanColour(), batch_size=3).fill(files)


def test_several_processes_fill_one_cache_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    files = paint(tmp_path / "a", *((number, 0, 255 - number) for number in range(40)))
    context = multiprocessing.get_context("spawn")
    processes = [context.Process(target=_fill, args=(tmp_path / "cache", files)) for _ in range(2)]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
    assert [process.exitcode for process in processes] == [0, 0]
    cache = FeatureCache(tmp_path / "cache", ENCODER, SHAPE)
    assert [cache[file][0, 0].item() for file in files] == list(range(40))
    assert not list(cache.folder.glob("**/.*"))  # no half-written file is left


def test_an_encoder_that_fails_leaves_whole_files_only(tmp_path: Path, cache: FeatureCache) -> None:
    files = paint(tmp_path / "a", *((number, 0, 0) for number in range(6)))
    encode = cache.encode
    calls = []

    def fail_at_the_second_call(pictures: Sequence[Image.Image]) -> torch.Tensor:
        calls.append(pictures)
        if len(calls) == 2:
            raise KeyboardInterrupt
        assert encode is not None
        return encode(pictures)

    cache.encode = fail_at_the_second_call
    with pytest.raises(KeyboardInterrupt):
        cache.fill(files)
    assert cache.fill(files).encoded == 4
    assert all(file in cache for file in files)


def test_damage_is_named(tmp_path: Path, cache: FeatureCache) -> None:
    files = paint(tmp_path / "a", (1, 2, 3))
    cache.fill(files)
    (stored,) = cache.folder.glob("*/*.safetensors")
    stored.write_bytes(stored.read_bytes()[:-4])
    with pytest.raises(DataError, match=r"safetensors was damaged .* and is removed\. Start again"):
        cache[files[0]]
    assert (cache.fill(files).encoded, cache[files[0]].tolist()[0]) == (1, [1, 2, 3])
    stored.write_bytes(stored.read_bytes()[:-4])
    assert FeatureCache(tmp_path / "cache", ENCODER, SHAPE, MeanColour()).fill(files).encoded == 1
    (tmp_path / "a" / "0.png").write_bytes(b"no picture")
    with pytest.raises(DataError, match="is no picture that can be read"):
        cache.fill(files)


def test_without_its_index_the_cache_still_works(tmp_path: Path, cache: FeatureCache) -> None:
    files = paint(tmp_path / "a", (1, 2, 3))
    cache.fill(files)
    (tmp_path / "cache" / "files.index").write_bytes(b"no records" * 100)
    again = FeatureCache(tmp_path / "cache", ENCODER, SHAPE)
    assert again.fill(files).encoded == 0
    assert again[files[0]].tolist()[0] == [1, 2, 3]


@settings(max_examples=50)
@given(data=st.data())
def test_a_damaged_index_forgets_but_never_errs(data: st.DataObject) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "files.index")
        digests = {
            hashlib.sha256(bytes([index])).digest(): hashlib.sha256(bytes([index, 0])).hexdigest() for index in range(9)
        }
        for source, digest in digests.items():
            _Index(path).put(source, digest)
            _Index(path).put(source, digest, digest[::-1])
        stored = [(digest, digest[::-1]) for digest in digests.values()]
        assert [_Index(path).get(source) for source in digests] == stored
        content = path.read_bytes()
        start = data.draw(st.integers(0, len(content)))
        path.write_bytes(
            content[:start] + data.draw(st.binary(max_size=80)) + content[data.draw(st.integers(0, len(content))) :]
        )
        again = _Index(path)
        for source, digest in digests.items():
            assert again.get(source) in (None, (digest, None), (digest, digest[::-1]))
            again.put(source, digest, digest[::-1])
        assert [again.get(source) for source in digests] == stored


def test_what_one_user_wrote_another_reads(tmp_path: Path, cache: FeatureCache) -> None:
    files = paint(tmp_path / "a", (1, 2, 3))
    cache.fill(files)
    written = [path for path in (tmp_path / "cache").rglob("*") if path.is_file()]
    assert len(written) >= 2
    assert all(path.stat().st_mode & 0o044 == 0o044 for path in written)


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no named pipes")
def test_what_is_no_file_is_passed_over(tmp_path: Path, cache: FeatureCache, monkeypatch: pytest.MonkeyPatch) -> None:
    settle(monkeypatch)
    files = paint(tmp_path / "a", (1, 2, 3))
    os.mkfifo(tmp_path / "cache" / "files.index")
    cache.fill(files)
    (stored,) = cache.folder.glob("*/*.safetensors")
    stored.unlink()
    os.mkfifo(stored)
    assert FeatureCache(tmp_path / "cache", ENCODER, SHAPE, MeanColour()).fill(files).encoded == 1
    assert list_cache(tmp_path / "cache")[0].pictures == 1


def test_the_command_lists_and_clears(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv(VARIABLE, str(tmp_path / "kept"))
    folder = cache_folder("features")
    assert folder == tmp_path / "kept" / "features"
    assert main(["cache"]) == 0
    assert "0.0 MB in all" in capsys.readouterr().out

    (tmp_path / "kept").mkdir()
    (tmp_path / "kept" / "mine.txt").write_text("not of the cache")
    FeatureCache(folder, ENCODER, SHAPE, MeanColour()).fill(paint(tmp_path / "a", (1, 2, 3), (4, 5, 6)))
    FeatureCache(folder, ENCODER | {"device": "cuda"}, SHAPE, MeanColour()).fill(paint(tmp_path / "a", (1, 2, 3)))
    assert [part.pictures for part in list_cache(folder)] == [2, 1]
    assert main(["cache"]) == 0
    listed = capsys.readouterr().out.splitlines()
    assert "2 pictures  mean (weights 000000000000), float32, cpu" in listed[0]
    assert listed[-1].startswith(str(cache_folder()))

    for damaged in ('{"dtypes": 3.5}', "[]", "no JSON"):
        list_cache(folder)[0].folder.joinpath("encoder.json").write_text(damaged)
        assert main(["cache"]) == 0
        assert "2 pictures  unnamed (weights None" in capsys.readouterr().out

    size = sum(file.stat().st_size for file in folder.glob("**/*") if file.is_file())
    assert main(["cache", "--clear"]) == 0
    assert f"{size / 1e6:,.1f} MB freed" in capsys.readouterr().out
    assert not folder.exists()
    assert (tmp_path / "kept" / "mine.txt").exists()
    assert clear_cache(folder) == 0


def test_a_folder_that_cannot_be_made_is_told_so_that_one_can_do_without(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(CacheError, match="file"):
        FeatureCache(tmp_path / "file" / "cache", ENCODER, SHAPE)
    shutil.rmtree(tmp_path)


def test_a_copy_under_another_name_is_not_decoded(
    tmp_path: Path, cache: FeatureCache, encode: MeanColour, monkeypatch: pytest.MonkeyPatch
) -> None:
    (sample,) = paint(tmp_path / "a", (1, 2, 3))
    cache.fill([sample])
    copy = shutil.copy(tmp_path / "a" / "0.png", tmp_path / "copy.png")
    monkeypatch.setattr("vglm.data.feature_cache.open_image_of", None)
    assert cache.fill([of(Path(copy))]).encoded == 0
    assert cache[of(Path(copy))].tolist()[0] == [1, 2, 3]


def test_a_picture_in_memory_is_hashed_once(cache: FeatureCache, monkeypatch: pytest.MonkeyPatch) -> None:
    hashed = []

    def counted(picture: Image.Image) -> str:
        hashed.append(picture)
        return image_sha256(picture)

    monkeypatch.setattr("vglm.data.feature_cache.image_sha256", counted)
    sample = of(Image.new("RGB", (3, 4), (1, 2, 3)))
    opened = cache.open(sample)
    cache.fill([sample])
    assert cache[sample].tolist()[0] == [1, 2, 3]
    assert (opened.pixels, len(hashed)) == (image_sha256(opened.picture), 1)


def test_who_needs_the_pixels_hash_alone_does_not_decode(
    tmp_path: Path, cache: FeatureCache, encode: MeanColour, monkeypatch: pytest.MonkeyPatch
) -> None:
    settle(monkeypatch)
    (sample,) = paint(tmp_path / "a", (1, 2, 3))
    opened = cache.open(sample)
    assert cache.pixels_of(sample) is None  # its features are not there yet
    cache.note_pixels(opened, image_sha256(opened.picture))
    monkeypatch.setattr("vglm.data.feature_cache.open_image_of", None)
    assert cache.fill([sample]).encoded == 1  # of what `open` prepared
    again = FeatureCache(tmp_path / "cache", ENCODER, SHAPE)
    assert again.pixels_of(sample) == image_sha256(tmp_path / "a" / "0.png")
    (tmp_path / "a" / "0.png").write_bytes(b"another")
    assert again.pixels_of(sample) is None


def test_what_an_earlier_version_left_is_named_and_not_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv(VARIABLE, str(tmp_path))
    folder, files = cache_folder("features"), paint(tmp_path / "a", (1, 2, 3))
    FeatureCache(folder, ENCODER, SHAPE, MeanColour()).fill(files)
    monkeypatch.setattr("vglm.data.feature_cache._VERSION", 3)
    assert FeatureCache(folder, ENCODER, SHAPE, MeanColour()).fill(files).encoded == 1
    assert main(["cache"]) == 0
    assert capsys.readouterr().out.count("(of an earlier version, no longer read)") == 1


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
def test_the_bytes_of_a_picture_are_those_on_disk(tmp_path: Path, dtype: torch.dtype) -> None:
    cache = FeatureCache(tmp_path, ENCODER, (32, 64), lambda pictures: torch.zeros(1, 32, 64, dtype=dtype))
    filled = cache.fill([of(Image.new("RGB", (2, 2)))])
    assert filled.size_bytes == bytes_of_a_picture((32, 64), dtype)
