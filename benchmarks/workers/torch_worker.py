"""PyTorch, with a loop written by hand: permutation, gather, step; no DataLoader."""

from __future__ import annotations

import time
import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import nn

from benchmarks.networks import NETWORKS, Network, first_weights
from benchmarks.protocol import Job, Setting, serve
from benchmarks.workers import common
from benchmarks.workers.common import EPSILON, LEARNING_RATE

__all__ = ["JOB", "TorchJob", "build"]

warnings.filterwarnings("ignore")


def build(network: Network, weights: list[NDArray[np.float32]]) -> Any:
    """The network as an `nn.Sequential`, with the given weights laid out as PyTorch has them."""
    modules: list[Any] = []
    arrays = iter(weights)
    picture: tuple[int, ...] | None = None  # what a flatten has just unrolled
    for layer, shape in zip(network.layers, network.shapes(), strict=False):
        if layer.kind == "pool":
            modules.append(nn.MaxPool2d(2))
        elif layer.kind == "flatten":
            modules.append(nn.Flatten())
            picture = shape
        else:
            kernel, bias = next(arrays), next(arrays)
            modules.append(_weighted(layer.kind, kernel, bias, picture))
            picture = None
        if layer.relu:
            modules.append(nn.ReLU())
    return nn.Sequential(*modules)


def _weighted(kind: str, kernel: NDArray[np.float32], bias: NDArray[np.float32], picture: Any) -> Any:
    if kind == "conv":
        module = nn.Conv2d(kernel.shape[2], kernel.shape[3], 3)
        values = kernel.transpose(3, 2, 0, 1)
    else:
        if picture is not None:  # PyTorch unrolls channels first
            kernel = kernel.reshape(*picture, -1).transpose(2, 0, 1, 3).reshape(kernel.shape)
        module = nn.Linear(*kernel.shape)
        values = kernel.T
    with torch.no_grad():
        module.weight.copy_(torch.from_numpy(np.ascontiguousarray(values)))
        module.bias.copy_(torch.from_numpy(bias))
    return module


def step_of(form: str, adam: str, model: Any) -> Callable[[Any, Any], Any]:
    """One training step of a variant, as a function of a batch and its labels."""
    own = {"fused": True} if adam == "fused" else {}
    optimizer = torch.optim.Adam(model.parameters(), LEARNING_RATE, eps=EPSILON, **own)
    forward = torch.compile(model) if form in ("compile", "compile-channels-last") else model

    def step(x: Any, y: Any) -> Any:
        optimizer.zero_grad()
        loss = F.cross_entropy(forward(x), y)
        loss.backward()
        optimizer.step()
        return loss

    if not form.startswith("compile-step"):
        return step
    torch._dynamo.config.compiled_autograd = True  # else the backward pass stays outside; so a process of its own
    whole: Callable[[Any, Any], Any] = torch.compile(step)
    return whole


class TorchJob(Job):
    """One variant, named ``<form> <adam>`` (see `peers`)."""

    @staticmethod
    def unavailable() -> tuple[type[Exception], ...]:
        # What the compiler raises, for one where there is no C++ compiler; looked up late, as that imports it.
        return (torch._dynamo.exc.TorchDynamoException,)

    def __init__(self, setting: Setting, variant: str) -> None:
        form, adam = variant.split()
        torch.set_num_threads(setting.threads)
        torch.set_flush_denormal(True)  # as chainrule does
        network = NETWORKS[setting.network]
        x, y = common.load(setting)
        self._x = torch.from_numpy(np.ascontiguousarray(x.transpose(0, 3, 1, 2)))
        self._y = torch.from_numpy(y)
        self._batch = setting.batch
        self._model = build(network, first_weights(network))
        if form.endswith("channels-last"):
            self._model = self._model.to(memory_format=torch.channels_last)
            self._x = self._x.to(memory_format=torch.channels_last)
        self._step = step_of(form, adam, self._model)

    def first_steps(self, count: int) -> None:
        self._train(torch.arange(count * self._batch))

    def run(self) -> float:
        start = time.perf_counter()
        self._train(torch.randperm(len(self._x)))
        return time.perf_counter() - start

    def _train(self, order: Any) -> None:
        for rows in order.split(self._batch):
            self._step(self._x[rows], self._y[rows])

    def loss(self) -> float:
        with torch.no_grad():
            return float(F.cross_entropy(self._model(self._x[: self._batch]), self._y[: self._batch]))


JOB = TorchJob

if __name__ == "__main__":
    serve(JOB)
