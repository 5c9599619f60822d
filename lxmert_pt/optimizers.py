"""The optimiser and learning rate schedule of the paper's recipes."""

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch.optim.optimizer import ParamsT


class BertAdam(torch.optim.Optimizer):
    """Adam without bias correction, with decoupled weight decay on every parameter.

    One step is `p -= lr * (m / (sqrt(v) + eps) + weight_decay * p)`. Clip gradients beforehand
    (`torch.nn.utils.clip_grad_norm_`; the recipes use a global norm of 5), and schedule `lr` with
    `torch.optim.lr_scheduler.LambdaLR` and `linear_warmup_schedule`.

    Raises:
        ValueError: a hyperparameter outside its range.

    Source: the original code's `BertAdam`.
    """

    def __init__(
        self,
        params: ParamsT,
        lr: float,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-6,
        weight_decay: float = 0.01,
    ):
        if not lr >= 0:
            raise ValueError(f"lr must be at least 0, got {lr}.")
        if not all(0 <= beta < 1 for beta in betas):
            raise ValueError(f"betas must be in [0, 1), got {betas}.")
        if not eps >= 0:
            raise ValueError(f"eps must be at least 0, got {eps}.")
        super().__init__(params, {"lr": lr, "betas": betas, "eps": eps, "weight_decay": weight_decay})

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """Updates every parameter that has a gradient; returns what `closure` returns, if one is given."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group in self.param_groups:
            for parameter in _with_gradient(group["params"]):
                self._update(parameter, group)
        return loss

    def _update(self, parameter: torch.Tensor, group: dict[str, Any]) -> None:
        state = self.state[parameter]
        if not state:
            state["exp_avg"] = torch.zeros_like(parameter)
            state["exp_avg_sq"] = torch.zeros_like(parameter)
        mean, square = state["exp_avg"], state["exp_avg_sq"]
        beta1, beta2 = group["betas"]
        mean.mul_(beta1).add_(parameter.grad, alpha=1 - beta1)
        square.mul_(beta2).addcmul_(parameter.grad, parameter.grad, value=1 - beta2)
        update = mean / (square.sqrt() + group["eps"]) + group["weight_decay"] * parameter
        parameter.sub_(update, alpha=group["lr"])


def linear_warmup_schedule(step: int, total_steps: int, warmup: float = 0.1) -> float:
    """Factor of the learning rate: from 0 up to 1 over the first `warmup` of all steps, then down to 0.

    Raises:
        ValueError: `total_steps` is not positive, `warmup` not in [0, 1), or the only update one of warm-up.

    Source: the original code's `warmup_linear`.
    """
    if total_steps <= 0:
        raise ValueError(f"total_steps must be positive, got {total_steps}.")
    if not 0 <= warmup < 1:
        raise ValueError(f"warmup must be in [0, 1), got {warmup}.")
    if total_steps == 1 and warmup > 0:
        raise ValueError(
            f"total_steps=1 with warmup={warmup} trains nothing: the first update of a warm-up has the rate 0. "
            "Train for more updates, or without warm-up."
        )
    progress = step / total_steps
    if progress < warmup:
        return progress / warmup
    return max((1 - progress) / (1 - warmup), 0.0)


def _with_gradient(parameters: Iterable[torch.Tensor]) -> Iterable[torch.Tensor]:
    return (parameter for parameter in parameters if parameter.grad is not None)
