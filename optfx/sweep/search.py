"""Optuna in front of a sweep: it is asked for many settings at once, and told what became of them.

Optuna keeps the trials, on whatever storage; nothing is kept here. The column `trial` of the settings says whose they
are, and a trial says which worker asked for it, so that what a killed worker leaves behind can be found.
"""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Mapping, Sequence
from itertools import pairwise
from typing import Any, NamedTuple

import torch
from torch import Tensor

from optfx.sweep.configs import TRIAL, is_absent
from optfx.sweep.result import Result
from optfx.sweep.spaces import Labels, Space, choice, column, dimensions, log_uniform, nothing_like, uniform
from optfx.sweep.workers import is_gone, name_of

WORKER, BATCH = "worker", "batch"  # attributes of a trial: who asked for it, and the first that came with it


def ask(study: Any, space: Mapping[str, Space], n: int, worker: str | None = None) -> dict[str, Any]:
    """Settings that a study of Optuna suggests, by whatever sampler it has.

    Several processes may ask one study. What a process of this machine asked for, and was killed before it told, is
    given to whoever asks next (see `reclaim`). A worker with a name comes back: it is given the same trials again, and
    goes on with them.

    Args:
        study: from `optuna.create_study`, of one objective.
        space: `{name: uniform, log_uniform or choice}`. Evenly spaced integers to choose from are a range to Optuna.
        n: the number of settings.
        worker: a name for this process that no other has, and that it will have again after it was killed.

    Returns:
        `{name: (n,) column}` as from `sample`, and the numbers of the trials as the column `trial`.

    Raises:
        ValueError: an empty space, no settings; a study of several objectives.
        TypeError: an entry that is not a space, naming it.

    Reference: Akiba et al., "Optuna: A Next-generation Hyperparameter Optimization Framework", 2019,
        <https://arxiv.org/abs/1907.10902>.

    Example:
        >>> import optuna
        >>> from optfx import sweep
        >>> optuna.logging.set_verbosity(optuna.logging.ERROR)
        >>> study = optuna.create_study(sampler=optuna.samplers.TPESampler(seed=0))
        >>> configs = sweep.ask(study, {"rate": sweep.log_uniform(1e-4, 1.0)}, 3)
        >>> configs["trial"]
        tensor([0, 1, 2])
        >>> sweep.tell(study, configs, torch.tensor([0.3, 0.1, float("inf")]))
        >>> study.best_trial.number, study.trials[2].state.name
        (1, 'FAIL')
    """
    from optuna.trial import TrialState

    _check_objective(study)
    if not space or n < 1 or TRIAL in space:
        raise ValueError(f"ask: names other than {TRIAL!r} and at least one setting are needed, got {[*space]} and {n}")
    mine = [t for t in study.get_trials(deepcopy=False) if worker and t.user_attrs.get(WORKER) == worker]
    left = [t for t in mine if t.state is TrialState.RUNNING]
    begun = next((t.user_attrs[BATCH] for t in left if BATCH in t.user_attrs), None)
    _give_back(study, [t for t in left if BATCH not in t.user_attrs])
    trials: list[Any] = [] if begun is None else [t for t in mine if t.user_attrs.get(BATCH) == begun]
    if not trials:
        reclaim(study)
        for _ in range(n):
            trial = study.ask()
            trial.set_user_attr(WORKER, worker or name_of(os.getpid()))
            _suggest(trial, space)
            trials.append(trial)
            trial.set_user_attr(BATCH, trials[0].number)  # the last thing: now it is given to somebody
    found: dict[str, Any] = {}
    for name, dimension, _ in dimensions(space):
        like = dimension.at(torch.zeros(1, dtype=torch.float64))
        absent = nothing_like(like).tolist()[0]
        found[name] = column("ask", [t.params.get(name, absent) for t in trials])
    return found | {TRIAL: torch.tensor([t.number for t in trials])}


def tell(study: Any, result: Result | Mapping[str, Any], values: Tensor | None = None) -> None:
    """Tell a study what became of the settings that it suggested.

    What the metric that decides was at each look is reported, step by step. A member that was stopped, or of which
    another took the place, is pruned, with the last of these; one that diverged is a failure. What is told already
    stays as it is, so a process that was killed while it told may tell again.

    Args:
        study: that was asked.
        result: of `fit`; or settings with the column `trial`.
        values: (n,), with settings: how good each is.

    Raises:
        ValueError: no column `trial`, or a trial that the study does not have; a metric of which less is better, where
            the study maximizes, or the other way round.
    """
    from optuna.trial import TrialState

    _check_objective(study)
    if isinstance(result, Result):
        if (mode := result.judge()[2]) != study.direction.name.lower()[:3]:
            raise ValueError(f"tell: the result is judged by mode={mode!r}, the study by {study.direction.name!r}")
        ends = _ends(result)
    else:
        if values is None:
            raise ValueError("tell: with settings, values are needed")
        columns = {k: x.tolist() for k, x in result.items()}
        rows = [{k: x[i] for k, x in columns.items()} for i in range(len(values))]
        ends = [End(config, {}, False, value) for config, value in zip(rows, values.tolist(), strict=True)]
    trials = {t.number: t for t in study.get_trials(deepcopy=False)}
    for config, seen, stopped, value in ends:
        if (number := config.get(TRIAL)) is None or (trial := trials.get(int(number))) is None:
            raise ValueError(f"tell: {TRIAL!r} is {number}, which is no trial of the study")
        if trial.state.is_finished():
            continue
        for step, x in seen.items():
            if step not in trial.intermediate_values:
                study._storage.set_trial_intermediate_value(trial._trial_id, step, x)
        state = _state(stopped, value)
        known = value if state is TrialState.COMPLETE else None
        study.tell(trial.number, known, state=state, skip_if_finished=True)


def reclaim(study: Any, gone: Callable[[str], bool] | None = None) -> int:
    """Find the trials that killed workers left: each fails, and its settings are enqueued, to be asked for again.

    `ask` does so for processes of this machine. Workers of other machines, and those with a name, cannot be seen to be
    gone: someone has to say so, such as `sweep.reclaim(study, lambda worker: worker.startswith("node7/"))`.

    Args:
        study: that was asked.
        gone: whether a worker, `"host/..."` or the name that it had, is no more; None for those of this machine that
            are not.

    Returns:
        How many trials there were.
    """
    from optuna.trial import TrialState

    gone = gone or is_gone
    left = study.get_trials(deepcopy=False, states=(TrialState.RUNNING,))
    return _give_back(study, [t for t in left if WORKER in t.user_attrs and gone(t.user_attrs[WORKER])])


def _give_back(study: Any, trials: Sequence[Any]) -> int:
    from optuna.exceptions import UpdateFinishedTrialError
    from optuna.trial import TrialState

    n = 0
    for trial in trials:
        try:
            study.tell(trial.number, state=TrialState.FAIL)
        except (ValueError, UpdateFinishedTrialError):  # another process was faster, and has enqueued it
            continue
        study.enqueue_trial(trial.system_attrs.get("fixed_params", {}) | trial.params)
        n += 1
    return n


def to_optuna(result: Result, space: Mapping[str, Space] | None = None) -> Any:
    """See `Result.to_optuna`."""
    try:
        from optuna import create_study
        from optuna.trial import TrialState, create_trial
    except ImportError:
        raise ImportError('to_optuna needs optuna: pip install "optfx[optuna]"') from None

    given = {} if space is None else {name: _distribution(name, s) for name, s, _ in dimensions(space)}
    used = {k: x for k, x in result.configs.items() if k != TRIAL and not all(map(is_absent, x.tolist()))}
    found = {k: given[k] if k in given else _extent(x) for k, x in used.items()}
    study = create_study(direction="maximize" if result.judge()[2] == "max" else "minimize")
    for i, (config, seen, stopped, value) in enumerate(_ends(result)):
        params = {k: config[k] for k in found if not is_absent(config[k])}
        state = _state(stopped, value)
        trial = create_trial(
            state=state, params=params, distributions={k: found[k] for k in params}, intermediate_values=seen,
            value=None if state is TrialState.FAIL else value, user_attrs={"member": int(result.member[i])},
        )  # fmt: skip
        study.add_trial(trial)
    return study


# ---- how members ended --------------------------------------------------------------------------------


class End(NamedTuple):
    """What became of a member."""

    config: dict[str, Any]  # its settings
    seen: dict[int, float]  # the metric at each look, where it is finite
    stopped: bool  # whether it was, or another took its place
    value: float  # the metric in the end; not finite for what diverged


def _ends(result: Result) -> list[End]:
    _, values, mode = result.judge()
    columns, history = {k: x.tolist() for k, x in result.configs.items()}, result.history
    configs = [{k: x[i] for k, x in columns.items()} for i in range(len(result))]
    whole = [End(config, {}, False, value) for config, value in zip(configs, values.tolist(), strict=True)]
    if history is None:
        return whole
    sign = -1 if mode == "max" else 1  # in a history, less is better
    rows = zip(
        whole, result.member.tolist(), (sign * history.values).T.tolist(), history.parent.T.tolist(), strict=True
    )
    steps = history.steps.tolist()
    found = []
    for i, (end, own, curve, parent) in enumerate(rows):
        looked = [k for k, value in enumerate(curve) if not math.isnan(value)]
        last = next((k for k in looked if parent[k] != own), None)
        seen = {steps[k]: curve[k] for k in looked if math.isfinite(curve[k]) and (last is None or k <= last)}
        if last is None:
            found.append(end._replace(seen=seen))
        else:  # with the settings that it had then
            then = {k: type(end.config[k])(x[last, i].item()) for k, x in history.configs.items() if k in end.config}
            found.append(End(end.config | then, seen, True, curve[last]))
    return found


def _state(stopped: bool, value: float) -> Any:
    from optuna.trial import TrialState

    return TrialState.FAIL if not math.isfinite(value) else TrialState.PRUNED if stopped else TrialState.COMPLETE


# ---- spaces, as Optuna has them -----------------------------------------------------------------------


def _check_objective(study: Any) -> None:
    if len(study.directions) != 1:
        raise ValueError(f"a sweep is judged by one metric, and the study has {len(study.directions)} objectives")


def _distribution(name: str, space: Any) -> Any:
    from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

    if isinstance(space, log_uniform | uniform):
        return FloatDistribution(space.low, space.high, log=isinstance(space, log_uniform))
    if not isinstance(space, choice):
        raise TypeError(f"ask: {name!r} is {space!r}, expected uniform, log_uniform or choice")
    values = column("choice", tuple(space.values)).tolist()
    steps = {b - a for a, b in pairwise(values)} if isinstance(values[0], int) else set()
    if len(steps) == 1 and min(steps) > 0:
        return IntDistribution(values[0], values[-1], step=min(steps))
    return CategoricalDistribution(values)


def _extent(x: Any) -> Any:
    """A distribution that values may come from."""
    from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

    values = [v for v in x.tolist() if not is_absent(v)]
    low, high = min(values), max(values)
    if isinstance(x, Labels):
        return CategoricalDistribution([*dict.fromkeys(values)])
    if isinstance(low, int):
        return IntDistribution(low, high)
    return FloatDistribution(low, high, log=0 < 100 * low <= high)


def _suggest(trial: Any, space: Mapping[str, Space]) -> None:
    from optuna.distributions import FloatDistribution, IntDistribution

    for name, dimension in space.items():
        d = _distribution(name, dimension)
        if isinstance(d, FloatDistribution):
            trial.suggest_float(name, d.low, d.high, log=d.log)
        elif isinstance(d, IntDistribution):
            trial.suggest_int(name, d.low, d.high, step=d.step)
        else:
            word = trial.suggest_categorical(name, d.choices)
            if isinstance(dimension, choice) and isinstance(dimension.values, Mapping):
                _suggest(trial, dimension.values[word])
