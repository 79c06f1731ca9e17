"""Where the files kept at the repository's top level are found: in a checkout, or inside the
installed wheel.
"""

from pathlib import Path

_PACKAGE = Path(__file__).resolve().parent


def packaged_file(name: str) -> Path:
    """Path of `sql`, `dagster.yaml` or `workspace.yaml`; FileNotFoundError if the installation is
    incomplete.
    """
    for root in (_PACKAGE / "shipped_files", _PACKAGE.parent):
        if (root / name).exists():
            return root / name
    raise FileNotFoundError(
        f"{name} is neither in {_PACKAGE / 'shipped_files'} nor beside {_PACKAGE}"
    )
