"""`describe`: what it says is what `init` makes."""

import pytest
import torch

import optfx
from optfx import select, tree
from tests.harness import params, rows

P = {"encoder": {"weight": torch.ones(4, 3), "bias": torch.ones(3)}, "head": torch.ones(3, 2)}


def parts(tx, params=P):
    return {part.path: part for part in optfx.describe(tx, params).parts}


@rows
def test_the_bytes_of_the_state_are_those_of_init(row):
    tx, p = row.make(**row.hypers), params()
    found = optfx.describe(tx, p)
    assert found.parts[0].state_bytes == sum(x.nbytes for x in tree.leaves(tx.init(p)))
    assert found.parts[0].sees == {name: x.dtype for name, x in zip(tree.paths(p), tree.leaves(p), strict=True)}
    assert len(repr(found).splitlines()) == len(found.parts) + 1


def test_each_part_says_which_leaves_it_sees_and_which_its_mask_takes():
    matrices = select.ndim(min=2)
    groups = {"a": optfx.adamw(0.1, mask=matrices), "b": optfx.sgd(0.1)}
    tx = optfx.named_chain(
        ("clip", optfx.clip_by_global_norm(1.0)),
        ("groups", optfx.partition(groups, {"encoder": "a", "head": "b"})),
        ("freeze", optfx.freeze(select.path("head"))),
        ("noise", optfx.masked(optfx.add_noise(0.1, 0.5, 0), ~matrices)),
    )
    takes = {path: part.takes for path, part in parts(tx).items()}
    everything = ("encoder.bias", "encoder.weight", "head")
    assert takes["clip"] == takes["groups"] == takes[""] == everything
    assert takes["groups.a"] == takes["groups.a.0"] == everything[:2]
    assert takes["groups.a.1"] == ("encoder.weight",)
    assert takes["groups.b.0"] == takes["freeze"] == ("head",)
    assert takes["noise"] == ("encoder.bias",)  # of the transform inside, which has the path of its wrapper


def test_the_text_names_what_differs_from_the_part_around_it():
    narrow = {"w": torch.ones(2, dtype=torch.bfloat16), "b": torch.ones(2)}
    tx = optfx.master_weights(optfx.chain(optfx.masked(optfx.scale(-1.0), select.path("w")), optfx.reduce_on_plateau()))
    assert (
        repr(optfx.describe(tx, narrow))
        == """\
    state      leaves
     72 B           2  master_weights
     64 B           2    chain, in float32
      8 B           2      0  masked(mask=path(pattern='w'))
      8 B      1 of 2        scale(step_size=-1.0): w
     56 B           2      1  reduce_on_plateau(factor=0.1, patience=10, rtol=0.0001, atol=0.0, cooldown=0, \
accumulation_size=1, min_scale=0.0, batches=1), needs value"""
    )


def test_many_leaves_are_counted():
    p = {f"{k:02}": torch.ones(1) for k in range(12)}
    found = repr(optfx.describe(optfx.masked(optfx.scale(0.1), select.path("0*")), p))
    assert found.endswith("10 of 12    scale(step_size=0.1): 00, 01, 02, 03, 04, 05, and 4 more")


def test_no_memory_is_taken_and_the_parameters_stay():
    p = {"w": torch.empty(1 << 40, device="meta")}
    assert parts(optfx.adam(0.1), p)[""].state_bytes == 2 * 4 * (1 << 40) + 16
    assert repr(optfx.describe(optfx.adam(0.1), p)).splitlines()[1].startswith("  8796 GB  ")
    with pytest.raises(TypeError, match=r"is a Linear, expected a tensor: .* optfx.params\(module\)"):
        optfx.describe(optfx.adam(0.1), torch.nn.Linear(2, 2))


def test_a_foreign_pair_and_a_wrapper_of_ones_own():
    @tree.record
    class twice(optfx.core.Wrapper):
        inner: optfx.core.GradientTransformation

        def begin(self, params):
            return optfx.tree.zeros_like(params), self.inner.begin(params)

        def states(self, state):
            return {"": state[1]}

    pair = optfx.core.from_functions(
        lambda params: (torch.zeros(5),), lambda updates, state, params=None: (updates, state)
    )
    found = optfx.describe(optfx.chain(twice(optfx.trace(0.9)), pair), P).parts
    numbers, count = 4 * tree.size(P), 8
    assert [part.state_bytes for part in found] == [2 * numbers + count + 20, 2 * numbers + count, numbers + count, 20]
    assert [part.code for part in found[:3]] == ["chain", "twice", "trace(decay=0.9)"]
