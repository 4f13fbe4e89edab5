"""How often is the gate wrong? Real extra work in the step, or none at all, and what the gate says to it.

    python -m minibert.perf.error_study --minutes 30 --out none.jsonl                   # measures, on a quiet machine
    python -m minibert.perf.error_study --minutes 15 --neighbour busy --out busy.jsonl  # beside one that computes half
                                                                                        # of the time; light: a tenth
    python -m minibert.perf.error_study --replay none.jsonl busy.jsonl                  # the rates of what was measured

The timings are kept, pair of processes by pair of processes, so that a change of the statistics or of
the decision can be judged in seconds, by replaying them.
"""
