"""Finding ``pyro_avae.models``, ``.guides`` and ``.experiments`` in a checkout.

Their sources lie beside the engine's folder. After a plain install, that folder shadows the installed package when
Python starts in the checkout's root, and the three would be missing. An editable install solves the same problem in the
same way.
"""

import sys
from collections.abc import Sequence
from importlib.machinery import ModuleSpec
from importlib.util import spec_from_file_location
from pathlib import Path
from types import ModuleType

__all__ = ["find_siblings"]

_SIBLINGS = ("models", "guides", "experiments")


class _SiblingFinder:
    """Answers for the three packages and for nothing else, after every other finder."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def find_spec(
        self, name: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        package, _, sibling = name.partition(".")
        if package != __package__ or sibling not in _SIBLINGS:
            return None
        folder = self.root / sibling
        return spec_from_file_location(name, folder / "__init__.py", submodule_search_locations=[str(folder)])


def find_siblings(package_file: str) -> None:
    """Make the three packages importable if ``package_file`` belongs to a checkout; else do nothing."""
    root = Path(package_file).resolve().parent.parent
    if all((root / sibling / "__init__.py").is_file() for sibling in _SIBLINGS) and (root / "pyproject.toml").is_file():
        sys.meta_path.append(_SiblingFinder(root))
