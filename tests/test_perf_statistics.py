"""From timed blocks to an interval, and from intervals to a verdict."""

from __future__ import annotations

import dataclasses
import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from minibert.errors import MinibertError
from minibert.perf.decision import FASTER, SAME, SLOWER, UNPROVEN, Decision, Rules, Trial
from minibert.perf.pair import CONTROL, OTHERS_LIMIT, Block, PairTimes, shortened, time_pair
from minibert.perf.statistics import PairFigure, detectable_change, estimate, pair_figure, pseudo_median

RULES = Rules(threshold=0.02, confidence=0.99, fewest_pairs=4, fewest_pairs_for_same=4, most_pairs=10)
BUSY = OTHERS_LIMIT + 0.2


def block(ratio: float, *, control: float = 1.0, others: float | None = 0.0, base: float = 0.01) -> Block:
    return Block((base, base), (base * ratio, base * ratio), 0.005, 0.005 * control, others)


def pair(*blocks: Block) -> PairTimes:
    return PairTimes("masking", blocks, 6, 3.0)


def figure(percent: float, *, control: float = 0.0, trouble: str = "") -> PairFigure:
    return PairFigure(math.log1p(percent / 100), math.log1p(control / 100), 0.01, 0.0101, 8, 0, 3.0, trouble)


def after(trial: Trial, *percents: float, **more: Any) -> Trial:
    for percent in percents:
        if trial.is_open:
            trial.add(figure(percent, **more))
    return trial


# A pair of processes


@given(st.lists(st.floats(-1e3, 1e3, allow_subnormal=False), min_size=1, max_size=15))
def test_the_pseudo_median_is_the_median_of_the_means_of_pairs(values: list[float]) -> None:
    once, again = np.triu_indices(len(values))
    drawn = np.asarray(values)
    assert pseudo_median(values) == pytest.approx(np.median((drawn[once] + drawn[again]) / 2), rel=1e-12, abs=1e-12)


def test_the_pseudo_median_is_less_uncertain_than_the_median_and_as_deaf() -> None:
    """Of normal values its variance is 1.05 times the mean's, the median's 1.57 times (Hodges and Lehmann)."""
    draws = np.random.Generator(np.random.PCG64(2)).normal(size=(2_000, 24))
    middles = [pseudo_median(list(row)) for row in draws]
    assert 1.0 < np.var(middles) * 24 < 1.2
    assert np.var(np.median(draws, axis=1)) * 24 > 1.3
    assert pseudo_median([*[0.01] * 8, 5.0, -9.0]) == 0.01
    with pytest.raises(MinibertError, match="values: at least 1 is required, but none came"):
        pseudo_median([])


def test_a_pair_is_the_middle_of_its_turns() -> None:
    found = pair_figure(pair(*[block(ratio) for ratio in (1.05, 1.05, 9.0, 1.05, 1.05, 1.05, 0.2, 1.05)]))
    assert found.log_ratio == pytest.approx(math.log(1.05))
    assert (found.blocks, found.discarded, found.trouble) == (8, 0, "")
    assert found.base_seconds == 0.01


def test_a_turn_is_compared_with_the_one_beside_it() -> None:
    slowing = Block((0.01, 0.02), (0.0105, 0.021), 0.005, 0.005, 0.0)
    assert pair_figure(pair(*[slowing] * 3)).log_ratio == pytest.approx(math.log(1.05))
    assert (slowing.base_seconds, slowing.head_seconds) == (pytest.approx(0.015), pytest.approx(0.01575))


def test_blocks_in_which_others_took_the_cores_do_not_count() -> None:
    found = pair_figure(pair(*[block(1.0)] * 8, *[block(5.0, others=BUSY)] * 2))
    assert (found.log_ratio, found.blocks, found.discarded, found.trouble) == (0.0, 8, 2, "")


def test_a_pair_of_which_too_few_blocks_are_left_proves_nothing() -> None:
    found = pair_figure(pair(*[block(1.0)] * 2, block(1.5, others=0.4)))
    assert found.trouble == "other processes took the cores in 1 of 3 blocks"


def test_a_pair_beside_others_on_average_proves_nothing_even_if_its_blocks_count() -> None:
    assert all(each.is_quiet for each in pair(*[block(1.0, others=0.2)] * 8).blocks)
    found = pair_figure(pair(*[block(1.0, others=0.2)] * 8))
    assert (found.trouble, found.log_ratio) == ("other processes took 20% of the cores", 0.0)
    assert not pair_figure(pair(*[block(1.0, others=0.1)] * 8)).trouble


def test_where_nobody_knows_of_others_every_block_counts() -> None:
    assert pair_figure(pair(*[block(1.1, others=None)] * 4)).blocks == 4


@pytest.mark.parametrize("seconds", [0.0, -0.01, math.nan, math.inf])
def test_a_time_that_is_no_positive_number_proves_nothing(seconds: float) -> None:
    good = block(1.0)
    bad = Block((0.01, seconds), (0.01, 0.01), 0.005, 0.005, 0.0)
    found = pair_figure(pair(good, good, good, bad))
    assert found.trouble == "a time that is not a positive number came"
    assert found.log_ratio == 0.0


class FakeWorker:
    """Answers turns from a clock of its own that drifts; whatever follows a turn of the head takes longer."""

    def __init__(
        self, side: str, clock: list[float], orders: list[Any], factor: float, others: float, after_head: float
    ) -> None:
        self.side, self._clock, self._orders, self._factor, self._others = side, clock, orders, factor, others
        self._after_head = after_head

    def ask(self, order: str, **arguments: Any) -> dict[str, Any]:
        extra = self._after_head if self._orders and self._orders[-1][0] == "head" else 0.0
        self._orders.append((self.side, arguments["name"]))
        self._clock[0] += 1
        drift = 1.0 + 0.01 * self._clock[0]
        factor = 1.0 if arguments["name"] == CONTROL else self._factor
        seconds = arguments["steps"] * (0.02 * factor * drift + extra)
        busy = (0.5 + 2 * self._others) * seconds
        waiting = 0.4 if self.side == "head" else 0.0
        return {"seconds": seconds, "busy_seconds": busy, "own_seconds": 0.5 * seconds, "waiting_rate": waiting}


def timed(
    factor: float = 1.0,
    others: float = 0.05,
    seconds: float = 3.0,
    step_seconds: float = 0.02,
    after_head: float = 0.0,
) -> tuple[PairTimes, list[tuple[str, str]]]:
    clock, orders = [0.0], []
    factors = {"base": 1.0, "head": factor, "control": 1.0}
    base, head, control = (FakeWorker(side, clock, orders, each, others, after_head) for side, each in factors.items())
    times = time_pair(
        base, head, control, "masking", seconds=seconds, step_seconds=step_seconds, control_seconds=0.005, cores=2
    )
    return times, orders


def test_one_side_steps_at_a_time_in_the_order_a_b_b_a() -> None:
    times, orders = timed()
    assert [side for side, _ in orders[:16:2]] == ["base", "head", "head", "base", "head", "base", "base", "head"]
    assert orders[1::2] == [("control", CONTROL)] * (4 * len(times.blocks))
    assert len(times.blocks) >= 4


def test_the_control_is_told_by_the_side_that_stepped_before_it() -> None:
    """That of the head takes longer by the extra time that is planted after the head's turns; drift falls out."""
    times, _ = timed(after_head=0.001)
    for each in times.blocks:
        assert each.control_head_seconds - each.control_base_seconds == pytest.approx(0.001)


@pytest.mark.parametrize("seconds", [0.01, 0.3, 0.5, 0.7, 3.0])
def test_each_side_begins_as_many_blocks_as_the_other(seconds: float) -> None:
    """What favours a turn for its place, such as a warm cache, would otherwise favour a side, in every pair alike."""
    times, orders = timed(seconds=seconds)
    begins = [side for side, _ in orders[::8]]
    assert len(times.blocks) == len(begins)
    assert begins.count("base") == begins.count("head")


@pytest.mark.parametrize(("step_seconds", "steps"), [(1.0, 1), (0.02, 1), (0.005, 4)])
def test_a_turn_is_one_step_unless_a_step_is_short(step_seconds: float, steps: int) -> None:
    assert timed(step_seconds=step_seconds)[0].steps == steps


def test_what_a_side_does_while_it_waits_is_told() -> None:
    times, _ = timed()
    assert (times.base_waiting_rate, times.head_waiting_rate) == (0.0, 0.4)
    assert pair_figure(times).trouble == (
        "the sides kept 0.00 (base) and 0.40 (head) cores busy while they waited for their turns"
    )


def test_disturbed_blocks_are_made_up_for_but_not_for_ever() -> None:
    quiet, _ = timed()
    busy, _ = timed(others=0.3)
    assert not any(each.is_quiet for each in busy.blocks)
    assert 1.8 < busy.stepping_seconds / quiet.stepping_seconds < 2.3


@pytest.mark.parametrize("others", [0.05, 0.3])
@pytest.mark.parametrize("seconds", [0.01, 0.8, 1.5, 3.0])
def test_a_pair_that_is_shortened_is_what_fewer_seconds_would_have_given(seconds: float, others: float) -> None:
    asked, _ = timed(others=others, seconds=seconds)
    cut = shortened(timed(others=others)[0], seconds)
    assert cut.blocks == asked.blocks
    assert cut.stepping_seconds == pytest.approx(asked.stepping_seconds)


def test_a_steady_drift_falls_out_of_a_block() -> None:
    times, _ = timed(1.05)
    for each in times.blocks:
        assert each.head_seconds / each.base_seconds == pytest.approx(1.05, rel=1e-9)
        assert each.others_rate == pytest.approx(0.05)


# Intervals


@given(st.lists(st.floats(-0.2, 0.2, allow_subnormal=False), min_size=2, max_size=12))
def test_an_interval_holds_its_mean_and_is_finite(values: list[float]) -> None:
    found = estimate(values, confidence=0.99)
    assert found.low <= found.log_ratio + 1e-12
    assert found.high >= found.log_ratio - 1e-12
    assert math.isfinite(found.low)
    assert math.isfinite(found.high)
    assert math.isfinite(detectable_change(found, threshold=0.025, confidence=0.99))


def test_equal_values_have_an_interval_without_width() -> None:
    found = estimate([0.01] * 10, confidence=0.99)
    assert (found.low, found.high, found.standard_error) == (pytest.approx(0.01), pytest.approx(0.01), 0.0)


@pytest.mark.parametrize("count", [4, 10])
def test_an_interval_covers_the_truth_as_often_as_it_says(count: int) -> None:
    generator = np.random.Generator(np.random.PCG64(1))
    missed = 0
    for _ in range(200):
        found = estimate(list(generator.normal(0.0, 0.01, count)), confidence=0.95)
        missed += not found.low <= 0 <= found.high
    assert missed <= 18  # 10 are expected; more than 18 come by chance once in 150


@pytest.mark.parametrize("values", [[0.1], [], [0.1, math.nan], [0.1, math.inf]])
def test_an_interval_needs_two_finite_values(values: list[float]) -> None:
    with pytest.raises(MinibertError, match=r"log_ratios: at least 2 finite numbers are required, but \["):
        estimate(values, confidence=0.99)


def test_one_stored_process_widens_the_interval() -> None:
    values = [0.010, 0.012, 0.008, 0.011]
    alone, beside_one = estimate(values, confidence=0.99), estimate(values, confidence=0.99, base=[0.3])
    beside_four = estimate(values, confidence=0.99, base=[0.301, 0.299, 0.302, 0.298])
    assert beside_one.high - beside_one.low > 2 * (alone.high - alone.low)
    assert beside_four.high - beside_four.low < beside_one.high - beside_one.low


def test_more_scatter_detects_less() -> None:
    quiet, noisy = (
        estimate([0.001, -0.001, 0.0, 0.0005], confidence=0.99),
        estimate([0.02, -0.02, 0.0, 0.01], confidence=0.99),
    )
    small, large = (detectable_change(found, threshold=0.025, confidence=0.99) for found in (quiet, noisy))
    assert 0.025 < small < 0.032
    assert large > 0.05


# Verdicts


@pytest.mark.long
@pytest.mark.parametrize("scatter", [0.4, 1.0])
def test_what_is_called_detectable_is_found_in_95_of_100_gates(scatter: float) -> None:
    """A gate on no change says what it would detect; another one, on that change, calls it slower."""
    generator = np.random.Generator(np.random.PCG64(10))

    def gate(percent: float) -> Decision:
        trial = Trial(RULES)
        while trial.is_open:
            trial.add(figure(percent + float(generator.normal(0.0, scatter))))
        return trial.end("")

    gates, found = 250, 0
    for _ in range(gates):
        detectable = gate(0.0).detectable
        assert detectable is not None
        found += gate(100 * detectable).verdict == SLOWER
    # Of 250 gates with a rate of 95 %, fewer than 227 are once in 300 times; with 86 %, the old formula's, mostly.
    assert found >= 227


def test_no_change_is_the_same_after_the_fewest_pairs() -> None:
    trial = after(Trial(RULES), 0.1, -0.1, 0.2, 0.0)
    assert not trial.is_open
    assert trial.end("").verdict == SAME
    assert trial.end("").reason == "a slowdown of 5.0% is ruled out"


def test_the_same_is_not_said_of_a_few_pairs_that_happen_to_agree() -> None:
    trial = after(Trial(dataclasses.replace(RULES, fewest_pairs_for_same=6)), 0.1, -0.1, 0.2, 0.0, 0.1)
    assert trial.is_open
    assert not after(trial, -0.2).is_open
    assert trial.end("").verdict == SAME


def test_a_repeat_goes_on_where_its_first_pairs_say_the_same() -> None:
    trial = after(Trial(RULES), *[4.0, 4.1, 3.9, 4.0], *[1.5, 1.4, 1.6, 1.5])
    assert trial.is_open
    assert after(trial, *[6.0, 6.1, 5.9, 6.0, 5.9, 6.1]).end("").verdict == SLOWER


def test_a_slowdown_is_called_one_only_after_a_repeat() -> None:
    trial = after(Trial(RULES), 5.0, 5.2, 4.9, 5.1)
    assert trial.is_open
    after(trial, 5.0, 5.1, 5.2)
    assert trial.is_open
    decision = after(trial, 4.9).end("")
    assert decision.verdict == SLOWER
    assert decision.repeat is not None
    assert decision.repeat.pairs == 4
    assert decision.found is not None
    assert decision.found.pairs == 8


def test_a_change_that_does_not_come_again_is_none() -> None:
    decision = after(Trial(RULES), 3.0, 3.1, 2.9, 3.0, *[0.0, 0.1, -0.1, 0.0, 0.1] * 2).end("")
    assert decision.verdict == SAME
    assert "a repeat did not confirm the change" in decision.reason


def test_a_change_that_comes_again_the_other_way_is_not_confirmed() -> None:
    decision = after(Trial(RULES), *[9.0, 9.1, 8.9, 9.0], *[-9.0, -9.1, -8.9, -9.0] * 3).end("")
    assert decision.verdict == UNPROVEN


@pytest.mark.parametrize("first", [-4.0, 4.0])
def test_parts_that_contradict_each_other_prove_nothing(first: float) -> None:
    """Ten pairs of a repeat outweigh four, so that the mean of all looks like no change at all."""
    again = [-first + noise for noise in (0.0, 0.1, -0.1, 0.0)] * 2 + [-first] * 2
    decision = after(Trial(RULES), first, first + 0.1, first - 0.1, first, *again).end("")
    assert decision.verdict == UNPROVEN
    assert "and its repeat the opposite" in decision.reason


def test_a_repeat_that_says_the_opposite_until_the_time_is_over_proves_nothing() -> None:
    decision = after(Trial(RULES), -4.0, -4.1, -3.9, -4.0, 4.0).end("the time limit is reached")
    assert decision.verdict == UNPROVEN


def test_a_speedup_is_called_one() -> None:
    assert after(Trial(RULES), *[-8.0, -8.1, -7.9, -8.0] * 2).end("").verdict == FASTER


def test_a_slowdown_below_the_threshold_is_none() -> None:
    assert after(Trial(RULES), 1.5, 1.6, 1.7, 1.6).end("").verdict == SAME


def test_scatter_takes_more_pairs_and_is_unproven_in_the_end() -> None:
    trial = after(Trial(RULES), *[-9.0, 12.0] * 5)
    assert len(trial.first) == RULES.most_pairs
    assert trial.end("").verdict == UNPROVEN


@pytest.mark.parametrize(("control_confidence", "verdict"), [(0.999, SLOWER), (0.98, UNPROVEN)])
def test_a_control_that_moved_by_chance_takes_no_answer_away(control_confidence: float, verdict: str) -> None:
    """Its mean over 16 pairs is 2 %, 3.3 standard errors: outside a 98 % interval, within one of 99.9 %."""
    trial = Trial(dataclasses.replace(Rules(), control_confidence=control_confidence))
    for sign in [1, -1] * 8:
        trial.add(figure(5.0 + 0.1 * sign, control=2.0 + 2.3 * sign))
    assert trial.end("").verdict == verdict


def test_a_control_that_moved_makes_every_answer_unproven() -> None:
    for percent in (0.0, 6.0, -6.0):
        percents = [percent, percent + 0.1, percent - 0.1, percent] * 5
        decision = after(Trial(RULES), *percents, control=3.0).end("")
        assert decision.verdict == UNPROVEN
        assert decision.reason == "the control workload moved by +3.0%: the machine changed"


def test_pairs_that_prove_nothing_end_as_unproven() -> None:
    trial = after(Trial(RULES), *[0.0] * 20, trouble="other processes took the cores in 4 of 7 blocks")
    assert not trial.is_open
    decision = trial.end("")
    assert decision.verdict == UNPROVEN
    assert decision.reason == "other processes took the cores in 4 of 7 blocks, in 6 pairs of processes"


def test_the_time_limit_ends_an_open_answer_as_unproven() -> None:
    trial = after(Trial(RULES), 5.0, 5.1)
    decision = trial.end("the time limit of 60 s of stepping is reached")
    assert decision.verdict == UNPROVEN
    assert "2 pairs of processes are too few" in decision.reason


def test_a_claim_without_its_repeat_is_unproven() -> None:
    decision = after(Trial(RULES), 9.0, 9.1, 8.9, 9.0, 9.0).end("the time limit is reached")
    assert (decision.verdict, decision.reason) == (UNPROVEN, "the time limit is reached")


@pytest.mark.parametrize(("percent", "verdict"), [(0.0, SAME), (5.0, SLOWER), (10.0, SLOWER), (-10.0, FASTER)])
def test_with_the_scatter_of_a_quiet_machine_the_verdict_is_right(percent: float, verdict: str) -> None:
    generator = np.random.Generator(np.random.PCG64(2))
    wrong = 0
    for _ in range(100):
        trial = Trial(RULES)
        while trial.is_open:
            trial.add(figure(percent + float(generator.normal(0.0, 0.5))))
        wrong += trial.end("").verdict != verdict
    assert wrong == 0
