"""The condition: its rows go together, whatever parts it has, and what does not fit is refused."""

import dataclasses

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from diffusion_lessons.condition import Condition

PARTS = ("pooled", "hidden_states", "image")


def condition(seed, count, names=PARTS, mask=True):
    g = torch.Generator().manual_seed(seed)
    shapes = {"pooled": (4,), "hidden_states": (3, 2), "image": (1, 2, 2)}
    parts = {name: torch.randn(count, *shapes[name], generator=g) for name in names}
    if mask and "hidden_states" in parts:
        parts["mask"] = torch.rand(count, 3, generator=g) < 0.5
    return Condition(**parts)


def parts(c):
    return {f.name: getattr(c, f.name) for f in dataclasses.fields(c) if getattr(c, f.name) is not None}


def same(a, b):
    return parts(a).keys() == parts(b).keys() and all(
        p.dtype == parts(b)[n].dtype and torch.equal(p, parts(b)[n]) for n, p in parts(a).items())


CONDITIONS = st.builds(condition, st.integers(0, 10**6), st.integers(1, 5),
                       st.sets(st.sampled_from(PARTS), min_size=1), st.booleans())


@given(c=CONDITIONS, seed=st.integers(0, 10**6))
def test_rows_are_selected_from_all_parts_alike(c, seed):
    g = torch.Generator().manual_seed(seed)
    order, chosen = torch.randperm(len(c), generator=g), torch.rand(len(c), generator=g) < 0.5
    for rows in (order, chosen, slice(1, None), slice(None, None, 2)):
        some = c[rows]
        assert parts(some).keys() == parts(c).keys()
        for name, part in parts(c).items():
            assert torch.equal(getattr(some, name), part[rows])
    assert len(c[order]) == len(c)
    assert same(c[order][order.argsort()], c)


@given(c=CONDITIONS, seed=st.integers(0, 10**6))
def test_where_takes_each_row_whole_from_one_or_the_other(c, seed):
    other = Condition(**{n: ~p if p.dtype == torch.bool else p + 1 for n, p in parts(c).items()})
    rows = torch.rand(len(c), generator=torch.Generator().manual_seed(seed)) < 0.5
    mixed = c.where(rows, other)
    for k, own in enumerate(rows.tolist()):
        assert same(mixed[k : k + 1], (c if own else other)[k : k + 1])
    assert same(c.where(torch.ones(len(c)) > 0, other), c)
    assert same(c.where(torch.ones(len(c)) < 0, other), other)


@given(c=CONDITIONS, count=st.integers(1, 6))
def test_cat_undoes_a_split_and_expand_repeats_one_row(c, count):
    assert same(Condition.cat([c[k : k + 1] for k in range(len(c))]), c)
    assert same(c[:1].expand(count), Condition.cat([c[:1]] * count))
    assert same(c.to("cpu"), c)


def test_gradients_go_through_every_method():
    pooled = torch.randn(3, 4, requires_grad=True)
    c, rows = Condition(pooled=pooled), torch.tensor([True, False, True])
    made = Condition.cat([c[1:2].expand(2), c.where(rows, Condition(pooled=torch.zeros(3, 4)))])
    made.pooled.sum().backward()
    assert pooled.grad[:, 0].tolist() == [1, 2, 1]


def test_it_moves_with_all_its_parts():
    moved = condition(0, 2).to("meta")
    assert {part.device.type for part in parts(moved).values()} == {"meta"}
    assert len(parts(moved)) == 4


def test_what_does_not_fit_is_refused_in_words():
    c = condition(0, 3)
    with pytest.raises(ValueError, match="at least one part"):
        Condition()
    with pytest.raises(ValueError, match=r"one row for each picture, got \{'pooled': 2, 'image': 3\}"):
        Condition(pooled=torch.zeros(2, 4), image=torch.zeros(3, 1, 2, 2))
    for hidden, mask in ((None, torch.ones(2, 3)), (torch.zeros(2, 3, 5), torch.ones(2, 4))):
        with pytest.raises(ValueError, match=r"mask must be \(B, L\)"):
            Condition(pooled=torch.zeros(2, 4), hidden_states=hidden, mask=mask.bool())
    for rows in (1, [0, 1], torch.tensor(1), torch.zeros(1, 3).bool()):
        with pytest.raises(TypeError, match=r"condition\[2:3\]"):
            c[rows]
    with pytest.raises(ValueError, match=r"the same parts, got \['pooled'\] and \['image'\]"):
        Condition.cat([condition(0, 3, {"pooled"}), condition(0, 3, {"image"})])
    with pytest.raises(dataclasses.FrozenInstanceError):
        c.pooled = None
