"""Objects of one kind by name: those of this package, of installed packages and of the user."""

from collections.abc import Mapping
from importlib.metadata import EntryPoint, entry_points
from typing import Generic, TypeVar

from ptrm_jax.errors import InputError

T = TypeVar("T")


class Registry(Generic[T]):
    """Objects of one kind by name, each imported when it is first loaded.

    Args:
      kind: what messages call an object, such as "task".
      own: where this package has each object, by name: "module" or "module:attribute".
      type: class of the objects (`types.ModuleType` for modules).
      group: entry-point group in which installed packages offer further objects; None for none.
    """

    def __init__(
        self, kind: str, own: Mapping[str, str], type: type[T], *, group: str | None = None
    ) -> None:
        self._kind, self._type, self._group = kind, type, group
        self._objects: dict[str, T] = {}
        self._places = {name: EntryPoint(name, place, group or "") for name, place in own.items()}
        self._has_looked = group is None

    def names(self) -> tuple[str, ...]:
        """All names: this package's in the order given, installed packages', registered ones.

        Raises:
          InputError: an installed package offers a name that is taken.
        """
        self._look_for_packages()
        return (*self._places, *(name for name in self._objects if name not in self._places))

    def load(self, name: str) -> T:
        """The object of this name.

        Raises:
          InputError: there is none of this name, or a package's object is broken.
        """
        if name not in self.names():
            raise InputError(f"{self._kind} must be one of {', '.join(self.names())}; got {name!r}")
        if name not in self._objects:
            self._objects[name] = self._import(self._places[name])
        return self._objects[name]

    def register(self, name: str, item: T) -> None:
        """Adds an object for the rest of this process.

        Raises:
          InputError: it is not of the registry's type, or its name is taken.
        """
        if not isinstance(item, self._type):
            raise InputError(
                f"a {self._kind} must be a {self._type.__name__}; got {type(item).__name__}"
            )
        if name in self.names():
            raise InputError(f"{self._kind} {name!r} exists already; choose another name")
        self._objects[name] = item

    def _look_for_packages(self) -> None:
        if self._has_looked:
            return
        offered: dict[str, EntryPoint] = {}
        for place in sorted(entry_points(group=self._group or ""), key=lambda place: place.name):
            if place.name in (self._places | offered):
                raise InputError(
                    f"{self._kind} {place.name!r} of {_package(place)} exists already; uninstall "
                    f"the package, or rename its entry point of group {self._group!r}"
                )
            offered[place.name] = place
        self._places |= offered
        self._has_looked = True

    def _import(self, place: EntryPoint) -> T:
        if place.dist is None:  # of this package: an error is a defect of ours
            return place.load()
        what = f"{self._kind} {place.name!r} of {_package(place)}"
        try:
            item = place.load()
        except Exception as error:  # whatever the package's module raises
            raise InputError(
                f"{what} cannot be loaded from {place.value!r}: {type(error).__name__}: {error}; "
                "repair or uninstall the package"
            ) from error
        if not isinstance(item, self._type):
            raise InputError(
                f"{what} must be a {self._type.__name__}; {place.value!r} is a "
                f"{type(item).__name__}; repair or uninstall the package"
            )
        return item


def _package(place: EntryPoint) -> str:
    return "this package" if place.dist is None else f"package {place.dist.name!r}"
