"""An accelerator for tests: tensors on a device of their own, whose numbers lie in host memory, and which refuse what a GPU refuses.

A process that imports this has, within `accelerator`, a device ``pretended``: models move to it, gradients flow, and values come
back when they are asked for. What a GPU refuses is refused: an operation on tensors of both devices (single numbers and
indices from the host are let through, as on CUDA), reading memory without a copy to the host, and a generator of the other
device. Registering a device cannot be undone, so this belongs into a process of its own.

It says nothing of speed, of streams, of graphs or of the numbers of real kernels: the arithmetic is the CPU's.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, ValuesView
from typing import Any

import torch
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.backend_registration import _DummyBackendModule, _setup_privateuseone_for_python_backend

NAME = "pretended"
_aten = torch.ops.aten
_CROSSING = {_aten._to_copy.default, _aten.copy_.default, _aten._local_scalar_dense.default}
_INDEXED = {_aten.index.Tensor, _aten.index_put.default, _aten.index_put_.default, _aten._index_put_impl_.default}


class _Module(_DummyBackendModule):
    def get_amp_supported_dtype(self) -> list[torch.dtype]:
        return []  # asked where autocast is entered, though not enabled


_setup_privateuseone_for_python_backend(NAME, backend_module=_Module())


def _is_here(device: Any) -> bool:
    return torch.device(device).type == NAME


class Held(torch.Tensor):
    """A tensor of the accelerator: shape, strides and device of its own, the numbers in ``held`` on the host."""

    held: torch.Tensor

    @staticmethod
    def __new__(cls, held: torch.Tensor) -> Held:
        return torch.Tensor._make_wrapper_subclass(
            cls,
            held.shape,
            strides=held.stride(),
            storage_offset=held.storage_offset(),
            dtype=held.dtype,
            device=f"{NAME}:0",
        )

    def __init__(self, held: torch.Tensor) -> None:
        self.held = held

    @classmethod
    def __torch_dispatch__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return _run(func, args, kwargs or {})

    def __deepcopy__(self, memo: dict[int, Any]) -> Held:
        if id(self) not in memo:
            copied = Held(self.held.detach().clone()).requires_grad_(self.requires_grad)
            if isinstance(self, torch.nn.Parameter):
                copied._is_param = True
            memo[id(self)] = copied
        return memo[id(self)]

    # what torch refuses for subclasses, though a device allows it
    def tolist(self) -> Any:
        return self.held.tolist()

    def data_ptr(self) -> int:
        return self.held.data_ptr()

    def untyped_storage(self) -> torch.UntypedStorage:
        return self.held.untyped_storage()


class DeviceGenerator(torch.Generator):
    """What ``torch.Generator("pretended")`` gives."""

    def __new__(cls, _device: Any = None) -> DeviceGenerator:
        return super().__new__(cls, "cpu")


def _leaves(value: Any) -> Iterator[Any]:
    """Arguments of an operation: in tuples and lists, one in the other."""
    for part in value:
        if isinstance(part, tuple | list | ValuesView):
            yield from _leaves(part)
        else:
            yield part


def _on_host(value: Any) -> Any:
    if isinstance(value, Held):
        return value.held
    return type(value)(map(_on_host, value)) if isinstance(value, tuple | list) else value


def _run(func: Any, args: Any, kwargs: dict[str, Any]) -> Any:
    """The operation on the host's numbers, once all its tensors are found on one device; what it makes is on that device."""
    tensors = [leaf for leaf in _leaves((args, kwargs.values())) if isinstance(leaf, torch.Tensor)]
    ours = [tensor for tensor in tensors if isinstance(tensor, Held)]
    wanted = kwargs.get("device")
    here = bool(ours) if wanted is None else _is_here(wanted)
    strange = [t for t in tensors if not isinstance(t, Held) and t.dim() and t.device.type == "cpu"]
    if ours and strange and func not in _CROSSING | _INDEXED:
        raise RuntimeError(f"{func} got tensors on {NAME} and on cpu, of shape {tuple(strange[0].shape)}")
    host = {name: _on_host(value) for name, value in kwargs.items()}
    if here and wanted is not None:
        host["device"] = torch.device("cpu")
    made = func(*_on_host(tuple(args)), **host)
    return _wrapped(made, func, {id(tensor.held): tensor for tensor in ours}) if here else made


def _wrapped(made: Any, func: Any, given: dict[int, Held]) -> Any:
    """What an operation made, on the device; what it changed in place is the tensor that was ``given``."""
    if isinstance(made, tuple | list):
        return type(made)(_wrapped(part, func, given) for part in made)
    if not isinstance(made, torch.Tensor):
        return made
    found = given.get(id(made))
    if found is not None and (found.shape, found.stride()) != (made.shape, made.stride()):
        raise NotImplementedError(f"{func} changes the shape of a tensor in place")
    return Held(made) if found is None else found


class _Operations(TorchDispatchMode):
    """Catches what has no tensor of the device among its arguments: copies to it, and new tensors."""

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return _run(func, args, kwargs or {})


class _Calls(TorchFunctionMode):
    """Catches what dispatch does not see: tensors from Python's numbers, made on the host and copied; whose generator it is."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = dict(kwargs or {})
        if func in (torch.tensor, torch.as_tensor) and kwargs.get("device") is not None:
            device = kwargs.pop("device")
            return func(*args, **kwargs).to(device)
        generator = kwargs.get("generator")
        if generator is not None:
            places = [leaf.device for leaf in _leaves(args) if isinstance(leaf, torch.Tensor)]
            place = kwargs.get("device") or (places[0] if places else "cpu")
            if isinstance(generator, DeviceGenerator) != _is_here(place):
                raise RuntimeError(f"{func.__name__} on {place} got a generator of another device")
        return func(*args, **kwargs)


@contextlib.contextmanager
def accelerator() -> Iterator[str]:
    """The device, for as long as the context lasts; gives its name."""
    host, swaps = torch.Generator, torch.__future__.get_swap_module_params_on_conversion()

    def generator(device: Any = "cpu") -> torch.Generator:
        return DeviceGenerator(device) if _is_here(device) else host(device)

    torch.Generator = generator  # type: ignore[misc,assignment]
    # a model that moves keeps its parameters, tied ones too, as on a GPU
    torch.__future__.set_swap_module_params_on_conversion(True)
    try:
        with _Calls(), _Operations():
            yield NAME
    finally:
        torch.Generator = host  # type: ignore[misc]
        torch.__future__.set_swap_module_params_on_conversion(swaps)
