"""The average of two models' weights."""

import pytest

from provider.embedded.making.average import WEIGHTS, average, main
from provider.runtime.mlx import mx


def write(folder, **weights):
    folder.mkdir()
    (folder / "config.json").write_text(f'"{folder.name}"')
    made = {name: mx.array(values, dtype=mx.bfloat16) for name, values in weights.items()}
    mx.save_safetensors(str(folder / WEIGHTS), made)
    return folder


def test_an_average_lies_between_two_models_and_has_the_files_of_the_later(tmp_path):
    before = write(tmp_path / "before", a=[0.0, 4.0], b=[[1.0]])
    after = write(tmp_path / "after", a=[4.0, 0.0], b=[[1.0]])
    main([*map(str, (before, after, tmp_path / "made")), "--share", "0.75"])
    made = mx.load(str(tmp_path / "made" / WEIGHTS))
    assert {name: weight.tolist() for name, weight in made.items()} == {"a": [3, 1], "b": [[1]]}
    assert made["a"].dtype == mx.bfloat16
    assert (tmp_path / "made/config.json").read_text() == '"after"'


def test_models_of_different_shapes_are_not_averaged(tmp_path):
    before, after = write(tmp_path / "before", a=[0.0]), write(tmp_path / "after", a=[0.0, 1.0])
    with pytest.raises(ValueError, match="not models of one shape"):
        average(before, after, tmp_path / "made", 0.5)
    assert not (tmp_path / "made").exists()
