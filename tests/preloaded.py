"""What the process imports that programs are forked of, see `programs`; as they do, without what train.py puts off."""

from vglm.config.lazy import defer

defer()


import vglm.evaluation.pipeline  # noqa: E402
import vglm.serving.engine  # noqa: E402
import vglm.tuning.train  # noqa: E402, F401
