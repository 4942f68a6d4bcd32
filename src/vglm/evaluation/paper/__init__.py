"""What a paper needs of an evaluation, or of methods compared: tables, figures, the methods section, a checklist.

    vglm report outputs/xray/qlora/<time>/evaluation --format latex --output paper
    vglm report outputs/sweeps/<time> --format csv

Everything comes from the records of the runs; what they lack is listed as missing.
"""

from vglm.evaluation.paper.formats import FORMATS
from vglm.evaluation.paper.papers import Paper

__all__ = ["FORMATS", "Paper"]
