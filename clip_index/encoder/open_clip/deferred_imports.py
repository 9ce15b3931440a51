"""Imports that open_clip makes at once and needs late or never, deferred until something uses them.

open_clip imports `timm` for the models that are built from it, and torchvision imports torch's compiler to
ask one question of it. Deferred, importing open_clip takes 0.5 s of CPU time in place of 1.7, and 51 MB in
place of 154. torch itself imports CUDA's bindings for graphs of kernels, which are 6 MB, and torchvision its
models and data sets, which are 5 MB.

`torch._meta_registrations` is not deferred, although it is 19 MB and 0.4 s: whoever compiles a model later
would import it in another order than torch does, and that order is a circle that fails.
"""

from __future__ import annotations

import importlib
import sys
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from importlib.machinery import ModuleSpec, PathFinder
from itertools import accumulate
from types import ModuleType
from typing import Any, TypeAlias

Names: TypeAlias = Mapping[str, tuple[str, ...]]
"""The modules of a package that are deferred, each with the names that an import may take from it."""

DEFERRED: tuple[Names, ...] = (
    {"timm": (), "timm.layers": ("AttentionPool2d", "Mlp", "RotAttentionPool2d", "to_2tuple")},
    {"torch._dynamo": (), "torch._dynamo.utils": ("is_compile_supported",)},
    {"cuda.bindings.driver": ()},
    {"cuda.bindings.runtime": ()},
    {"torchvision.models": ()},
    {"torchvision.datasets": ()},
)


@contextmanager
def deferred_imports(packages: Iterable[Names] = DEFERRED) -> Iterator[None]:
    """Import these modules only when something uses them.

    While the context lasts, an import of such a module gets a stand-in, and so does an import of its listed
    names. Any other name loads the real module at once, so that another version of open_clip costs time
    and breaks nothing. After the context imports find the real modules. A package that is not
    installed stays missing, and one that is loaded already stays as it is.
    """
    waiting = [package for package in packages if _can_wait(next(iter(package)))]
    stand_ins = [module for package in waiting for module in _stand_ins(package)]
    sys.modules.update({module.__name__: module for module in stand_ins})
    try:
        yield
    finally:
        _forget(module.__name__ for module in stand_ins)


def _can_wait(package: str) -> bool:
    return package not in sys.modules and _is_installed(package)


def _is_installed(name: str) -> bool:
    """Whether there is such a module. Nothing is imported, as `find_spec` would do with what it lies in."""
    path: Iterable[str] | None = None
    for package in accumulate(name.split("."), "{}.{}".format):
        spec = PathFinder.find_spec(package, None if path is None else list(path))
        if spec is None:
            return False
        path = spec.submodule_search_locations or ()
    return True


def _stand_ins(package: Names) -> list[_DeferredModule]:
    return [_DeferredModule(name, names, tuple(package)) for name, names in package.items()]


def _forget(names: Iterable[str]) -> None:
    for name in names:
        if isinstance(sys.modules.get(name), _DeferredModule):
            del sys.modules[name]


class _DeferredModule(ModuleType):
    """Stands for a module, which is imported when somebody asks for a name that is not listed."""

    def __init__(self, name: str, names: Iterable[str], package: tuple[str, ...]) -> None:
        super().__init__(name)
        self.__spec__ = ModuleSpec(name, None)  # says that it is installed, to those who only look
        vars(self)["__path__"] = _DeferredPath(self)  # a bare import asks only whether there is one
        self._package = package
        for one in names:
            setattr(self, one, _DeferredName(self, one))

    def __getattr__(self, name: str) -> Any:
        if name == "__file__":  # `inspect` asks every loaded module, and takes it that some have none
            raise AttributeError(name)
        return getattr(self._real(), name)

    def _real(self) -> ModuleType:
        _forget(self._package)
        return importlib.import_module(self.__name__)


class _DeferredPath:
    """Stands for where a deferred module's own modules lie. To look there loads the real module."""

    def __init__(self, module: _DeferredModule) -> None:
        self._module = module

    def __iter__(self) -> Iterator[str]:
        return iter(self._module._real().__path__)


class _DeferredName:
    """Stands for a function or a class of a deferred module: it is called, compared with, or derived from."""

    def __init__(self, module: _DeferredModule, name: str) -> None:
        self._module, self._name = module, name

    def _real(self) -> Any:
        return getattr(self._module._real(), self._name)

    def __call__(self, *arguments: Any, **options: Any) -> Any:
        return self._real()(*arguments, **options)

    def __instancecheck__(self, instance: object) -> bool:
        return isinstance(instance, self._real())

    def __subclasscheck__(self, subclass: type) -> bool:
        return issubclass(subclass, self._real())

    def __mro_entries__(self, _: tuple[object, ...]) -> tuple[type, ...]:
        return (self._real(),)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._real(), name)
