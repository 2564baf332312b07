"""Batched forward and backward passes of several networks of one arm, with stacked weights."""

import threading
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.func import functional_call, vmap


@dataclass(frozen=True)
class _Mode:
    """Mode of a forward pass; requests with equal modes can be batched."""

    shape: torch.Size
    grad: bool
    inference: bool
    device: str
    autocast: torch.dtype | None  # of its convolutions; None if they are not cast
    alone: bool  # whether hooks need this network's own tensors

    @classmethod
    def here(cls, amplitudes: Tensor, generator: nn.Module) -> "_Mode":
        """Mode of a forward pass of ``generator`` in the current thread."""
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
    """Pass that a training waits for; ``kind`` is the mode of a forward pass, or the forward pass to differentiate."""

    kind: "_Mode | _Pass"
    tensor: Tensor  # amplitudes, or the gradient with respect to the patches
    answer: Tensor | None = None
    error: BaseException | None = None
    done: bool = False


class Lockstep:
    """Synchronisation point of trainings that run in lockstep.

    Args:
        size: number of trainings. A pass is computed once each training has requested one or has left.

    Attributes:
        turn: lock that a training holds outside of its training loop, since set-up uses torch's global random state
            and figures do not profit from threads.
    """

    def __init__(self, size: int) -> None:
        self.size = size
        self.seats = [Seat(self) for _ in range(size)]
        self.turn = threading.Lock()
        self._present = list(self.seats)
        self._set_up: set[Seat] = set()
        self._changed = threading.Condition()
        self._stack: _Stack | None = None
        self._ended_by: str | None = None

    def end(self, reason: str) -> None:
        """Make every training raise SystemExit with this reason at its next pass."""
        with self._changed:
            self._ended_by = reason
            self._changed.notify_all()

    def await_all(self, seat: "Seat") -> None:
        """Wait until every training is set up or has left: a start of training changes the random state of set-ups."""
        with self._changed:
            self._set_up.add(seat)
            self._changed.notify_all()
            while not self._set_up.issuperset(self._present) and self._ended_by is None:
                self._changed.wait()

    def ask(self, seat: "Seat", request: _Request) -> Tensor | None:
        """Request a pass, wait for it and return its result; re-raise its error."""
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
        """Remove a training, so that the others no longer wait for it."""
        with self._changed:
            if seat in self._present:
                self._present.remove(seat)
                self._serve()
                self._changed.notify_all()

    def _serve(self) -> None:
        """Compute the passes once all present trainings have requested one, in the thread of the last request."""
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
            except Exception as error:  # re-raised in each training, which judges it as its own
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
    """Place of one training in a `Lockstep`.

    Attributes:
        generator: network of the training.
        latest: last forward pass, until its backward pass.
    """

    generator: nn.Module

    def __init__(self, lockstep: Lockstep) -> None:
        self.lockstep = lockstep
        self.request: _Request | None = None
        self.latest: _Pass | None = None
        self._patches: Tensor | None = None

    @contextmanager
    def taken(self, generator: nn.Module) -> Iterator[None]:
        """Context of the training loop of ``generator``: wait until the others are set up, and leave at the end."""
        self.generator = generator
        self.lockstep.turn.release()
        try:
            self.lockstep.await_all(self)
            yield
        finally:
            self.lockstep.leave(self)
            self.lockstep.turn.acquire()
            for parameter in generator.parameters():
                parameter.data = parameter.data.clone()  # else it would keep the stacked weights of all alive

    def forward(self, amplitudes: Tensor) -> Tensor:
        """Output of the network for ``amplitudes``, as from `torch.nn.Module.__call__`.

        With gradients enabled, call `backward` after the backward pass of the loss has reached these patches.
        """
        self._patches = self.lockstep.ask(self, _Request(_Mode.here(amplitudes, self.generator), amplitudes))
        assert self._patches is not None
        return self._patches

    def backward(self) -> None:
        """Compute the parameter gradients from the gradient of the patches."""
        assert self.latest is not None
        assert self._patches is not None
        gradient = self._patches.grad
        if gradient is None:  # the loss does not depend on the patches
            gradient = torch.zeros_like(self._patches)
        self.lockstep.ask(self, _Request(self.latest, gradient))
        self.latest = self._patches = None


class _Pass:
    """Forward pass of some seats, kept for its backward pass."""

    def __init__(self, seats: Sequence[Seat], parameters: Sequence[Tensor], patches: Tensor) -> None:
        self.seats = seats
        self.parameters = parameters
        self.patches = patches

    def backward(self, gradients: Mapping[Seat, Tensor]) -> None:
        """Set the parameter gradients of every seat; a seat without a gradient has left and counts with zeros."""
        with torch.inference_mode(False):
            unasked = torch.zeros_like(self.patches[0])
            gradient = torch.stack([gradients.get(seat, unasked) for seat in self.seats])
            found = torch.autograd.grad(self.patches, self.parameters, gradient, allow_unused=True)
        stacked = len(self.seats) > 1
        for place, seat in enumerate(self.seats):
            for parameter, each in zip(seat.generator.parameters(), found, strict=True):
                if each is not None and seat in gradients:
                    own = each[place] if stacked else each
                    if own.stride() != parameter.stride():  # like autograd; fused optimisers rely on it
                        own = torch.empty_like(parameter).copy_(own)
                    parameter.grad = own if parameter.grad is None else parameter.grad + own


class _Stack:
    """Stacked weights of several equal networks; the networks' own weights become views of them."""

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
        """Run all networks: amplitudes (K, B, 1, N, N) -> patches (K, B, 1, N, N)."""
        patches: Tensor = self._networks(self.weights, amplitudes)
        return patches
