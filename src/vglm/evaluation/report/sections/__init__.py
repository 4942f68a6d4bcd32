"""The sections of a report, in order; each is a package, see `vglm.evaluation.report.section`."""

SECTIONS = [
    "vglm.evaluation.report.sections.summary",
    "vglm.evaluation.report.sections.leaks",
    "vglm.evaluation.report.sections.curves",
    "vglm.evaluation.report.sections.changes",
    "vglm.evaluation.report.sections.scores",
    "vglm.evaluation.report.sections.baselines",
    "vglm.evaluation.report.sections.agreement",
    "vglm.evaluation.report.sections.image_use",
    "vglm.evaluation.report.sections.forgetting",
    "vglm.evaluation.report.sections.prompts",
    "vglm.evaluation.report.sections.findings",
    "vglm.evaluation.report.sections.ratings",
    "vglm.evaluation.report.sections.slices",
    "vglm.evaluation.report.sections.confusion",
    "vglm.evaluation.report.sections.calibration",
    "vglm.evaluation.report.sections.finishes",
    "vglm.evaluation.report.sections.answers",
    "vglm.evaluation.report.sections.hardest",
    "vglm.evaluation.report.sections.configuration",
]
"""Their names; those of other packages can be added."""
