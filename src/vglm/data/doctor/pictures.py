"""Decode every picture of a data set once, in parallel processes, and keep some 300 bytes of each.

A worker opens a picture as training will (`Sample.open_image`), so what it refuses would stop a training run.
"""

import itertools
import multiprocessing
import os
import signal
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray
from tqdm.auto import tqdm

from vglm.data.doctor.finding import progress_title
from vglm.data.doctor.similarity import GRID, shrink
from vglm.data.images import image_sha256, read_image_header
from vglm.data.sample import Sample
from vglm.data.slices import ImageSlice
from vglm.errors import DataError

READABLE, BROKEN, MISSING = 0, 1, 2

PICTURE = np.dtype(
    [
        ("status", np.uint8),  # READABLE, BROKEN or MISSING
        ("width", np.uint32),
        ("height", np.uint32),
        ("mode", "U8"),  # as Pillow calls it, before the conversion to RGB
        ("format", "U8"),
        ("is_turned", np.bool_),  # EXIF asks for a rotation, which the model does not apply
        ("is_plain", np.bool_),  # all pixels have the same colour
        ("pixels", np.uint64, (2,)),  # the first 128 bits of `image_sha256`
        ("cells", np.uint8, (GRID, GRID, 3)),  # `shrink`
    ]
)
"""What is kept of a picture."""

_CHUNK = 16
_SERIAL_UP_TO = 100
"""Number of pictures that are decoded sooner than processes are started."""


def decode_pictures(
    sample_of: Callable[[int], Sample], count: int, workers: int | None = None
) -> tuple[NDArray[Any], dict[int, str]]:
    """Look at all pictures.

    Args:
        sample_of: A sample that shows the picture of an index.
        count: Number of pictures.
        workers: Number of processes; one for each core this process may use if None.

    Returns:
        Shape (count,), dtype `PICTURE`, and for each picture that is not readable why, by index.

    Raises:
        DataError: A process died of a picture.
    """
    pictures = np.zeros(count, PICTURE)
    faults: dict[int, str] = {}
    chunks = (range(start, min(start + _CHUNK, count)) for start in range(0, count, _CHUNK))
    jobs = ((chunk, [sample_of(index) for index in chunk]) for chunk in chunks)
    if workers is None:
        workers = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    is_serial = workers <= 1 or count <= _SERIAL_UP_TO
    results = map(_run, jobs) if is_serial else _in_processes(jobs, workers)
    with tqdm(total=count, desc=progress_title("decoding"), unit="image", delay=2) as progress:
        for chunk, records, why in results:
            pictures[chunk.start : chunk.stop] = records
            faults.update(why)
            progress.update(len(chunk))
    return pictures, faults


_Job = tuple[range, Sequence[Sample]]
_Result = tuple[range, NDArray[Any], dict[int, str]]


def _in_processes(jobs: Iterator[_Job], workers: int) -> Iterator[_Result]:
    """`map(_run, jobs)` over processes, in any order, with a bounded number of jobs under way."""
    context = multiprocessing.get_context("spawn")  # a fork would inherit the threads of whatever is loaded here
    pool = ProcessPoolExecutor(workers, context, initializer=_ignore_interrupts)
    under_way: dict[Future[_Result], _Job] = {}
    try:
        while True:
            for job in itertools.islice(jobs, 4 * workers - len(under_way)):
                under_way[pool.submit(_run, job)] = job
            if not under_way:
                return
            for future in wait(under_way, return_when=FIRST_COMPLETED).done:
                job = under_way[future]
                try:
                    yield future.result()
                except BrokenProcessPool as error:
                    raise DataError(
                        f"a process died while it decoded pictures from {job[1][0].image} on: out of memory, or a"
                        " picture that crashes its decoder. Check these files."
                    ) from error
                del under_way[future]
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


def _ignore_interrupts() -> None:
    """Ctrl-C reaches all processes of the terminal; the parent is the one to end the workers."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)


def _run(job: _Job) -> _Result:
    chunk, samples = job
    records = np.zeros(len(samples), PICTURE)
    faults: dict[int, str] = {}
    for number, (index, sample) in enumerate(zip(chunk, samples, strict=True)):
        try:
            records[number] = look_at(sample)
        except DataError as error:
            faults[index] = str(error)
            is_missing = isinstance(sample.image, Path) and not os.path.exists(sample.image)
            records[number]["status"] = MISSING if is_missing else BROKEN
    return chunk, records, faults


def look_at(sample: Sample) -> NDArray[Any]:
    """Decode a sample's picture.

    Args:
        sample: Its picture is a file, or a piece of one.

    Returns:
        Its record, shape (), dtype `PICTURE`.

    Raises:
        DataError: As `Sample.open_image`.
    """
    assert isinstance(sample.image, Path | ImageSlice)
    header, rgb = read_image_header(sample.image), sample.open_image()
    assert rgb is not None
    record = np.zeros((), PICTURE)
    record["width"], record["height"] = rgb.size
    record["mode"], record["format"], record["is_turned"] = header.mode, header.format, header.is_turned
    record["is_plain"] = all(low == high for low, high in cast(tuple[tuple[int, int], ...], rgb.getextrema()))
    record["pixels"] = np.frombuffer(bytes.fromhex(image_sha256(rgb))[:16], np.uint64)
    record["cells"] = shrink(rgb)
    return record
