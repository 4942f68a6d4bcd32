"""python -m tests.fuzz [--seed 1] [--number 3000] [--areas readers images] [--findings DIR] [--replay DIR ...]"""

import argparse
import sys
import time
from pathlib import Path

from .areas import AREAS
from .harness import fuzz, replay, tabulate


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz", description=__doc__)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--number", type=int, default=3000)
    parser.add_argument("--areas", nargs="*", default=[], help=f"beginnings of {', '.join(AREAS)}")
    parser.add_argument("--findings", type=Path, default=Path("outputs") / "fuzz")
    parser.add_argument("--replay", type=Path, nargs="*", default=[], help="folders that were kept")
    arguments = parser.parse_args()
    if arguments.replay:
        results = [replay(path) for path in arguments.replay]
    else:
        areas = [
            name
            for name in AREAS
            if name.startswith(tuple(arguments.areas or [name for name in AREAS if name != "self"]))
        ]
        start = time.monotonic()
        results = fuzz(areas, arguments.number, arguments.seed, arguments.findings)
        print(f"{tabulate(results)}\n{len(results)} cases in {time.monotonic() - start:.0f} s")
    findings = [result for result in results if result.is_finding]
    for finding in findings:
        case = finding.case
        print(f"{finding.outcome}  {case.area}  {finding.where}  {finding.text[:160]!r}  [{case.change[:200]}]")
    return 1 if findings else 0


if __name__ == "__main__":
    sys.exit(main())
