"""The report of an evaluation: `render` makes it from files, `print_summary` prints the same in a terminal."""

from vglm.evaluation.report.render import print_summary, render, write_report

__all__ = ["print_summary", "render", "write_report"]
