"""Masks are the published recipe, a function of names alone, and as random as they claim to be."""

from __future__ import annotations

import dataclasses
import functools
import multiprocessing
from concurrent.futures import ProcessPoolExecutor
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from minibert.errors import SettingsError
from minibert.masking import MaskedTokens, mask_tokens
from minibert.settings import MaskingSettings
from minibert.streams import Stream
from tests import oracles, strategies
from tests.chance import z_of_correlation, z_of_count, z_of_counts
from tests.golden import make
from tests.strategies import masking_cases, times

NOTEBOOK = MaskingSettings(vocabulary_size=30_000)
EVERY_EPOCH = dataclasses.replace(NOTEBOOK, static=False)
SMALL = MaskingSettings(vocabulary_size=20, selection_rate=0.5, random_rate=0.5, static=False)


def assert_equal(left: MaskedTokens, right: MaskedTokens) -> None:
    """Same values and shapes; NumPy's own types may differ."""
    for field, of_left, of_right in zip(MaskedTokens._fields, left, right, strict=True):
        assert of_left.shape == of_right.shape, field
        assert np.array_equal(of_left, of_right), field


def part_of(masked: MaskedTokens, index: object) -> MaskedTokens:
    """The same examples, or columns, of all three arrays."""
    return MaskedTokens(*(array[index] for array in masked))


def corpus(examples: int, length: int, *, vocabulary_size: int = 30_000, seed: int = 0) -> np.ndarray:
    """Token ids with every kind of special id, by a generator that has nothing to do with ours."""
    return np.random.Generator(np.random.PCG64(seed)).integers(0, vocabulary_size, (examples, length))


# What a mask is


@times(4)
@given(case=masking_cases())
@example(case={"token_ids": np.array([[3, 4]]), "seed": 0, "epoch": 1, "example_ids": np.array([0]),
               "settings": MaskingSettings(vocabulary_size=6, selection_rate=1.0, random_rate=1.0)})  # fmt: skip
@example(case={"token_ids": np.array([[0, 1]]), "seed": 0, "epoch": 0, "example_ids": np.array([0]),
               "settings": MaskingSettings(vocabulary_size=2, selection_rate=1.0, replacement_rate=1.0,
                                           random_rate=1.0, protected_ids=())})  # fmt: skip
def test_whole_array_agrees_with_the_oracle(case):
    masked = mask_tokens(**case)
    known = list(oracles.mask_tokens(**{**case, "token_ids": case["token_ids"].tolist(),
                                        "example_ids": case["example_ids"].tolist()}))  # fmt: skip
    for field, array in enumerate(masked):
        assert array.tolist() == [[token[field] for token in row] for row in known], MaskedTokens._fields[field]


@times(3)
@given(settings=strategies.masking_settings(), random_id=st.integers(0, 40))
@example(settings=MaskingSettings(vocabulary_size=9, selection_rate=1.0, replacement_rate=1.0, random_rate=1.0),
         random_id=4)  # fmt: skip
@example(settings=MaskingSettings(vocabulary_size=2, selection_rate=1.0, replacement_rate=1.0, random_rate=1.0,
                                  protected_ids=()), random_id=0)  # fmt: skip
@example(settings=SMALL, random_id=0)
def test_words_on_every_edge_agree_with_the_oracle(settings, random_id):
    """Chance never draws a word on a threshold, so they are put there: each edge and the words beside it."""
    selected = oracles.threshold(settings.selection_rate)
    replaced = int(selected * Fraction(settings.replacement_rate))
    random = int(replaced * Fraction(settings.random_rate))
    ids = sorted(set(range(settings.mask_id)) - set(settings.protected_ids))
    within = max(random // max(len(ids), 1), 1) * random_id
    edges = [edge + beside for edge in (0, within, random, replaced, selected, 2**64) for beside in (-1, 0, 1)]
    words = [word for word in edges if 0 <= word < 2**64]
    token_ids = [[ids[0] if ids else 0] * len(words)]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Stream, "rows", lambda *_: np.array([words], dtype=np.uint64))
        patch.setattr(oracles, "word", lambda _key, _row, number: words[number])
        masked = mask_tokens(token_ids, seed=0, settings=settings)
        known = list(oracles.mask_tokens(token_ids, seed=0, epoch=0, example_ids=[0], settings=settings))
    assert list(zip(*(array[0].tolist() for array in masked), strict=True)) == known[0]


@times(4)
@given(case=masking_cases())
def test_masking_is_what_the_recipe_says(case):
    token_ids, settings = case["token_ids"], case["settings"]
    masked = mask_tokens(**case)
    selected = masked.sample_weight == 1.0
    protected = np.isin(token_ids, [*settings.protected_ids, settings.mask_id])
    changed = masked.token_ids != token_ids

    assert np.isin(masked.sample_weight, [0.0, 1.0]).all(), "weights are 1 or 0"
    assert np.array_equal(masked.labels, token_ids), "labels restore the input"
    assert not changed[~selected].any(), "what is not selected is untouched"
    assert not selected[protected].any(), "protected ids are never selected"
    drawn = masked.token_ids[changed & (masked.token_ids != settings.mask_id)]
    assert not np.isin(drawn, settings.protected_ids).any(), "protected ids are never drawn"


@given(case=masking_cases(), dtype=strategies.integer_dtypes)
def test_result_keeps_shape_and_dtype_and_shares_no_memory(case, dtype):
    token_ids = case["token_ids"] = case["token_ids"].astype(dtype)
    before = token_ids.copy()
    token_ids.setflags(write=False)
    masked = mask_tokens(**case)
    assert [array.shape for array in masked] == [token_ids.shape] * 3
    assert [array.dtype for array in masked] == [token_ids.dtype, token_ids.dtype, np.float32]
    assert np.array_equal(token_ids, before)
    arrays = [token_ids, *masked]
    assert not any(np.shares_memory(a, b) for i, a in enumerate(arrays) for b in arrays[:i])
    assert all(array.flags.writeable for array in masked)


@pytest.mark.parametrize(
    ("rates", "share_of_kind"),
    [
        ((0.0, 0.9, 0.5), {"untouched": 1.0}),
        ((1.0, 0.0, 0.5), {"kept": 1.0}),
        ((1.0, 1.0, 0.0), {"[mask]": 1.0}),
        ((1.0, 1.0, 1.0), {"random": 1.0}),
    ],
)
def test_rates_at_their_ends_are_certain(rates, share_of_kind):
    names = ("selection_rate", "replacement_rate", "random_rate")
    settings = MaskingSettings(vocabulary_size=1_000, **dict(zip(names, rates, strict=True)))
    token_ids = corpus(300, 40, vocabulary_size=996) + 3
    assert shares_of_kinds(token_ids, settings) == share_of_kind


def shares_of_kinds(token_ids: np.ndarray, settings: MaskingSettings) -> dict[str, float]:
    """The share of each kind that occurs; a random word that is the original by chance still counts as random."""
    masked = mask_tokens(token_ids, seed=0, settings=settings)
    selected, changed = masked.sample_weight > 0, masked.token_ids != token_ids
    is_mask = selected & (masked.token_ids == settings.mask_id)
    is_random = selected & ~is_mask & (settings.random_rate == 1.0)
    kinds = {
        "untouched": ~selected & ~changed,
        "kept": selected & ~changed & ~is_random,
        "[mask]": is_mask,
        "random": is_random,
    }
    return {kind: float(there.mean()) for kind, there in kinds.items() if there.any()}


def test_mask_token_in_the_text_is_left_alone():
    """The notebooks forgot it; their other ids are protected by settings, this one always."""
    token_ids = np.full((50, 50), 19)
    masked = mask_tokens(token_ids, seed=0, settings=dataclasses.replace(SMALL, selection_rate=1.0, protected_ids=()))
    assert not masked.sample_weight.any()
    assert np.array_equal(masked.token_ids, token_ids)


def test_every_unprotected_id_can_be_drawn_and_no_other():
    settings = MaskingSettings(vocabulary_size=30, selection_rate=1.0, replacement_rate=1.0, random_rate=1.0,
                               protected_ids=(0, 7, 28))  # fmt: skip
    masked = mask_tokens(np.full((100, 100), 5), seed=0, settings=settings)
    assert sorted(set(masked.token_ids.ravel().tolist())) == sorted(set(range(29)) - {0, 7, 28})


def test_nothing_to_draw_and_nothing_to_select_is_no_error():
    settings = MaskingSettings(vocabulary_size=3, selection_rate=1.0, random_rate=1.0)
    token_ids = np.array([[0, 1, 2, 2]])
    assert_equal(mask_tokens(token_ids, seed=0, settings=settings), MaskedTokens(token_ids, token_ids, token_ids * 0.0))


@pytest.mark.parametrize("shape", [(0, 0), (0, 4), (4, 0), (0,)])
def test_nothing_masks_to_nothing(shape):
    assert [array.shape for array in mask_tokens(np.zeros(shape, dtype=int), seed=0, settings=SMALL)] == [shape] * 3
    assert mask_tokens([], seed=0, settings=SMALL).token_ids.shape == (0,)


def test_a_single_example_is_an_array_of_one():
    token_ids = corpus(1, 60, vocabulary_size=20)
    alone = mask_tokens(token_ids[0], seed=4, example_ids=[6], settings=SMALL)
    assert_equal(alone, part_of(mask_tokens(token_ids, seed=4, example_ids=[6], settings=SMALL), 0))


def test_result_unpacks_and_has_names():
    masked = mask_tokens([[3, 4, 5]], seed=0, settings=SMALL)
    token_ids, labels, sample_weight = masked
    assert token_ids is masked.token_ids
    assert labels is masked.labels
    assert sample_weight is masked.sample_weight


# What a mask does not depend on


@given(case=masking_cases(), order=st.randoms(use_true_random=False), batch_size=st.integers(1, 6))
def test_masks_do_not_depend_on_batch_size_order_or_neighbours(case, order, batch_size):
    whole = mask_tokens(**case)
    places = order.sample(range(len(whole.labels)), len(whole.labels))
    for start in range(0, len(places), batch_size):
        batch = places[start : start + batch_size]
        part = mask_tokens(**{**case, "token_ids": case["token_ids"][batch], "example_ids": case["example_ids"][batch]})
        assert_equal(part, part_of(whole, batch))


@pytest.mark.parametrize("batch_size", [1, 7, 32, 255, 256, 257, 600, 1_000])
def test_masks_of_a_large_array_do_not_depend_on_batch_size(batch_size):
    token_ids = corpus(600, 33, vocabulary_size=20)
    whole = mask_tokens(token_ids, seed=1, epoch=2, settings=SMALL)
    batches = [
        mask_tokens(token_ids[start : start + batch_size], seed=1, epoch=2, settings=SMALL,
                    example_ids=range(600)[start : start + batch_size])
        for start in range(0, 600, batch_size)
    ]  # fmt: skip
    assert_equal(MaskedTokens(*map(np.concatenate, zip(*batches, strict=True))), whole)


def test_masks_follow_example_ids_through_any_order():
    token_ids, order = corpus(600, 33, vocabulary_size=20), np.random.Generator(np.random.PCG64(0)).permutation(600)
    whole = mask_tokens(token_ids, seed=1, settings=SMALL)
    shuffled = mask_tokens(token_ids[order], seed=1, settings=SMALL, example_ids=order)
    assert_equal(shuffled, part_of(whole, order))


def test_examples_are_numbered_from_0_by_default():
    token_ids = corpus(5, 40, vocabulary_size=20)
    by_default = mask_tokens(token_ids, seed=1, settings=SMALL)
    assert_equal(mask_tokens(token_ids, seed=1, settings=SMALL, example_ids=range(5)), by_default)


def test_equal_examples_with_equal_ids_get_equal_masks():
    masked = mask_tokens(np.full((3, 40), 5), seed=1, settings=SMALL, example_ids=[8, 8, 9])
    assert_equal(part_of(masked, 0), part_of(masked, 1))
    assert not np.array_equal(masked.sample_weight[0], masked.sample_weight[2])


@given(case=masking_cases(), padding=st.integers(0, 9))
def test_masks_do_not_depend_on_padding_or_text_beyond(case, padding):
    token_ids = case["token_ids"]
    masked = mask_tokens(**case)
    for filler in (0, int(token_ids.max(initial=0))):
        longer = np.pad(token_ids, ((0, 0), (0, padding)), constant_values=filler)
        beyond = mask_tokens(**{**case, "token_ids": longer})
        assert_equal(part_of(beyond, np.s_[:, : token_ids.shape[1]]), masked)


@given(case=masking_cases(), data=st.data())
def test_a_token_does_not_depend_on_the_other_tokens(case, data):
    size = case["settings"].vocabulary_size
    token_ids, other = case["token_ids"], case["token_ids"].copy()
    same = np.array(data.draw(st.lists(st.booleans(), min_size=other.size, max_size=other.size)), dtype=bool)
    same = same.reshape(other.shape)
    other[~same] = (other[~same] + data.draw(st.integers(1, 9))) % size
    assert_equal(part_of(mask_tokens(**{**case, "token_ids": other}), same),
                 part_of(mask_tokens(**{**case, "token_ids": token_ids}), same))  # fmt: skip


@given(case=masking_cases(), dtype=strategies.integer_dtypes)
def test_masks_do_not_depend_on_dtype_or_memory_layout(case, dtype):
    masked = mask_tokens(**case)
    token_ids = case["token_ids"]
    spread = np.zeros((2 * len(token_ids), 3 * token_ids.shape[1]), dtype=token_ids.dtype)[::2, ::3]
    spread[:] = token_ids
    for same_ids in (token_ids.astype(dtype), np.asfortranarray(token_ids), spread):
        assert_equal(mask_tokens(**{**case, "token_ids": same_ids}), masked)
    if token_ids.size:
        assert_equal(mask_tokens(**{**case, "token_ids": token_ids.tolist()}), masked)
    numbers = case["example_ids"].tolist()
    for same_numbers in (numbers, tuple(numbers), np.array(numbers, dtype=np.uint64), np.array(numbers, dtype=">i8")):
        assert_equal(mask_tokens(**{**case, "example_ids": same_numbers}), masked)


@given(case=masking_cases(), other=masking_cases())
def test_masks_do_not_depend_on_what_was_masked_before(case, other):
    first = mask_tokens(**case)
    mask_tokens(**other)
    np.random.seed(0)  # noqa: NPY002  (the global generator is what must not matter)
    assert_equal(mask_tokens(**case), first)


def step_of_a_run(step: int) -> dict[str, object]:
    """What a run masks in one step of a shuffled corpus of 200 examples: 13 steps for each epoch."""
    epoch, first = divmod(step * 16, 208)
    order = np.random.Generator(np.random.PCG64(epoch)).permutation(200)[first : first + 16]
    token_ids = corpus(200, 24, vocabulary_size=20)[order]
    return {"token_ids": token_ids, "seed": 3, "epoch": epoch, "example_ids": order, "settings": SMALL}


@functools.cache
def uninterrupted() -> list[MaskedTokens]:
    """The masks of two epochs, in one go."""
    return [mask_tokens(**step_of_a_run(step)) for step in range(26)]


@pytest.mark.parametrize("resumed_at", [1, 12, 13, 14, 25])
def test_masks_do_not_depend_on_the_resume_point(resumed_at):
    for step, masked in enumerate(uninterrupted()[resumed_at:], start=resumed_at):
        assert_equal(mask_tokens(**step_of_a_run(step)), masked)


def test_masks_do_not_depend_on_workers():
    """Fresh processes, which take the steps as they come, or a shard of the examples each."""
    token_ids = corpus(200, 24, vocabulary_size=20)
    whole = mask_tokens(token_ids, seed=3, epoch=1, settings=SMALL)
    shards = [np.arange(shard, 200, 3) for shard in range(3)]
    with ProcessPoolExecutor(2, mp_context=multiprocessing.get_context("spawn")) as pool:
        steps = [pool.submit(mask_tokens, **step_of_a_run(step)) for step in range(26)]
        parts = [
            pool.submit(mask_tokens, token_ids[shard], seed=3, epoch=1, settings=SMALL, example_ids=shard)
            for shard in shards
        ]
        for step, alone in zip(steps, uninterrupted(), strict=True):
            assert_equal(step.result(timeout=60), alone)
        for part, shard in zip(parts, shards, strict=True):
            assert_equal(part.result(timeout=60), part_of(whole, shard))


# What a mask does depend on


@given(case=masking_cases())
def test_static_masks_are_those_of_epoch_0_for_ever(case):
    static, dynamic = (dataclasses.replace(case["settings"], static=static) for static in (True, False))
    of_epoch_0 = mask_tokens(**{**case, "epoch": 0, "settings": dynamic})
    assert_equal(mask_tokens(**{**case, "settings": static}), of_epoch_0)


@pytest.mark.parametrize(
    "changed", [{"seed": 1}, {"epoch": 1}, {"example_ids": np.arange(1, 201)}, {"seed": 1, "epoch": 1}]
)
def test_seed_epoch_and_example_each_change_the_mask(changed):
    case = {"token_ids": np.full((200, 50), 5), "seed": 0, "epoch": 0, "settings": EVERY_EPOCH,
            "example_ids": np.arange(200)}  # fmt: skip
    one, other = mask_tokens(**case), mask_tokens(**{**case, **changed})
    both = int(((one.sample_weight > 0) & (other.sample_weight > 0)).sum())
    assert abs(z_of_count(both, 10_000, 0.15**2)) < 4


def test_seed_1_epoch_0_is_not_seed_0_epoch_1():
    token_ids = np.full((200, 50), 5)
    one = mask_tokens(token_ids, seed=1, epoch=0, settings=EVERY_EPOCH)
    other = mask_tokens(token_ids, seed=0, epoch=1, settings=EVERY_EPOCH)
    both = int(((one.sample_weight > 0) & (other.sample_weight > 0)).sum())
    assert abs(z_of_count(both, 10_000, 0.15**2)) < 4


def test_a_higher_rate_selects_more_of_the_same_tokens():
    """One word decides, so that runs with neighbouring rates can be compared token by token."""
    token_ids = corpus(200, 50)
    selected = [
        mask_tokens(token_ids, seed=0, settings=dataclasses.replace(NOTEBOOK, selection_rate=rate)).sample_weight > 0
        for rate in (0.1, 0.15, 0.2)
    ]
    assert not (selected[0] & ~selected[1]).any()
    assert not (selected[1] & ~selected[2]).any()
    assert selected[0].sum() < selected[1].sum() < selected[2].sum()


# Chance: ten million tokens, none of them protected

EXAMPLES, LENGTH = 39_063, 256
TOKENS = EXAMPLES * LENGTH


@functools.cache
def ordinary_tokens() -> np.ndarray:
    """Ids from 3 to 29,998, each equally likely, int16."""
    return np.random.Generator(np.random.PCG64(0)).integers(3, 29_999, (EXAMPLES, LENGTH), dtype=np.int16)


@functools.cache
def selected_tokens(seed: int, epoch: int) -> np.ndarray:
    """Where the notebooks' settings select, with new masks for every epoch; (EXAMPLES, LENGTH) bool."""
    return mask_tokens(ordinary_tokens(), seed=seed, epoch=epoch, settings=EVERY_EPOCH).sample_weight > 0


@functools.cache
def ten_million() -> dict[str, np.ndarray]:
    """Seed 0, epoch 0: the flat original ids and masked ids of what is selected, and their places."""
    masked = mask_tokens(ordinary_tokens(), seed=0, settings=NOTEBOOK)
    places = np.flatnonzero(masked.sample_weight)
    originals = ordinary_tokens().ravel()[places].astype(np.int64)
    return {"places": places, "originals": originals, "masked": masked.token_ids.ravel()[places].astype(np.int64)}


def test_rates_are_the_published_ones():
    """15 % selected; of them 90 % replaced; of them 8/9 [mask] and 1/9 random: 80, 10 and 10 % in all."""
    ids = ten_million()
    selected = len(ids["places"])
    mask = int((ids["masked"] == NOTEBOOK.mask_id).sum())
    unchanged = int((ids["masked"] == ids["originals"]).sum())
    changed_at_random = selected - mask - unchanged
    random_rate = 0.1 * (1 - 1 / 29_996)  # one random word in 29,996 is the original
    z = {
        "selected": z_of_count(selected, TOKENS, 0.15),
        "[mask]": z_of_count(mask, selected, 0.8),
        "random": z_of_count(changed_at_random, selected, random_rate),
        "kept": z_of_count(unchanged, selected, 0.2 - random_rate),
        "[mask] of the replaced": z_of_count(mask, mask + changed_at_random, 0.8 / (0.8 + random_rate)),
        "[mask] of all": z_of_count(mask, TOKENS, 0.12),
        "random of all": z_of_count(changed_at_random, TOKENS, 0.15 * random_rate),
    }
    assert {what: value for what, value in z.items() if abs(value) >= 4} == {}


def test_random_words_are_uniform():
    """Among the published rates' own, and among ten million of nothing but random words."""
    ids = ten_million()
    drawn = ids["masked"][(ids["masked"] != NOTEBOOK.mask_id) & (ids["masked"] != ids["originals"])]
    everything_random = dataclasses.replace(NOTEBOOK, selection_rate=1.0, replacement_rate=1.0, random_rate=1.0)
    all_drawn = mask_tokens(ordinary_tokens(), seed=0, settings=everything_random).token_ids.ravel()
    for what, values in (("published", drawn), ("nothing but random", all_drawn)):
        counts = np.bincount(values, minlength=30_000)
        assert counts[:3].sum() == counts[29_999] == 0, what
        assert abs(z_of_counts(counts[3:29_999], len(values) / 29_996)) < 4, what


def test_random_words_depend_neither_on_the_original_nor_on_the_position():
    ids = ten_million()
    random = (ids["masked"] != NOTEBOOK.mask_id) & (ids["masked"] != ids["originals"])
    drawn = ids["masked"][random]
    assert abs(z_of_correlation(drawn, ids["originals"][random])) < 4
    assert abs(z_of_correlation(drawn, ids["places"][random] % LENGTH)) < 4
    assert abs(z_of_correlation(drawn[1:], drawn[:-1])) < 4


def test_selection_depends_neither_on_position_nor_on_example_nor_on_the_word():
    """Counts by position, by example and by id have no more spread than chance gives them."""
    selected = selected_tokens(0, 0)
    ids = ordinary_tokens().astype(np.int64)
    share = selected.mean()
    spread = 1.0 - share  # a binomial count varies less than the Poisson of the chi-square by this factor
    for what, counts, trials in (
        ("position", selected.sum(axis=0), EXAMPLES),
        ("example", selected.sum(axis=1), LENGTH),
        ("id", np.bincount(ids[selected], minlength=29_999)[3:], np.bincount(ids.ravel(), minlength=29_999)[3:]),
    ):
        expected = trials * share
        assert abs(z_of_counts(expected + (counts - expected) / np.sqrt(spread), expected)) < 4, what


NEIGHBOURS = {
    "adjacent seeds": lambda: (selected_tokens(0, 0), selected_tokens(1, 0)),
    "adjacent epochs": lambda: (selected_tokens(0, 0), selected_tokens(0, 1)),
    "seed 1 epoch 0 and seed 0 epoch 1": lambda: (selected_tokens(1, 0), selected_tokens(0, 1)),
    "adjacent examples": lambda: (selected_tokens(0, 0)[1:], selected_tokens(0, 0)[:-1]),
    "adjacent positions": lambda: (selected_tokens(0, 0)[:, 1:], selected_tokens(0, 0)[:, :-1]),
    "positions 4 apart": lambda: (selected_tokens(0, 0)[:, 4:], selected_tokens(0, 0)[:, :-4]),
    "diagonal": lambda: (selected_tokens(0, 0)[1:, 1:], selected_tokens(0, 0)[:-1, :-1]),
}


@pytest.mark.parametrize("neighbours", NEIGHBOURS)
def test_selection_of_neighbours_does_not_correlate(neighbours):
    assert abs(z_of_correlation(*NEIGHBOURS[neighbours]())) < 4


@pytest.mark.long
def test_no_two_of_500_000_examples_have_the_same_mask():
    """1,000 texts in 500 epochs, each by its mask: 64 tokens, half of them selected."""
    settings = MaskingSettings(vocabulary_size=20, selection_rate=0.5, static=False)
    token_ids = np.full((1_000, 64), 5, dtype=np.int8)
    seen = [
        np.packbits(mask_tokens(token_ids, seed=0, epoch=epoch, settings=settings).sample_weight > 0, axis=1)
        for epoch in range(500)
    ]
    assert len(np.unique(np.concatenate(seen).view(np.uint64))) == 500_000


# Known answers and bad input


def test_known_answers_are_what_the_code_gives():
    assert make.GOLDENS["masking.txt"]() == make.read("masking.txt")


def test_known_answers_are_what_the_oracle_gives():
    """Token by token up to the last selected token of each example, so that the gaps count too."""
    checked, block, rates = 0, {}, NOTEBOOK
    for line in make.read("masking.txt").splitlines():
        name, _, entries = line.partition(": ")
        if line.startswith("#"):
            block = dict(field.split("=") for field in line[2:].split())
            rates = dataclasses.replace(NOTEBOOK, static=block["static"] == "True")
            continue
        position = -1
        for entry in entries.split():
            gap = int(entry.rstrip("mk").split("r")[0])
            tokens = [
                oracles.mask_token(make.masking_token_id(int(name), at), seed=int(block["seed"]), position=at,
                                   epoch=int(block["epoch"]), example_id=int(name), settings=rates)
                for at in range(position + 1, position + gap + 1)
            ]  # fmt: skip
            position += gap
            masked_id, token_id, weight = tokens[-1]
            assert not any(token[2] for token in tokens[:-1])
            assert weight == 1.0
            kind = "k" if masked_id == token_id else "m" if masked_id == 29_999 else f"r{masked_id}"
            assert entry == f"{gap}{kind}"
            checked += 1
    assert checked == 10_000


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"token_ids": [[1, 2], [3]]}, "token_ids: rows of equal length are required, but ragged ones came"),
        ({"token_ids": 3}, "token_ids: shape (examples, sequence) is required, but () came"),
        ({"token_ids": [[[3]]]}, "token_ids: shape (examples, sequence) is required, but (1, 1, 1) came"),
        ({"token_ids": [[3.0]]}, "token_ids: integers are required, but float64 came"),
        ({"token_ids": [[True]]}, "token_ids: integers are required, but bool came"),
        ({"token_ids": [["a"]]}, "token_ids: integers are required, but <U1 came"),
        ({"token_ids": [[None]]}, "token_ids: integers are required, but object came"),
        ({"token_ids": [[3, -1]]}, "token_ids: ids from 0 to 19 are required, but -1 came"),
        ({"token_ids": [[3, 20]]}, "token_ids: ids from 0 to 19 are required, but 20 came"),
        (
            {"token_ids": np.array([[3]], dtype=np.int8), "settings": NOTEBOOK},
            "token_ids: a dtype that holds the [mask] id 29999 is required, but int8 came",
        ),
        ({"example_ids": [1, 2]}, "example_ids: one per example, shape (1,), is required, but (2,) came"),
        ({"example_ids": [[1]]}, "example_ids: one per example, shape (1,), is required, but (1, 1) came"),
        ({"example_ids": [0.5]}, "example_ids: integers are required, but float64 came"),
        ({"example_ids": [True]}, "example_ids: integers are required, but bool came"),
        ({"example_ids": [-1]}, "example_ids: integers of 0 or more are required, but -1 came"),
        ({"seed": -1}, "seed: an integer of 0 or more is required, but -1 came"),
        ({"seed": 1.5}, "seed: an integer of 0 or more is required, but 1.5 came"),
        ({"seed": True}, "seed: an integer of 0 or more is required, but True came"),
        ({"seed": None}, "seed: an integer of 0 or more is required, but None came"),
        ({"epoch": -1}, "epoch: an integer of 0 or more is required, but -1 came"),
        ({"epoch": "1"}, "epoch: an integer of 0 or more is required, but '1' came"),
        ({"settings": {"vocabulary_size": 20}}, "settings: MaskingSettings are required, but dict came"),
        ({"settings": MaskingSettings()}, "masking.vocabulary_size: a number of ids is required, but None came"),
    ],
)
def test_invalid_arguments_are_refused(arguments, message):
    with pytest.raises(SettingsError) as caught:
        mask_tokens(**{"token_ids": [[3, 4]], "seed": 0, "settings": SMALL, **arguments})
    assert str(caught.value) == message
