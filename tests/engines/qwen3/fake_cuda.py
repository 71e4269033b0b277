"""CUDA as far as the engine uses it, on the CPU: graphs that replay what they recorded, no more.

A graph here is a tape of operations on the very tensors that were there at its capture, as it is on
a GPU: a number that the host looked at while capturing stays what it was, and an operation that
would make the host wait, or bring it new data, is refused. Streams are one, so races are not found.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

DEVICE = torch.device("cuda", 0)
# What reads a value on the host, has a shape that depends on values, or makes a tensor of numbers
# that the host holds.
REFUSED = frozenset(
    "_local_scalar_dense nonzero masked_select _unique2 unique_dim lift_fresh lift_fresh_copy"
    " is_nonzero equal".split()
)


class Graph:
    """What ``torch.cuda.CUDAGraph`` is to the engine."""

    def __init__(self) -> None:
        self._tape: list[tuple[Any, tuple[Any, ...], dict[str, Any], list[Tensor]]] = []
        self.replays = 0

    def pool(self) -> int:
        return 7

    def replay(self) -> None:
        assert self._tape, "nothing was captured"
        self.replays += 1
        with torch.no_grad():
            for func, args, kwargs, outs in self._tape:
                made = [leaf for leaf in tree_leaves(func(*args, **kwargs)) if _is_tensor(leaf)]
                if not func._schema.is_mutable:
                    for out, new in zip(outs, made, strict=True):
                        out.copy_(new)


class Recorder(TorchDispatchMode):
    def __init__(self, graph: Graph) -> None:
        super().__init__()
        self._graph = graph

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        name = func._schema.name.removeprefix("aten::")
        assert name not in REFUSED, f"{name} cannot be captured"
        given = [leaf for leaf in tree_leaves((args, kwargs)) if _is_tensor(leaf)]
        if name.startswith("index"):
            masks = [t for t in given[1:] if t.dtype == torch.bool and t.shape == given[0].shape]
            assert not masks or name != "index", "a mask as an index makes the host wait"
        made = func(*args, **kwargs)
        outs = [leaf for leaf in tree_leaves(made) if _is_tensor(leaf)]
        homes = {t.untyped_storage().data_ptr() for t in given}
        is_view = any(t.untyped_storage().data_ptr() in homes for t in outs)
        # A view stays one of what it looks at: there is nothing to do again.
        if func._schema.is_mutable or not is_view:
            self._graph._tape.append((func, args, kwargs, outs))
        return made


class Stream:
    def __init__(self, _device: Any = None) -> None:
        pass

    def wait_stream(self, other: Stream) -> None:
        assert isinstance(other, Stream)

    def synchronize(self) -> None:
        pass


class Event:
    def record(self) -> None:
        pass

    def synchronize(self) -> None:
        pass


@contextmanager
def _capturing(
    graph: Graph, pool: int | None = None, stream: Stream | None = None
) -> Iterator[None]:
    assert isinstance(stream, Stream), "the default stream cannot be captured"
    with Recorder(graph):
        yield


def _is_tensor(value: Any) -> bool:
    return isinstance(value, Tensor)


def install(monkeypatch: Any) -> None:
    """Put it in the place of torch.cuda, for one test."""
    only = Stream()
    to, empty, tensor = Tensor.to, torch.empty, torch.tensor

    def stay(self: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        # A copy even where it is there already, as a copy to a device is one.
        if args[:1] == (DEVICE,):
            return to(self.clone(), *args[1:], **{k: v for k, v in kwargs.items() if k == "dtype"})
        return to(self, *args, **kwargs)

    def here(make: Any) -> Any:
        def call(*args: Any, **kwargs: Any) -> Tensor:
            kwargs.pop("pin_memory", None)
            if kwargs.get("device") == DEVICE:
                del kwargs["device"]
            return make(*args, **kwargs)

        return call

    monkeypatch.setattr(torch.Tensor, "to", stay)
    monkeypatch.setattr(torch.Tensor, "pin_memory", lambda self: self.clone())
    monkeypatch.setattr(torch, "empty", here(empty))
    monkeypatch.setattr(torch, "tensor", here(tensor))
    for name, value in {
        "CUDAGraph": Graph,
        "Stream": Stream,
        "Event": Event,
        "graph": _capturing,
        "stream": lambda _stream: nullcontext(),
        "current_stream": lambda _device=None: only,
        "set_stream": lambda _stream: None,
        "empty_cache": lambda: None,
        "synchronize": lambda _device=None: None,
    }.items():
        monkeypatch.setattr(torch.cuda, name, value)
