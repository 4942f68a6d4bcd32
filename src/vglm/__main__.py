"""`python -m vglm`, the same as the `vglm` command."""

import sys

from vglm.cli import main

if __name__ == "__main__":
    sys.exit(main())
