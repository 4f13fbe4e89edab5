"""What a run came to: the page ``report.html`` and the lines that a terminal shows.

Both are made from a run's record alone; nothing here trains, and nothing here loads TensorFlow.
"""

from minibert.report.page import render_report, write_report
from minibert.report.summary import summarize

__all__ = ["render_report", "summarize", "write_report"]
