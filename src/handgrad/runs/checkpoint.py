"""Checkpoint files that are whole or absent, and that know of which run they are."""

from collections.abc import Mapping, Sequence
from numbers import Integral, Real
from pathlib import Path
from typing import Any

from lightning_fabric.plugins import CheckpointIO

from handgrad import __version__
from handgrad.errors import InputError
from handgrad.files import remove_stale, replace_file
from handgrad.runs.checkpoint_file import read_checkpoint, sealed
from handgrad.runs.results import check_same


class WholeCheckpointIO(CheckpointIO):
    """Saves atomically with a checksum; loads only local, undamaged files, and never runs code from them.

    Args:
        settings: the run's, by dotted key, saved with each checkpoint; one with other settings, or of other data, is
            refused on loading. None: any run's checkpoint is loaded.
        data: what a saved model must say of its data, saved with each checkpoint.
    """

    def __init__(self, settings: Mapping[str, Any] | None = None, data: Mapping[str, Any] | None = None) -> None:
        self.settings, self.data = settings if settings is None else plain(settings), plain(data or {})

    def save_checkpoint(self, checkpoint: dict[str, Any], path: str | Path, storage_options: Any = None) -> None:
        about = {"version": __version__, "settings": self.settings or {}, "data": self.data}
        path = Path(path)
        try:
            replace_file(path, sealed(checkpoint | {"handgrad": about}))
            remove_stale(path.parent, path.name)
        except OSError as error:
            raise InputError(f"{path}: checkpoint not saved ({error.strerror}); an earlier one is kept") from error

    def load_checkpoint(
        self, path: str | Path, map_location: Any = None, weights_only: bool | None = None
    ) -> dict[str, Any]:
        """Returns the checkpoint.

        Raises:
            InputError: ``path`` is no local file, is damaged, was not written by this project, or is of a run with
                other settings or of an earlier version.
        """
        checkpoint = read_checkpoint(Path(path), map_location)
        if self.settings is not None:
            if "handgrad" not in checkpoint:
                raise InputError(f"{path}: written by an earlier version of handgrad; accepted is a run of this one")
            check_same(checkpoint["handgrad"]["settings"], self.settings)
            check_same(checkpoint["handgrad"]["data"], self.data)
        return checkpoint

    def remove_checkpoint(self, path: str | Path) -> None:
        Path(path).unlink(missing_ok=True)


def plain(value: Any) -> Any:
    """Returns ``value`` in types that are loaded without running code: other numbers and objects as numbers or text."""
    if isinstance(value, Mapping):
        return {str(key): plain(inner) for key, inner in value.items()}
    if hasattr(value, "tolist"):  # an array, a tensor, a scalar of theirs
        value = value.tolist()
    if isinstance(value, Sequence) and not isinstance(value, str):
        return [plain(inner) for inner in value]
    if isinstance(value, Integral | Real) and not isinstance(value, bool):
        return int(value) if isinstance(value, Integral) else float(value)
    return value if value is None or isinstance(value, bool) else str(value)
