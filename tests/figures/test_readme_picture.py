"""README's picture is what the bundled results of the quickstart are drawn as."""

import runpy
import shutil
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
import pandas as pd
import pytest
from matplotlib import ft2font
from PIL import Image

from gradlab import figures, load_gradients, load_runs

FOLDER = Path(__file__).parents[2] / "experiments" / "quickstart"
SMALL = (60, 45)  # pixels: a picture in outline
SHADES = 4.0  # of 255, by which outlines may differ on average where fonts are drawn otherwise


@pytest.fixture(scope="module")
def script() -> dict[str, Any]:
    """Return the names of the picture's script."""
    return runpy.run_path(str(FOLDER / "picture.py"))


def pixels(path: Path, size: tuple[int, int] | None = None) -> np.ndarray[Any, Any]:
    with Image.open(path) as picture:
        grey = picture.convert("L")
        return np.asarray(grey.resize(size, Image.Resampling.BOX) if size else grey, float)


def outlines_differ(one: Path, other: Path) -> bool:
    """Return whether two pictures have other sizes, or other shades where they are shrunk."""
    heights = [len(pixels(path)) for path in (one, other)]
    difference = np.abs(pixels(one, SMALL) - pixels(other, SMALL)).mean()
    return max(heights) > 1.03 * min(heights) or bool(difference > SHADES)


def test_the_picture_is_drawn_from_the_bundle(script: dict[str, Any], tmp_path: Path) -> None:
    """Pixel by pixel with the Matplotlib that drew it and its own FreeType, else in outline."""
    drawn = script["draw"](picture=tmp_path / "overview.png")
    assert not outlines_differ(drawn, script["PICTURE"])
    with Image.open(script["PICTURE"]) as picture:
        same_release = matplotlib.__version__ in picture.info["Software"]
    if same_release and ft2font.__freetype_build_type__ == "local":
        np.testing.assert_array_equal(pixels(drawn), pixels(script["PICTURE"]))


def test_another_figure_of_the_bundle_is_another_picture(
    script: dict[str, Any], tmp_path: Path
) -> None:
    shutil.unpack_archive(script["BUNDLE"], tmp_path / "results")
    runs = load_runs(tmp_path / "results", "all")
    other = figures.overview(runs, where={"clip.threshold": 1}).figure
    assert outlines_differ(figures.save(other, tmp_path / "other.png"), script["PICTURE"])


def test_bundling_keeps_every_point_and_the_maps_that_are_shown(
    script: dict[str, Any], tmp_path: Path
) -> None:
    shutil.unpack_archive(script["BUNDLE"], tmp_path / "0")
    script["bundle"](tmp_path / "0", tmp_path / "1.zip")
    shutil.unpack_archive(tmp_path / "1.zip", tmp_path / "1")
    before, after = (load_runs(tmp_path / name, "all") for name in "01")
    assert len(after) == 24
    same = before.columns.drop(["sweep", "path"])
    pd.testing.assert_frame_equal(after[same], before[same])
    for number in np.flatnonzero(np.isinf(before["clip.threshold"])):
        one, other = (load_gradients(runs["path"].iloc[number]) for runs in (before, after))
        assert one.identical(other)
