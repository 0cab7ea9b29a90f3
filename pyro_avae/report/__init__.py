"""The HTML report of one or more runs."""

from pyro_avae.report.extras import Extra, ExtraTable
from pyro_avae.report.findings import Difference, Finding, difference, findings
from pyro_avae.report.page import build_report, write_report
from pyro_avae.report.runs import Run, read_run, read_runs

__all__ = [
    "Difference",
    "Extra",
    "ExtraTable",
    "Finding",
    "Run",
    "build_report",
    "difference",
    "findings",
    "read_run",
    "read_runs",
    "write_report",
]
