"""What the process imports that programs are forked of, see `programs`; as they do, without what train.py puts off."""

import gc

from vglm.config.lazy import defer

defer()


import vglm.evaluation.pipeline  # noqa: E402
import vglm.serving.engine  # noqa: E402
import vglm.tuning.train  # noqa: E402, F401

gc.collect()
gc.freeze()  # a training asks for several rounds of the collector, and each would copy what programs share
