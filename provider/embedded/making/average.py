"""Average two trainings' weights: `python -m provider.embedded.making.average BEFORE AFTER TO`.

What was trained on from the same weights keeps more of what it knew before, and of what it learnt
since, than either end has (Wortsman et al. 2022, arXiv:2109.01903).
"""

from __future__ import annotations

import argparse
import shutil
from collections.abc import Sequence
from pathlib import Path

from provider.runtime.mlx import mx

__all__ = ["average", "main"]

WEIGHTS = "model.safetensors"


def average(before: Path, after: Path, to: Path, share: float) -> None:
    """Write a model to the folder `to` whose weights are `share` of `after` and the rest `before`.

    All other files are those of `after`. Raises ValueError if the two are not of one shape.
    """
    first, last = _weights(before), _weights(after)
    if _shapes(first) != _shapes(last):
        raise ValueError(f"{before} and {after} are not models of one shape")
    mixed = {
        name: (
            (1 - share) * first[name].astype(mx.float32) + share * weight.astype(mx.float32)
        ).astype(weight.dtype)
        for name, weight in last.items()
    }
    shutil.copytree(after, to, dirs_exist_ok=True)
    mx.save_safetensors(str(to / WEIGHTS), mixed, metadata={"format": "mlx"})


def _weights(folder: Path) -> dict[str, mx.array]:
    loaded = mx.load(str(folder / WEIGHTS))
    if not isinstance(loaded, dict):
        raise TypeError(f"{folder / WEIGHTS} has no weights with names")
    return loaded


def _shapes(weights: dict[str, mx.array]) -> dict[str, tuple[int, ...]]:
    return {name: tuple(weight.shape) for name, weight in weights.items()}


def main(arguments: Sequence[str] | None = None) -> None:
    """Average as the arguments say, by default those of the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("before", type=Path, help="folder of the model that training went on from")
    parser.add_argument("after", type=Path, help="folder of the model that it made")
    parser.add_argument("to", type=Path, help="folder for the average")
    parser.add_argument("--share", type=float, default=0.6, help="share of AFTER, from 0 to 1")
    given = parser.parse_args(arguments)
    average(given.before, given.after, given.to, given.share)


if __name__ == "__main__":
    main()
