"""The state of an ensemble between two epochs: stacked parameters, their optimiser, the best weights, the records."""

import math
import warnings
from dataclasses import dataclass, field
from pathlib import Path

import torch
from torch import Tensor

from lfx_utils.training import resume

Stack = dict[str, Tensor]  # parameters by name, each with the models as first axis


@dataclass
class Record:
    """One model: losses by epoch, the epoch (from 0) whose weights it has, if any, and why it stopped early."""

    name: str
    train: list[float] = field(default_factory=list)
    validation: list[float] = field(default_factory=list)
    best_epoch: int | None = None
    stopped: str = ""


class Run:
    """The state between two epochs: stacks of the models that still train, best weights of all, records, optimiser."""

    def __init__(self, stack: Stack, names: list[str], rate: float):
        self.kept = {name: value.detach().clone() for name, value in stack.items()}
        self.records, self.alive, self.epoch = [Record(name) for name in names], list(range(len(names))), 0
        self.rate = rate
        self._hold(stack, [])

    def _hold(self, stack: Stack, moments: list[dict[str, Tensor]]) -> None:
        self.stack = {name: value.detach().clone().requires_grad_() for name, value in stack.items()}
        self.optimiser = torch.optim.Adam(self.stack.values(), lr=self.rate, weight_decay=1e-5)
        self.optimiser.state.update(zip(self.stack.values(), moments, strict=False))

    def _moments(self) -> list[dict[str, Tensor]]:
        return [self.optimiser.state[value] for value in self.stack.values()]

    def judge(self, trained: list[float], watched: list[float], patience: int | None) -> None:
        """Close the epoch: keep the weights that are better, and take out the models that stop."""
        intact = torch.stack([value.isfinite().flatten(1).all(1) for value in self.stack.values()]).all(0).tolist()
        going = []
        for place, model in enumerate(self.alive):
            record, losses = self.records[model], (trained[place], *watched[place : place + 1])
            if not (intact[place] and all(map(math.isfinite, losses))):
                record.stopped = f"loss or weights not finite in epoch {self.epoch + 1}"
                held = "first weights" if record.best_epoch is None else f"weights of epoch {record.best_epoch + 1}"
                warnings.warn(f"{record.name}: {record.stopped}; it keeps its {held}, the others go on.", stacklevel=3)
            elif not watched or losses[1] < min(record.validation, default=math.inf):
                record.best_epoch = self.epoch
                for name, values in self.stack.items():
                    self.kept[name][model] = values[place].detach()
            elif patience and self.epoch - record.best_epoch >= patience:
                record.stopped = f"no better validation loss for {patience} epochs"
            for history, value in zip((record.train, record.validation), losses, strict=False):
                history.append(value)
            going += [] if record.stopped else [place]
        if len(going) < len(self.alive):
            self.alive = [self.alive[place] for place in going]
            moments = [{key: m[going] if m.dim() else m for key, m in state.items()} for state in self._moments()]
            self._hold({name: value[going] for name, value in self.stack.items()}, moments)
        self.epoch += 1

    def save(self, checkpoint: Path | str, plan: dict) -> None:
        """Write the whole state, or leave the last one."""
        stack, records = {name: value.detach() for name, value in self.stack.items()}, [vars(r) for r in self.records]
        models = {"stack": stack, "moments": self._moments(), "kept": self.kept, "alive": self.alive}
        resume.save(checkpoint, plan, **models, epoch=self.epoch, records=records)

    def resume(self, checkpoint: Path | str, plan: dict, epochs: int) -> None:
        """Read what `save` wrote for the same plan, if it did."""
        device = next(iter(self.stack.values())).device
        if state := resume.opened(checkpoint, plan, epochs, device):
            self.kept, self.alive, self.epoch = state["kept"], state["alive"], state["epoch"]
            self.records = [Record(**record) for record in state["records"]]
            self._hold(state["stack"], state["moments"])
