"""Compute the passes of several networks of one arm as those of one network with stacked weights."""

import threading
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.func import functional_call, vmap

__all__ = ["Lockstep", "Seat"]


@dataclass(frozen=True)
class _Mode:
    """Mode of a forward pass; requests of equal mode can be joined."""

    shape: torch.Size
    grad: bool
    inference: bool
    device: str
    autocast: torch.dtype | None  # that of its convolutions, None if they are not cast
    alone: bool  # hooks want to see this network's own tensors

    @classmethod
    def here(cls, amplitudes: Tensor, generator: nn.Module) -> "_Mode":
        """Mode in which this thread would make a forward pass of ``generator`` now."""
        device = amplitudes.device.type
        return cls(
            amplitudes.shape,
            torch.is_grad_enabled(),
            torch.is_inference_mode_enabled(),
            device,
            torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else None,
            any(module._forward_hooks or module._forward_pre_hooks for module in generator.modules()),
        )

    @contextmanager
    def entered(self) -> Iterator[None]:
        with (
            torch.inference_mode(self.inference),
            torch.set_grad_enabled(self.grad),
            torch.autocast(self.device, self.autocast, enabled=self.autocast is not None),
        ):
            yield


@dataclass
class _Request:
    """A pass that a training waits for: a forward one by its mode, or a backward one by the forward one before it."""

    kind: "_Mode | _Pass"
    tensor: Tensor  # amplitudes, or the gradient with respect to the patches
    answer: Tensor | None = None
    error: BaseException | None = None
    done: bool = False


class Lockstep:
    """Meeting point of trainings that run in lockstep.

    Args:
        size: how many there are. Nothing is computed before each has asked for something, or has left.

    Attributes:
        turn: held by a training for all that is not training: set-up draws from torch's global random
            state, and figures gain nothing from threads.
    """

    def __init__(self, size: int) -> None:
        self.size = size
        self.seats = [Seat(self) for _ in range(size)]
        self.turn = threading.Lock()
        self._present = list(self.seats)
        self._changed = threading.Condition()
        self._stack: _Stack | None = None
        self._ended_by: str | None = None

    def end(self, reason: str) -> None:
        """Let every training raise SystemExit instead of its next pass."""
        with self._changed:
            self._ended_by = reason
            self._changed.notify_all()

    def ask(self, seat: "Seat", request: _Request) -> Tensor | None:
        """Wait for a pass; raises what went wrong with it."""
        with self._changed:
            seat.request = request
            self._serve()
            while not request.done and self._ended_by is None:
                self._changed.wait()
            seat.request = None
        if self._ended_by is not None:
            raise SystemExit(self._ended_by)
        if request.error is not None:
            raise request.error
        return request.answer

    def leave(self, seat: "Seat") -> None:
        """Wait for this one no longer."""
        with self._changed:
            if seat in self._present:
                self._present.remove(seat)
                self._serve()

    def _serve(self) -> None:
        """Make the passes, once all present have asked; the last one to come makes them for all."""
        requests = {seat: seat.request for seat in self._present if seat.request and not seat.request.done}
        if not requests or len(requests) < len(self._present):
            return
        alike: dict[_Mode | _Pass, dict[Seat, _Request]] = defaultdict(dict)
        for seat, request in requests.items():
            alike[request.kind][seat] = request
        for kind, asked in alike.items():
            try:
                if isinstance(kind, _Pass):
                    kind.backward({seat: request.tensor for seat, request in asked.items()})
                else:
                    with kind.entered():
                        self._forward(kind, asked)
            except Exception as error:  # each training judges it as its own, a lack of memory too
                for request in asked.values():
                    request.error = error
            for request in asked.values():
                request.done = True
        self._changed.notify_all()

    def _forward(self, mode: _Mode, asked: Mapping["Seat", _Request]) -> None:
        groups = [list(asked)] if len(asked) == len(self._present) and not mode.alone else [[seat] for seat in asked]
        for seats in groups:
            amplitudes = [asked[seat].tensor for seat in seats]
            if len(seats) == 1:
                parameters: list[Tensor] = list(seats[0].generator.parameters())
                patches = seats[0].generator(amplitudes[0])[None]
            else:
                if self._stack is None or self._stack.seats != seats:
                    self._stack = _Stack(seats)
                parameters = list(self._stack.weights.values())
                patches = self._stack(torch.stack(amplitudes))
            made = _Pass(seats, parameters, patches) if mode.grad else None
            for seat, own in zip(seats, patches, strict=True):
                seat.latest = made
                asked[seat].answer = own.detach().requires_grad_() if mode.grad else own


class Seat:
    """One training's place among the others.

    Attributes:
        generator: its network, while it trains.
        latest: its forward pass that has not been taken back yet.
    """

    generator: nn.Module

    def __init__(self, lockstep: Lockstep) -> None:
        self.lockstep = lockstep
        self.request: _Request | None = None
        self.latest: _Pass | None = None
        self._patches: Tensor | None = None

    @contextmanager
    def taken(self, generator: nn.Module) -> Iterator[None]:
        """Train ``generator`` beside the others, which have the turn meanwhile; leave at the end."""
        self.generator = generator
        self.lockstep.turn.release()
        try:
            yield
        finally:
            self.lockstep.leave(self)
            self.lockstep.turn.acquire()
            for parameter in generator.parameters():
                parameter.data = parameter.data.clone()  # else it would hold the weights of all

    def forward(self, amplitudes: Tensor) -> Tensor:
        """Output of the network for ``amplitudes``, as from `torch.nn.Module.__call__`.

        With gradients on, ask for `backward` once the loss's own backward pass has come to these patches.
        """
        self._patches = self.lockstep.ask(self, _Request(_Mode.here(amplitudes, self.generator), amplitudes))
        assert self._patches is not None
        return self._patches

    def backward(self) -> None:
        """Compute the parameters' gradients from the gradient of the patches."""
        assert self.latest is not None
        assert self._patches is not None
        gradient = self._patches.grad
        if gradient is None:  # the loss does not depend on them
            gradient = torch.zeros_like(self._patches)
        self.lockstep.ask(self, _Request(self.latest, gradient))
        self.latest = self._patches = None


class _Pass:
    """A forward pass of some seats, with what its backward pass needs."""

    def __init__(self, seats: Sequence[Seat], parameters: Sequence[Tensor], patches: Tensor) -> None:
        self.seats = seats
        self.parameters = parameters
        self.patches = patches

    def backward(self, gradients: Mapping[Seat, Tensor]) -> None:
        """Give every seat's parameters their gradients. One that has left gets none: its part is 0 times anything."""
        with torch.inference_mode(False):
            unasked = torch.zeros_like(self.patches[0])
            gradient = torch.stack([gradients.get(seat, unasked) for seat in self.seats])
            found = torch.autograd.grad(self.patches, self.parameters, gradient, allow_unused=True)
        stacked = len(self.seats) > 1
        for place, seat in enumerate(self.seats):
            for parameter, each in zip(seat.generator.parameters(), found, strict=True):
                if each is not None and seat in gradients:
                    own = each[place] if stacked else each
                    if own.stride() != parameter.stride():  # as autograd itself sees to: fused optimisers rely on it
                        own = torch.empty_like(parameter).copy_(own)
                    parameter.grad = own if parameter.grad is None else parameter.grad + own


class _Stack:
    """The weights of several equal networks as one: from here on theirs are views of it."""

    def __init__(self, seats: Sequence[Seat]) -> None:
        self.seats = seats
        self.generator = seats[0].generator
        named = [dict(seat.generator.named_parameters()) for seat in seats]
        self.weights: dict[str, Tensor] = {}
        with torch.inference_mode(False):
            for name in named[0]:
                weight = torch.stack([each[name].data for each in named])
                for each, own in zip(named, weight, strict=True):
                    each[name].data = own
                self.weights[name] = weight.requires_grad_(named[0][name].requires_grad)
        self._networks = vmap(lambda weights, amplitudes: functional_call(self.generator, weights, (amplitudes,)))

    def __call__(self, amplitudes: Tensor) -> Tensor:
        """Amplitudes (K, B, 1, N, N) -> patches (K, B, 1, N, N)."""
        patches: Tensor = self._networks(self.weights, amplitudes)
        return patches
