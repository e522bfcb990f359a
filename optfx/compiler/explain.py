"""The stages of a step in words."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

from optfx.compiler.record.along import same
from optfx.tree import Tree, paths
from optfx.tree.verbs import name_of

if TYPE_CHECKING:  # they bring the tracer, which takes longer to import than all of optfx
    from optfx.compiler.plan.others import Exchange
    from optfx.compiler.plan.plan import Plan, Unit

PLURAL = {"leaf": "leaves"}
SHOWN = 4  # leaves that are named


def explanation(plan: Plan, params: Tree, state: Tree) -> str:
    """What runs in each stage, on which leaves, and why something was not fused."""
    inputs = [*paths(params), *paths(params), *(f"state {p}" for p in paths(state))]
    n = plan.recording.inputs.n
    sharded = sum(form.spread is not None for form in plan.recording.recorder.inputs[n : 2 * n])
    among = f", {sharded} of them sharded" if sharded else ""
    lines = [f"{_count(n, 'leaf')}{among}, {_count(len(plan.stages), 'stage')}"]
    for number, stage in enumerate(plan.stages):
        lines.append(f"stage {number}")
        for unit in stage.units:
            lines.append(f"    {_words(unit)}: {_some([_named(inputs, m.inputs[0]) for m in unit.members])}")
        lines += [f"    {_exchanged(exchange)}" for exchange in stage.exchanges]
        events = Counter(f"{event.what}, as it is, for {event.why}" for event, _ in stage.events)
        lines += [f"    {words}: {_times(times)}" for words, times in events.items()]
    return "\n".join(lines)


def _exchanged(exchange: Exchange) -> str:
    numbers, collectives = _count(exchange.numbers, "number"), _count(exchange.collectives, "collective")
    return f"{numbers} of each of {exchange.others.count} processes, in {collectives}"


def _named(inputs: list[str], i: int) -> str:
    return inputs[i] if i < len(inputs) else "what stands between stages"


def _count(n: int, what: str) -> str:
    return f"{n} {what if n == 1 else PLURAL.get(what, f'{what}s')}"


def _times(n: int) -> str:
    return "once" if n == 1 else f"{n} times"


def _some(every: list[str]) -> str:
    names = [*dict.fromkeys(every)]
    return ", ".join(names[:SHOWN]) + (f" and {len(names) - SHOWN} more" if len(names) > SHOWN else "")


def _words(unit: Unit) -> str:
    names = [name_of(f).strip("_") for f in unit.work.program.functions if f is not same]
    calls = "" if unit.calls == 1 else f", {_count(unit.calls, 'call')}"
    return f"{' > '.join(names) or 'copy'} [{unit.kernel.by}{calls}]"
