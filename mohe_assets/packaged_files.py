"""Paths of the repository's top-level files, in a checkout and in the installed wheel."""

from hashlib import sha256
from pathlib import Path

# SHA-256 of every dagster.yaml that earlier versions installed into homes. A change of the file
# adds the digest of its predecessor.
SHIPPED_DAGSTER_YAML = frozenset(
    {
        "5b05215d58806c46a77f3ae5f37c22a93fba6e5f598b03794454fe4db1477d5f",
        "b59c7f3dd177705271f7320b43fc666919299ce53e00499f8bb310150be79a3a",
        "b7a94a71f2a6ed86b7760fd1fd87d120cb950df79116c307f7b71b18fcb4f72a",
        "eac0181563fe9e0f4e0c84def5c37afb3671e81f479cf5cfb73e477646db6ebc",
        "03a0e71acaa2bc2a269169a252d4038f0533011a26e1c6e6ed79f1a78c6783ce",
    }
)

_PACKAGE = Path(__file__).resolve().parent


def packaged_file(name: str) -> Path:
    """Return the path of `sql`, `dagster.yaml` or `workspace.yaml`.

    Raises FileNotFoundError if the installation is incomplete.
    """
    for root in (_PACKAGE / "shipped_files", _PACKAGE.parent):
        if (root / name).exists():
            return root / name
    raise FileNotFoundError(
        f"{name} is neither in {_PACKAGE / 'shipped_files'} nor beside {_PACKAGE}"
    )


def is_shipped_dagster_yaml(content: bytes) -> bool:
    """Whether a dagster.yaml is of this or an earlier version, without changes by a person."""
    return (
        content == packaged_file("dagster.yaml").read_bytes()
        or sha256(content).hexdigest() in SHIPPED_DAGSTER_YAML
    )
