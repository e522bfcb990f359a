"""An optimizer whose parameters have other values for a while, to evaluate the model with."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import torch
from torch import Tensor
from torch.optim import Optimizer

from optfx.interop.groups import Knobs
from optfx.interop.members import Members


class Evaluating(Optimizer):
    """What `TorchOptimizer` does to evaluate.

    Attributes:
        _trained: what eval mode has replaced; None in train mode.
    """

    _knobs: Knobs
    _members: Members
    _trained: dict[Tensor, Tensor] | None

    def _follow(self) -> Members:
        """The parameters, as the groups and the state say now."""
        self._members.follow(self.param_groups, self.defaults, self.state)
        return self._members

    @contextlib.contextmanager
    def evaluating(self) -> Iterator[None]:
        """Inside the `with`, the parameters have the values to evaluate the model with; see `eval`.

        Example:
            >>> import torch, optfx
            >>> from optfx.interop import TorchOptimizer
            >>> w = torch.nn.Parameter(torch.tensor([1.0]))
            >>> optimizer = TorchOptimizer([w], optfx.chain(optfx.sgd(1.0), optfx.params_ema(0.75)))
            >>> w.grad = torch.tensor([4.0])
            >>> optimizer.step()
            >>> with optimizer.evaluating():
            ...     print(w.tolist())
            [0.0]
            >>> w.tolist()
            [-3.0]
        """
        if self._trained is not None:
            yield
            return
        self.eval()
        try:
            yield
        finally:
            self.train()

    @torch.no_grad()
    def eval(self) -> None:
        """Give the parameters the values to evaluate the model with, such as their averages: see `tx.eval_params`.

        They keep these values until `train()`, so a module that is saved before is saved with them. Parameters that the
        transform evaluates as they are stay untouched. A second `eval()` does nothing.
        """
        if self._trained is not None:
            return
        members = self._follow()
        everything = range(len(members.params))
        if members.params:
            self._knobs.read(self.param_groups, members.held)
            kept = members.ready(everything)
            program = members.whole(everything, kept)
            program.check(kept)
            params = members.tree(everything)
            values = program.tx.eval_params(program.layout.read(kept), params)
            pairs = [
                (p, values[n]) for n, p in zip(members.names, members.params, strict=True) if values[n] is not params[n]
            ]
            self._trained = {p: p.detach().clone() for p, _ in pairs}
            for p, value in pairs:
                p.copy_(value)
        else:
            self._trained = {}

    @torch.no_grad()
    def train(self) -> None:
        """Give the parameters the trained values back, after `eval()`. Otherwise it does nothing."""
        for p, trained in (self._trained or {}).items():
            p.copy_(trained)
        self._trained = None

    def _refuse_in_eval_mode(self, what: str) -> None:
        if self._trained is not None:
            raise RuntimeError(f"{what} in eval mode: call train() first, which puts the trained parameters back")
