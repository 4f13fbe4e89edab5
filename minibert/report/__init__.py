"""What a run came to: the page ``report.html`` and the lines that a terminal shows.

Both are made from a run's record alone; nothing here trains, and nothing here loads TensorFlow.
"""

from minibert.report.page import PAGE_NAME, render_report, write_report
from minibert.report.sections import headline_figures
from minibert.report.summary import summarize

__all__ = ["PAGE_NAME", "headline_figures", "render_report", "summarize", "write_report"]
