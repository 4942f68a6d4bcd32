"""All kinds of input that are fuzzed, by name."""

from . import inputs, stages

AREAS = inputs.AREAS | stages.AREAS
