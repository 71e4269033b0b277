"""CUDA as far as the engine uses it, on the CPU: what would break or wait there is found here.

Tensors are on the CPU and say that they are not: a storage remembers its ``home``, ``Tensor.device``
tells it, and whoever makes or moves a tensor sets it. So this is found without a GPU:

- a kernel with tensors of two devices (a single CPU number is allowed, as CUDA allows it);
- a host that waits for the device: ``FakeCuda.waits``, and an error while a graph is captured;
- two streams that touch the same memory, one of them writing, in no order;
- a number that the host looked at while capturing: a graph replays the very operations, on the very
  tensors, that were there at its capture.

Speed, memory and rounding are the CPU's, and ``item()`` within ``torch.inference_mode`` is not seen.
"""

from __future__ import annotations

import traceback
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode, _disable_current_modes

DEVICE = torch.device("cuda", 0)
CPU = torch.device("cpu")
# What reads a value on the host, or has a shape that depends on values.
WAITING = frozenset(
    "_local_scalar_dense nonzero masked_select _unique2 unique_dim is_nonzero equal"
    " repeat_interleave".split()
)
# By a Stream: how many of its launches are known to be over.
Clock = dict["Stream", int]


class WrongDeviceError(AssertionError):
    """CUDA refuses this operation, or the graph that is being captured does."""


class RaceError(AssertionError):
    """Two streams, or a stream and the host, touch the same memory in no order."""


class Stream:
    """Launches one after another. ``clock`` is what has happened before its next one."""

    def __init__(self, fake: FakeCuda) -> None:
        self.clock: Clock = {}
        self._fake = fake
        fake.streams.append(self)

    def wait_stream(self, other: Stream) -> None:
        _merge(self.clock, other.clock)

    def synchronize(self) -> None:
        _merge(self._fake.host, self.clock)


class Event:
    def __init__(self, fake: FakeCuda) -> None:
        self._fake = fake
        self._clock: Clock = {}

    def record(self) -> None:
        self._clock = dict(self._fake.stream.clock)

    def synchronize(self) -> None:
        _merge(self._fake.host, self._clock)


class Graph:
    """What ``torch.cuda.CUDAGraph`` is to the engine."""

    def __init__(self, fake: FakeCuda) -> None:
        self.tape: list[tuple[Any, tuple[Any, ...], dict[str, Any], list[Tensor]]] = []
        self.reads: set[Any] = set()
        self.writes: set[Any] = set()
        self.replays = 0
        self._fake = fake

    def pool(self) -> int:
        return 7

    def replay(self) -> None:
        assert self.tape, "nothing was captured"
        self.replays += 1
        self._fake.launch(self.reads, self.writes)
        with torch.no_grad(), _disable_current_modes(), torch._C.DisableTorchFunction():
            for func, args, kwargs, outs in self.tape:
                made = _tensors(func(*args, **kwargs))
                if not func._schema.is_mutable:
                    for out, new in zip(outs, made, strict=True):
                        out.copy_(new)


class FakeCuda(TorchDispatchMode):
    """The device: sees each kernel. Made by ``installed``."""

    def __init__(self) -> None:
        super().__init__()
        self.waits: list[str] = []
        self.host: Clock = {}
        self.streams: list[Stream] = []
        self.stream = Stream(self)
        self.graph: Graph | None = None
        # Where an operation makes what it makes; None: where what it is given is.
        self.place: torch.device | None = None

    # -- order -----------------------------------------------------------------------------------

    def launch(self, reads: set[Any], writes: set[Any]) -> None:
        """A kernel on the current stream, after all that its memory was used for."""
        clock = self.stream.clock
        # The host starts it, so all that the host has waited for is over.
        _merge(clock, self.host)
        clock[self.stream] = now = clock.get(self.stream, 0) + 1
        for memory in reads | writes:
            _check(clock, memory, reads=memory in writes)
        for memory in reads:
            memory.__dict__.setdefault("read", {})[self.stream] = now
        for memory in writes:
            memory.written, memory.read = {self.stream: now}, {}

    def read(self, tensor: Tensor) -> None:
        """The host looks at its own memory, which a stream may have written."""
        _check(self.host, _memory(tensor), reads=False)

    def wait(self, what: str) -> None:
        """The host waits for the current stream."""
        if self.graph is not None:
            raise WrongDeviceError(f"{what} cannot be captured")
        lines = [f"{f.filename.rsplit('/', 1)[-1]}:{f.lineno}" for f in traceback.extract_stack()]
        where = [line for line in lines if not line.startswith(("_", "fake_cuda"))]
        self.waits.append(f"{what} at {' '.join(where[-4:])}")
        self.stream.synchronize()

    def copied(self, made: Tensor, given: Tensor, *, non_blocking: bool) -> None:
        """``made`` was filled from ``given``, across the devices."""
        own, way = (given, "to") if home(made) == DEVICE else (made, "from")
        self.launch({_memory(given)}, {_memory(made)})
        if not (non_blocking and getattr(own.untyped_storage(), "is_page_locked", False)):
            self.wait(f"a copy {way} the device")
        elif self.graph is not None:
            raise WrongDeviceError("a copy between host and device would be captured for good")

    @contextmanager
    def on(self, stream: Stream | None) -> Iterator[None]:
        before, self.stream = self.stream, stream or self.stream
        try:
            yield
        finally:
            self.stream = before

    @contextmanager
    def capture(
        self, graph: Graph, pool: int | None = None, stream: Stream | None = None
    ) -> Iterator[None]:
        assert stream in self.streams[1:], "the default stream cannot be captured"
        self.synchronize()
        with self.on(stream):
            self.graph = graph
            try:
                yield
            finally:
                self.graph = None

    def synchronize(self, _device: Any = None) -> None:
        for stream in self.streams:
            stream.synchronize()

    # -- kernels -----------------------------------------------------------------------------------

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        name = func._schema.name.removeprefix("aten::")
        given = _tensors((args, kwargs))
        here = [t for t in given if home(t) == DEVICE]
        self._check_devices(name, args, given, here)
        made = func(*args, **kwargs)
        outs, homes = _tensors(made), {t.untyped_storage() for t in given}
        new = [t for t in outs if t.untyped_storage() not in homes]
        if self.place == DEVICE or (here and self.place is None):
            for tensor in new:
                tensor.untyped_storage().home = DEVICE
        if not here:
            for tensor in given:
                self.read(tensor)
        if name == "copy_" and 0 < len(here) < len(given) and given[-1].dim():
            self.copied(given[0], given[1], non_blocking=bool(args[2:] and args[2]))
        elif here or any(home(t) == DEVICE for t in new):
            self._ran(func, args, kwargs, outs, new)
        return made

    def _ran(
        self, func: Any, args: Any, kwargs: Any, outs: list[Tensor], new: list[Tensor]
    ) -> None:
        """A kernel: unless it only made another view of memory, or took memory."""
        if not (new or func._schema.is_mutable):
            return
        written = [
            leaf
            for at, argument in enumerate(func._schema.arguments)
            if argument.alias_info is not None and argument.alias_info.is_write
            for leaf in _tensors(kwargs.get(argument.name, args[at] if at < len(args) else None))
        ]
        if self.graph is not None:
            self.graph.tape.append((func, args, kwargs, outs))
            for tensor in new:
                # One piece of memory to those outside: the pool of the graph.
                tensor.untyped_storage().owner = self.graph
        reads = {_memory(t) for t in _tensors((args, kwargs)) if home(t) == DEVICE}
        writes = {_memory(t) for t in (*written, *new)}
        if self.graph is None:
            self.launch(reads, writes)
        else:
            self.graph.reads |= reads
            self.graph.writes |= writes

    def _check_devices(self, name: str, args: Any, given: list[Tensor], here: list[Tensor]) -> None:
        if not here:
            if self.graph is not None and name.startswith("lift_fresh"):
                raise WrongDeviceError("numbers of the host cannot be captured")
            return
        away = [t for t in given if home(t) != DEVICE]
        if name.startswith(("index.", "index_put", "_index_put")) or name == "index":
            indices = [t for t in args[1] if t is not None]
            if any(t.dtype == torch.bool for t in indices):
                self.wait(f"{name} with a mask")
            if any(home(t) != DEVICE for t in indices):
                # CUDA takes it, and moves it there itself.
                self.wait(f"{name} with an index of the host")
            away = [t for t in away if all(t is not index for index in indices)]
        if name in WAITING:
            self.wait(name)
        if name != "copy_" and any(t.dim() for t in away):
            shapes = [(str(home(t)), tuple(t.shape)) for t in given]
            raise WrongDeviceError(f"{name} of tensors on two devices: {shapes}")


class _Calls(TorchFunctionMode):
    """What the program asks for: where a tensor is, to make or to move one."""

    def __init__(self, fake: FakeCuda) -> None:
        super().__init__()
        self._fake = fake

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = dict(kwargs or {})
        if func == Tensor.device.__get__:
            return home(args[0]) if args[0].device == CPU else args[0].device
        if func == Tensor.is_cuda.__get__:
            return home(args[0]) == DEVICE
        name = getattr(func, "__name__", "")
        if name == "_parse_to":
            return func(*args, **kwargs)
        if name == "to":
            return self._to(func, *args, **kwargs)
        if name in ("cpu", "cuda"):
            return self._moved(args[0], CPU if name == "cpu" else DEVICE, non_blocking=False)
        if name == "pin_memory":
            return _pinned(args[0])
        if name in ("tolist", "numpy", "__array__"):
            self._looked(args[0], name)
        if name in ("tensor", "as_tensor") and _is_cuda(kwargs.get("device")):
            del kwargs["device"]
            return self._moved(func(*args, **kwargs), DEVICE, non_blocking=False)
        is_pinned = kwargs.pop("pin_memory", False)
        before, device = self._fake.place, kwargs.get("device")
        if device is not None:
            self._fake.place = torch.device(device)
            if _is_cuda(device):
                self._fake.place = DEVICE
                kwargs["device"] = CPU
        elif any(home(t) == DEVICE for t in _tensors((args, kwargs))):
            # Inside of an operation on the device, what it makes for itself is there too.
            self._fake.place = DEVICE
        try:
            made = func(*args, **kwargs)
        finally:
            self._fake.place = before
        return _pinned(made) if is_pinned else made

    def _to(self, func: Any, tensor: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        kwargs.pop("copy", None)
        if args and isinstance(args[0], Tensor):
            device, dtype, non_blocking = home(args[0]), args[0].dtype, False
        else:
            device, dtype, non_blocking, _ = torch._C._nn._parse_to(*args, **kwargs)
        if device is not None and device.type not in ("cpu", "cuda"):
            return func(tensor, *args, **kwargs)
        converted = func(tensor, dtype or tensor.dtype)
        return self._moved(converted, device or home(tensor), non_blocking=non_blocking)

    def _moved(self, tensor: Tensor, device: torch.device, *, non_blocking: bool) -> Tensor:
        if _is_cuda(device) == (home(tensor) == DEVICE) or tensor.device != CPU:
            return tensor
        with _disable_current_modes():
            made = tensor.clone()
        if _is_cuda(device):
            made.untyped_storage().home = DEVICE
        self._fake.copied(made, tensor, non_blocking=non_blocking)
        return made

    def _looked(self, tensor: Tensor, name: str) -> None:
        if home(tensor) != DEVICE:
            self._fake.read(tensor)
        elif name == "tolist":
            self._fake.wait("tolist")
        else:
            raise WrongDeviceError(f"{name} of a tensor on the device")


class _Generator(torch.Generator):
    def __new__(cls, device: Any = None) -> _Generator:
        return super().__new__(cls)


def home(tensor: Tensor) -> torch.device:
    """Where ``tensor`` says it is."""
    while torch._C._functorch.is_functorch_wrapped_tensor(tensor):
        tensor = torch._C._functorch.get_unwrapped(tensor)
    return getattr(tensor.untyped_storage(), "home", CPU)


def _memory(tensor: Tensor) -> Any:
    """What a race is about: a storage, or the graph that it belongs to."""
    storage = tensor.untyped_storage()
    return getattr(storage, "owner", storage)


def _pinned(tensor: Tensor) -> Tensor:
    assert home(tensor) == CPU, "only memory of the host can be pinned"
    made = tensor.clone()
    made.untyped_storage().is_page_locked = True
    return made


def _is_cuda(device: Any) -> bool:
    return device is not None and torch.device(device).type == "cuda"


def _tensors(tree: Any) -> list[Tensor]:
    if isinstance(tree, Tensor):
        return [tree]
    if isinstance(tree, dict):
        tree = tree.values()
    elif not isinstance(tree, list | tuple):
        return []
    return [tensor for branch in tree for tensor in _tensors(branch)]


def _merge(clock: Clock, other: Clock) -> None:
    for stream, count in other.items():
        clock[stream] = max(clock.get(stream, 0), count)


def _check(clock: Clock, memory: Any, *, reads: bool) -> None:
    """Raise RaceError where ``memory`` was written, or read, at a time not known to be over."""
    used = dict(getattr(memory, "written", {}))
    if reads:
        _merge(used, getattr(memory, "read", {}))
    if any(clock.get(stream, 0) < count for stream, count in used.items()):
        raise RaceError("memory is used while another stream may still use it")


@contextmanager
def installed() -> Iterator[FakeCuda]:
    """In the place of torch.cuda, with all that it needs to watch."""
    fake = FakeCuda()

    with ExitStack() as stack:
        patch = stack.enter_context(pytest.MonkeyPatch.context())
        for name, value in {
            "CUDAGraph": lambda: Graph(fake),
            "Stream": lambda _device=None: Stream(fake),
            "Event": lambda: Event(fake),
            "graph": fake.capture,
            "stream": fake.on,
            "current_stream": lambda _device=None: fake.stream,
            "default_stream": lambda _device=None: fake.streams[0],
            "set_stream": lambda stream: setattr(fake, "stream", stream),
            "set_device": lambda _device: None,
            "synchronize": fake.synchronize,
            "empty_cache": lambda: None,
            "is_available": lambda: True,
            "device_count": lambda: 1,
            "get_device_name": lambda _device=None: "a device that is not there",
            "mem_get_info": lambda _device=None: (2**30, 2**31),
        }.items():
            patch.setattr(torch.cuda, name, value)
        patch.setattr(torch, "Generator", _Generator)
        stack.enter_context(fake)
        stack.enter_context(_Calls(fake))
        yield fake
