"""Does it still compute the same? A verdict on a run, on two runs, or on one step."""

from minibert.verify.comparison import compare_runs
from minibert.verify.repeat import Repeatability, RepeatedStep, repeat
from minibert.verify.replay import verify
from minibert.verify.verdict import Parting, Verdict

__all__ = ["Parting", "Repeatability", "RepeatedStep", "Verdict", "compare_runs", "repeat", "verify"]
