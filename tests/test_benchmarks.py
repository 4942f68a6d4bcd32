"""Every benchmark starts: what it takes from the code is there."""

from tests.programs import run_program
from vglm.config import repo_root

FOLDER = repo_root() / "benchmarks"
HELP_OF_EACH = """
import runpy, sys
sys.path[:0] = sys.argv[1:3]
for file in sys.argv[3:]:
    sys.argv = [file, "--help"]
    try:
        runpy.run_path(file, run_name="__main__")
    except SystemExit as end:
        assert not end.code, file
"""


def test_each_benchmark_describes_itself() -> None:
    files = sorted(map(str, FOLDER.glob("*.py")))
    done = run_program("-c", HELP_OF_EACH, str(FOLDER), str(repo_root()), *files)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("usage: ") == len(files) > 10
