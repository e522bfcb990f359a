"""The parameters of an optimizer, and what is kept of each, as the dicts of the optimizer say it now.

`param_groups`, the lists in it and `state` are public in torch, and others change them: trainers replace parameters,
freeze, extend and reorder them, clear the state or move it. So nothing is taken for granted from one step to the next:
`follow` looks at the groups, and reads them anew if they have changed; `ready` makes what is missing of the state.
"""

from __future__ import annotations

from collections import Counter, OrderedDict
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from optfx.interop.groups import Held, Knobs, is_below, own_value
from optfx.interop.owners import Owner, merged, owners_of
from optfx.interop.program import Program, Whole
from optfx.interop.torch_state import Names, State, memory, memory_of, places_of, refuse_meta, refuse_twice
from optfx.interop.turns import Turns
from optfx.tree import leaves

_UNKNOWN = frozenset({""})  # what is kept of a parameter that has not been seen
PROGRAMS = 16  # the steps of how many sets of parameters are remembered


class Members:
    """The parameters of an optimizer.

    Args:
        knobs: the numbers of the optimizer.

    Attributes:
        params: the parameters of all groups.
        names: their names; one without a name goes by its number.
        group: the group of each.
        held: the numbers of each group.
        keys: what is kept of each.
        untouched: of those that have taken no step, the state as it was made.
        turns: whether they take turns.
        compared: whether the counts have been compared, which a state from elsewhere has once for each parameter.
    """

    def __init__(self, knobs: Knobs):
        self._knobs = knobs
        self._seen: list[Any] = []
        self._state: dict[Any, State] = {}
        self._forms: dict[Tensor, Any] = {}
        self._last = max((k for k, (_, tx) in enumerate(knobs.steps()) if knobs.one_for_all(tx)), default=-1)
        self._programs: OrderedDict[tuple[Any, ...], Any] = OrderedDict()
        self._counts: tuple[str, ...] = ()  # what is kept once for an owner
        self._of_all: set[str] = set()  # what is kept once for all
        self.params: list[Tensor] = []
        self.names: list[str] = []
        self.group: list[int] = []
        self.held: list[Held] = []
        self.keys: dict[Tensor, set[str]] = {}
        self.untouched: dict[Tensor, State] = {}
        self.compared = False
        self.turns = Turns()

    # ---- the groups -------------------------------------------------------------------------------

    def follow(self, groups: list[dict[str, Any]], defaults: Mapping[str, Any], state: dict[Any, State]) -> None:
        """See what the groups are now. A number that a group lacks is put there.

        Args:
            groups: of the optimizer.
            defaults: the numbers of the optimizer.
            state: of the optimizer.

        Raises:
            ValueError, TypeError: groups that cannot be followed; nothing has changed then.
        """
        self._state = state
        if self._look(groups) != self._seen:
            self._read(groups, defaults)
            self._seen = self._look(groups)
        if not self.compared:
            self._compare()
            self.compared = True

    def _look(self, groups: list[dict[str, Any]]) -> list[Any]:
        return [
            (tuple(group), tuple(group.get("param_names", ())), [(id(p), p.shape, p.dtype) for p in group["params"]])
            for group in groups
        ]

    def _read(self, groups: list[dict[str, Any]], defaults: Mapping[str, Any]) -> None:
        params = [p for group in groups for p in group["params"]]
        refuse_twice(params)
        for group in groups:
            self._knobs.check({k: v for k, v in group.items() if k != "params"})
        names_of = self._named(groups)
        own = {name: defaults[name] for name in (*self._knobs.found, "maximize")}
        self._knobs.check_shared([own | group for group in groups if group["params"]])
        names = [name for of_group in names_of for name in of_group]
        self._knobs.settle({name: p.detach() for name, p in zip(names, params, strict=True)})
        for group, of_group in zip(groups, names_of, strict=True):
            for name in own.keys() - group.keys():
                group[name] = own_value(own[name])
            if "param_names" in group:
                group["param_names"] = of_group
        self.params, self.names = params, names
        self.group = [k for k, group in enumerate(groups) for _ in group["params"]]
        self.held = [self._knobs.hold(group) for group in groups]
        self._programs.clear()
        self.turns.forget()
        self._let_go()
        before = self._forms
        self._forms = {p: (n, p.shape, p.dtype, p.device) for n, p in zip(self.names, params, strict=True)}
        self.keys = {p: self.keys[p] for p in params if before.get(p) == self._forms[p]}
        self.complete()

    def _named(self, groups: list[dict[str, Any]]) -> list[list[str]]:
        """The names of the parameters of each group. If parameters have come, gone or moved, and nobody has written
        their names anew, each keeps its own."""
        before = dict(zip(self.params, self.names, strict=True))
        found: list[list[str]] = []
        for k, group in enumerate(groups):
            params, names = group["params"], list(group.get("param_names", ()))
            numbers = [str(sum(map(len, found)) + j) for j in range(len(params))]
            if "param_names" not in group:
                names = numbers
            as_before = k < len(self._seen) and self._seen[k][1] == tuple(names)
            moved = as_before and any(p in before and [before[p]] != names[j : j + 1] for j, p in enumerate(params))
            if moved or len(names) != len(params):
                names = [before.get(p, of_place) for p, of_place in zip(params, numbers, strict=True)]
            found.append(names)
        for name, times in Counter(name for names in found for name in names).items():
            if times > 1:
                raise ValueError(f"two parameters are called {name!r}")
        return found

    def _let_go(self) -> None:
        """A state that nobody has used goes with its parameter, or to where it was moved. Any other stays, for its
        parameter may come back."""
        for p in self.untouched.keys() - set(self.params):
            made = self.untouched.pop(p)
            if p in self._state and _holds(self._state[p], made):
                del self._state[p]
            self.untouched |= {q: made for q in self.params if made and _holds(self._state.get(q, {}), made)}

    # ---- the state --------------------------------------------------------------------------------

    def kept(self) -> dict[int, State]:
        """What is kept of each parameter; nothing may be kept of some."""
        return {i: self._state[p] for i, p in enumerate(self.params) if p in self._state}

    def complete(self) -> dict[int, State]:
        """What is kept of each parameter, where what was missing is new; nothing of those that have no values yet."""
        return self._begin([i for i, p in enumerate(self.params) if not p.is_meta])

    def ready(self, which: Sequence[int]) -> dict[int, State]:
        """What is kept of each parameter; for these, which take a step, nothing is missing. What was made before the
        first step is made anew, because the parameter may have got its first value since."""
        for p in (self.params[i] for i in which) if self.untouched else ():
            if p in self.untouched and _holds(self._state.get(p, {}), self.untouched[p]):
                for key in self.untouched[p]:
                    del self._state[p][key]
        return self._begin(which)

    def _begin(self, which: Sequence[int]) -> dict[int, State]:
        """Make what is missing of the state of these parameters. Returns what is kept of each."""
        kept, of_group = self.kept(), {}
        which = [i for i in which if i not in kept or not self.keys.get(self.params[i], _UNKNOWN) <= kept[i].keys()]
        for i in which:
            of_group.setdefault(self.group[i], []).append(i)
        if not which:
            return kept
        refuse_meta(self.names, self.params, which)
        parts = {str(g): Owner(g, tuple(of)) for g, of in of_group.items()}
        params = self.tree(which)
        state = self._knobs.transform(self._knobs.settled, "", self._rows(parts)).begin(params)
        places = places_of(state, self.in_trees(which), {part: owner.params for part, owner in parts.items()})
        self._of_all = {place.key for place in places if place.shared and place.owner is None}
        self._counts = tuple({place.key: 0 for place in places if place.shared and place.owner is not None})
        new = set(which)
        for i in which:
            self.keys[self.params[i]] = set()
            if i not in kept:
                kept[i] = self._state[self.params[i]] = {}
        others = memory_of(params)
        for place, value in zip(places, leaves(state), strict=True):
            value, of_all = value.clone() if memory(value) in others else value, place.key in self._of_all
            if of_all:
                value = next((mine[place.key] for mine in kept.values() if place.key in mine), value)
            for i in which if of_all else place.params:
                if kept[i].setdefault(place.key, value) is not value and not of_all:
                    new.discard(i)
                self.keys[self.params[i]].add(place.key)
        self._share(which, kept)
        for i in new:
            self.untouched[self.params[i]] = {k: x for k, x in kept[i].items() if k not in self._of_all}
        return kept

    # ---- owners -----------------------------------------------------------------------------------

    def _share(self, which: Iterable[int], kept: Mapping[int, State]) -> None:
        """Equal counts become one, or each parameter would be an owner of its own."""
        first: dict[Any, Tensor] = {}
        for i in which:
            mine, made = kept.get(i, {}), self.untouched.get(self.params[i], {})
            for key in self._counts:
                x = mine.get(key)
                if isinstance(x, Tensor) and x.numel() < 100:
                    mine[key] = first.setdefault((key, repr((x.shape, x.dtype, x.device, x.tolist()))), x)
                    if made.get(key) is x:
                        made[key] = mine[key]

    def _compare(self) -> None:
        """Of a state from elsewhere: share counts, and see who has taken no step."""
        kept = self.kept()
        self._share(kept, kept)
        for i, mine in kept.items():
            p, counts = self.params[i], [key for key in self._counts if key.rpartition(".")[2] == "count"]
            if counts and self.keys[p] <= mine.keys() and not any(torch.any(mine[key]) for key in counts):
                self.untouched[p] = {key: mine[key] for key in self.keys[p] - self._of_all}

    def apart(self, owners: Collection[Owner], kept: Mapping[int, State]) -> set[int]:
        """Before a step that writes in place: what an owner shares with another, or with parameters that rest, becomes
        its own.

        Returns:
            The ids of the tensors that the others keep, which nobody may write to.
        """
        stepping = {self.params[i] for owner in owners for i in owner.params}
        resting = [mine for p, mine in self._state.items() if isinstance(mine, dict) and p not in stepping]
        theirs = {id(x) for mine in resting for x in mine.values()}
        taken = set(theirs)
        for owner in owners:
            for key in self._counts:
                count = kept[owner.params[0]][key]
                if id(count) in taken:
                    count = count.clone()
                    for i in owner.params:
                        kept[i][key] = count
                taken.add(id(count))
        return theirs and theirs - {
            id(x) for mine in (kept[i] for owner in owners for i in owner.params) for x in mine.values()
        }

    # ---- what runs --------------------------------------------------------------------------------

    def tree(self, which: Sequence[int]) -> dict[str, Any]:
        """These parameters by name."""
        return self.in_trees(which).tree({i: self.params[i].detach() for i in which})

    def in_trees(self, which: Sequence[int]) -> Names:
        """The names in trees of these parameters."""
        return Names({i: self.names[i] for i in which})

    def _rows(self, owners: Mapping[str, Owner]) -> dict[str, tuple[Held, tuple[str, ...]]]:
        return {part: (self.held[g], tuple([self.names[i] for i in of])) for part, (g, of) in owners.items()}

    def in_turns(self) -> Whole | None:
        """A step of all parameters that have taken one, each an owner of its own, where parameters take turns. None
        where they do not, or where a transform sees all parameters."""
        if self._last >= 0 or not (every := self.turns.everyone()):
            return None
        self._begin(every)
        return self._whole(tuple([Owner(self.group[i], (i,)) for i in every]), every)

    def whole(self, which: Sequence[int], kept: Mapping[int, State]) -> Whole:
        """A step, or an evaluation, of these parameters at once."""
        return self._whole(owners_of(which, self.group, kept, self._counts), which)

    def _whole(self, owners: tuple[Owner, ...], which: Sequence[int]) -> Whole:
        def make() -> Whole:
            parts = {str(k): owner for k, owner in enumerate(owners)}
            tx = self._knobs.transform(self._knobs.settled, "", self._rows(parts))
            return Whole(tx, parts, self.in_trees(which), self.tree(which))

        return self._remembered((Whole, owners), make)

    def program(self, which: Sequence[int], kept: Mapping[int, State]) -> Program:
        """An eager step of these parameters."""
        knobs, steps, last = self._knobs, self._knobs.steps(), self._last
        everyone, after = owners_of(which, self.group, kept, self._counts), steps[last + 1 :]
        owners = [
            merged(everyone, knobs.rows(self.held, path), kept, [key for key in self._counts if is_below(key, path)])
            for path, _ in after
        ]

        def make() -> Program:
            parts = {str(k): owner for k, owner in enumerate(everyone)}
            is_chain = len(steps) > 1  # which gives its steps the gradient, if they ask for it
            of_all = [
                (path, is_chain and tx.asks_for("grad"), knobs.transform(tx, path, self._rows(parts)), parts)
                for path, tx in steps[: last + 1]
            ]
            of_each = [
                (path, is_chain and tx.asks_for("grad"), [(o, knobs.part(tx, path, self.held[o.group])) for o in of])
                for (path, tx), of in zip(after, owners, strict=True)
            ]
            params = {i: self.params[i].detach() for i in which}
            return Program(of_all, of_each, self.in_trees(which), params, [p.numel() for p in self.params])

        return self._remembered((Program, everyone if last >= 0 else (), *owners), make)

    def _remembered(self, key: tuple[Any, ...], make: Callable[[], Any]) -> Any:
        if key not in self._programs:
            self._programs[key] = make()
            if len(self._programs) > PROGRAMS:
                self._programs.popitem(last=False)
        self._programs.move_to_end(key)
        return self._programs[key]


def _holds(kept: Mapping[str, Any], made: Mapping[str, Any]) -> bool:
    """Whether a state is still the one that was made."""
    return all(kept.get(key) is x for key, x in made.items())
