"""Does it still compute the same? A verdict on a run, on two runs, or on one step."""

from minibert.verify.comparison import Verdict, compare_runs
from minibert.verify.repeat import Repeatability, RepeatedStep, repeat
from minibert.verify.replay import verify

__all__ = ["Repeatability", "RepeatedStep", "Verdict", "compare_runs", "repeat", "verify"]
