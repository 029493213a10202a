"""README's picture: what it shows of a quickstart is bundled in results.zip, and drawn from there.

python experiments/quickstart/picture.py          draw it again from the bundle
python experiments/quickstart/picture.py --anew   run the quickstart (two minutes), bundle it, draw
"""

import argparse
import shutil
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import xarray as xr

import gradlab
from gradlab import figures, records

HERE = Path(__file__).parent
BUNDLE, PICTURE = HERE / "results.zip", HERE / "overview.png"
NATS = 1 / 32  # to which bundled log norms are rounded: less than a shade of the colour bar
COARSE = 4  # steps between the bundled t and k of points that the picture does not show
MAP = "jacobian_log_norm"


def bundle(sweep: Path, file: Path = BUNDLE) -> None:
    """Write every point's config, summary, and maps before and after training into a zip file.

    Args:
        sweep: a quickstart's folder.
        file: ends in ".zip"; unpacked, it is a folder of points.
    """
    runs = gradlab.load_runs(sweep, "all")
    with TemporaryDirectory() as folder:
        for path, threshold in zip(runs["path"], runs["clip.threshold"], strict=True):
            point, status = Path(folder, Path(path).name), records.load_status(path)
            kept = {key: status[key] for key in ("state", "reason", "summary", "versions")}
            maps = thinned(gradlab.load_gradients(path), 1 if np.isinf(threshold) else COARSE)
            records.save_config(point, records.load_yaml(Path(path, records.CONFIG)), kept)
            records.save_gradients(point, maps, kept)
        shutil.make_archive(str(file.with_suffix("")), "zip", folder)


def thinned(gradients: xr.Dataset, stride: int) -> xr.Dataset:
    """Return the maps before and after training at every `stride`-th step, rounded to NATS."""
    every = slice(None, None, stride)
    maps = gradients[[MAP]].isel(step=[0, -1], t=every, k=every)
    rounded = NATS * (maps[MAP] / NATS).round()
    return maps.assign({MAP: rounded.astype("float32").assign_attrs(maps[MAP].attrs)})


def draw(file: Path = BUNDLE, picture: Path = PICTURE) -> Path:
    """Draw the overview of the bundled points; return its path."""
    with TemporaryDirectory() as folder:
        shutil.unpack_archive(file, folder)
        drawn = figures.overview(gradlab.load_runs(folder, "all"))
    return figures.save(drawn.figure, picture)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--anew", action="store_true", help="run and bundle the quickstart first")
    if parser.parse_args().anew:
        bundle(Path(gradlab.sweep(experiment="quickstart")["path"].iloc[0]).parent)
    print(draw())
