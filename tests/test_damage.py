"""What is read from a point's folder is what was written there, or is said to be damaged."""

import json
import os
import random
import shutil
from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pytest
from synthetic_sweeps import geometric

from gradlab import load_gradients, load_runs, records
from gradlab.records import load_metrics

FILES = ("status.json", "metrics.parquet", "gradients.nc", ".hydra/config.yaml")
DAMAGES = 60  # of each file
ROWS = pd.DataFrame({"train/step": [0, 5], "eval/accuracy": [0.1, 0.136]})


@pytest.fixture
def sweep(tmp_path: Path) -> Path:
    """A sweep of three points; the last has not begun."""
    folder = tmp_path / "s"
    points = [{"folder": str(n), "config": {"init": {"gain": n + 0.5}}} for n in range(3)]
    records.save_sweep(folder, points)
    for number in range(2):
        summary = {"eval/accuracy": 0.136, "verdict": "stable"}
        status = {"state": "done", "summary": summary}
        records.save_config(folder / f"{number}", points[number]["config"], status)  # type: ignore[arg-type]
        records.save_metrics(folder / f"{number}", ROWS, status)
        records.save_gradients(folder / f"{number}", geometric(), status)
        status["files"] = records.settled(folder / f"{number}", status["files"])  # type: ignore[arg-type]
        records.save_status(folder / f"{number}", status)
    return folder


def rows(folder: Path) -> list[dict[str, object]]:
    return load_runs(folder, "all").to_dict("records")  # type: ignore[return-value]


@pytest.mark.parametrize("name", FILES)
def test_no_random_damage_is_read(name: str, sweep: Path) -> None:
    path, chance = sweep / "0" / name, random.Random(7)
    whole, before = path.read_bytes(), rows(sweep)
    maps, metrics = load_gradients(sweep / "0"), load_metrics(sweep / "0")
    for number in range(DAMAGES):
        damaged = bytearray(whole)
        match number % 3:
            case 0:
                damaged[chance.randrange(len(damaged))] ^= 1 << chance.randrange(8)
            case 1:
                del damaged[chance.randrange(len(damaged)) :]
            case 2:
                start = chance.randrange(len(damaged))
                damaged[start : start + 16] = bytes(16)
        path.write_bytes(damaged)
        os.utime(path, ns=(number, number))  # writes of one moment are told apart by their size
        row = rows(sweep)[0]
        if row["status"] != "damaged":  # such as a space of JSON that became a tab
            assert row == before[0]
            assert load_gradients(sweep / "0").equals(maps)
            pd.testing.assert_frame_equal(load_metrics(sweep / "0"), metrics)
        else:
            assert f"{sweep}/0/{name} " in str(row["reason"])
            assert pd.isna(row["eval/accuracy"])
            assert row["init.gain"] == 0.5  # sweep.json has it
        assert rows(sweep)[1] == before[1]


def test_an_edited_number_is_not_shown(sweep: Path) -> None:
    status = sweep / "0" / "status.json"
    status.write_text(status.read_text().replace("0.136", "0.936"))
    config = sweep / "1" / ".hydra" / "config.yaml"
    config.write_text(config.read_text().replace("1.5", "9.5"))
    first, second, _ = rows(sweep)
    assert first["status"] == second["status"] == "damaged"
    assert f"{status} was edited: sweep.resume={sweep} runs the point again" in str(first["reason"])
    assert "eval/accuracy" not in first
    assert second["init.gain"] == 1.5
    with pytest.raises(ValueError, match="was edited"):
        load_gradients(sweep / "0")


@pytest.mark.parametrize("name", ["metrics.parquet", "gradients.nc"])
def test_another_points_file_is_not_read(name: str, sweep: Path) -> None:
    records.save_metrics(sweep / "1", ROWS * 2, records.load_status(sweep / "1"))
    records.save_gradients(sweep / "1", geometric(4), records.load_status(sweep / "1"))
    shutil.copy(sweep / "1" / name, sweep / "0" / name)
    assert rows(sweep)[0]["status"] == "damaged"
    with pytest.raises(ValueError, match="is damaged"):
        load_metrics(sweep / "0") if "metrics" in name else load_gradients(sweep / "0")


def test_a_file_of_the_same_place_size_and_time_is_read_anew(
    sweep: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def damage(path: Path) -> None:
        found, content = path.stat(), bytearray(path.read_bytes())
        content[len(content) // 2] ^= 1
        path.write_bytes(content)
        os.utime(path, ns=(found.st_atime_ns, found.st_mtime_ns))

    copy = tmp_path / "copy" / sweep.name
    shutil.copytree(sweep, copy)
    damage(copy / "0" / "metrics.parquet")
    states = []
    for folder in (sweep.parent, copy.parent):
        monkeypatch.chdir(folder)
        states.append(rows(Path(sweep.name))[0]["status"])
    assert states == ["done", "damaged"]
    damage(sweep / "1" / "gradients.nc")
    assert rows(sweep)[1]["status"] == "damaged"


def test_damage_beside_a_number_that_is_not_one_is_found(sweep: Path) -> None:
    """A NaN is not equal to itself: a status that is read again would look like a newer one."""
    status = records.load_status(sweep / "0")
    records.save_status(sweep / "0", status | {"state": "diverged", "summary": {"a": float("nan")}})
    (sweep / "0" / "metrics.parquet").write_bytes(b"")
    assert [row["status"] for row in rows(sweep)][:2] == ["damaged", "done"]


def test_numbers_stay_with_their_config(sweep: Path) -> None:
    """Points exchanged after a copy without hidden files; entries named as keys of the config."""
    entries = records.load_sweep(sweep)
    for number in range(2):
        entries[number]["identity"] = f"of point {number}"
        status = records.load_status(sweep / f"{number}")
        status["summary"]["init.gain"] = 7.0
        records.save_status(sweep / f"{number}", status | {"identity": f"of point {number}"})
        shutil.rmtree(sweep / f"{number}" / ".hydra")
    records.save_sweep(sweep, entries)
    assert [row["init.gain"] for row in rows(sweep)] == [0.5, 1.5, 2.5]
    for old, new in (("0", "x"), ("1", "0"), ("x", "1")):
        (sweep / old).rename(sweep / new)
    assert [row["status"] for row in rows(sweep)] == ["damaged", "damaged", "unknown"]
    assert "status.json is another point's" in str(rows(sweep)[0]["reason"])


def test_what_is_no_file_of_the_points_own_is_not_read(sweep: Path, tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    secret.mkdir()
    ROWS.to_parquet(secret / "part.parquet")
    path = sweep / "0" / "metrics.parquet"
    for files in (True, False):
        for target in (secret, secret / "part.parquet"):
            status = records.load_status(sweep / "0")
            status.get("files", {}).pop("metrics.parquet", None)
            if not files:
                status.pop("files", None)
            records.save_status(sweep / "0", status)
            path.unlink(missing_ok=True)
            path.symlink_to(target)
            assert rows(sweep)[0]["status"] == "damaged"
            with pytest.raises(ValueError, match=r"metrics\.parquet is"):
                load_metrics(sweep / "0")


def test_no_config_is_read_through_a_link(sweep: Path, tmp_path: Path) -> None:
    (tmp_path / "secret").mkdir()
    (tmp_path / "secret" / "config.yaml").write_text("token: secret")
    status = records.load_status(sweep / "0")
    del status["files"][".hydra/config.yaml"]
    records.save_status(sweep / "0", status)
    shutil.rmtree(sweep / "0" / ".hydra")
    (sweep / "0" / ".hydra").symlink_to(tmp_path / "secret")
    assert rows(sweep)[0]["status"] == "damaged"
    assert "token" not in rows(sweep)[0]


DEEP = "[" * 100_000


def bomb(point: Path) -> None:
    """Seal a config whose aliases stand for 10⁹ entries."""
    uses = ([f"*a{i - 1}"] * 10 for i in range(1, 10))
    lines = ["a0: &a0 [x]", *(f"a{i}: &a{i} [{', '.join(x)}]" for i, x in enumerate(uses, 1))]
    path = point / ".hydra" / "config.yaml"
    path.write_text("\n".join(lines))
    records.seal_file(point, records.load_status(point), ".hydra/config.yaml", path)


@pytest.mark.parametrize(
    "break_it",
    [
        lambda s: (s / "0" / "status.json").write_text(DEEP),
        lambda s: (s / "sweep.json").write_text(DEEP),
        lambda s: (s / "0" / ".hydra" / "config.yaml").write_text(DEEP),
        lambda s: records.save_status(s / "0", {"state": "done", "files": ["x"]}),
        lambda s: records.save_status(s / "0", {"state": "done", "files": None}),
        lambda s: records.save_status(s / "0", {"state": "done", "files": {"metrics.parquet": 5}}),
        lambda s: records.save_status(s / "0", {"state": 5, "summary": []}),
        lambda s: records.save_sweep(s, [{"folder": 5, "config": {}}]),
        lambda s: records.save_sweep(s, [{"folder": "a\0b", "config": {}}]),
        lambda s: (s / "loop").symlink_to("loop"),
        lambda s: [shutil.rmtree(s / "0"), (s / "0").symlink_to("0")],
        lambda s: bomb(s / "0"),
        lambda s: [(s / "sweep.json").unlink(), (s / "sweep.json").mkdir()],
        lambda s: [(s / "sweep.json").unlink(), os.mkfifo(s / "sweep.json")],
        lambda s: [(s / "0" / "status.json").unlink(), os.mkfifo(s / "0" / "status.json")],
        lambda s: [(s / "sweep.json").unlink(), shutil.rmtree(s / "0" / ".hydra")],
    ],
)
@pytest.mark.filterwarnings("ignore:.*is a link to nothing")
def test_one_bad_record_hides_no_other(break_it: Callable[[Path], object], sweep: Path) -> None:
    other = rows(sweep)[1]
    break_it(sweep)
    (found,) = [row for row in rows(sweep) if row["path"] == str(sweep / "1")]
    assert found["status"] == "done"
    assert found["eval/accuracy"] == other["eval/accuracy"]


def test_a_point_without_a_status_is_a_row(sweep: Path) -> None:
    (sweep / "0" / "status.json").unlink()
    first, _, last = rows(sweep)
    assert (first["status"], first["init.gain"]) == ("unknown", 0.5)
    assert (last["status"], last["init.gain"], last["path"]) == ("unknown", 2.5, f"{sweep}/2")
    with pytest.raises(FileNotFoundError, match=r"cannot be checked without status\.json"):
        load_metrics(sweep / "0")
    (sweep / "sweep.json").unlink()
    assert [row["status"] for row in rows(sweep)] == ["unknown", "done"]


def test_a_record_lists_no_point_outside_its_sweep(sweep: Path, tmp_path: Path) -> None:
    shutil.copytree(sweep / "0", tmp_path / "victim")
    for place in ("../victim", str(tmp_path / "victim"), "0/../../victim"):
        records.save_sweep(sweep, [{"folder": place, "config": {}}])
        assert not any("victim" in str(row["path"]) for row in rows(sweep))


def test_a_point_is_whole_at_every_moment_of_its_writing(
    sweep: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As if killed right before or after each rename."""
    replace, seen = Path.replace, []

    def look_around(path: Path, target: Path) -> Path:
        seen.append(rows(sweep)[0]["status"])
        done = replace(path, target)
        seen.append(rows(sweep)[0]["status"])
        return done

    status = records.load_status(sweep / "0")
    monkeypatch.setattr(Path, "replace", look_around)
    records.save_config(sweep / "0", {"init": {"gain": 0.5}, "name": "other"}, status)
    records.save_metrics(sweep / "0", ROWS * 2, status)
    records.save_gradients(sweep / "0", geometric(4), status)
    status["files"] = records.settled(sweep / "0", status["files"])
    records.save_status(sweep / "0", status)
    assert set(seen) == {"done"}
    assert len(seen) == 14
    assert all(len(digests) == 1 for digests in status["files"].values())


def test_a_sweeps_record_is_sealed(sweep: Path) -> None:
    path = sweep / "sweep.json"
    content = json.loads(path.read_text())
    content["points"][2]["config"]["init"]["gain"] = 9.5
    for keys in (set(content), set(content) - {"seal"}):
        path.write_text(json.dumps({key: content[key] for key in keys}))
        with pytest.raises(ValueError, match=r"was edited|is damaged"):
            records.load_sweep(sweep)
    assert 9.5 not in load_runs(sweep)["init.gain"].to_list()


def test_sweeps_are_told_apart(sweep: Path, tmp_path: Path) -> None:
    shutil.copytree(sweep, tmp_path / "t")
    shutil.copytree(sweep, tmp_path / "u" / tmp_path.name / "s")
    runs = load_runs(tmp_path)
    names = {f"{tmp_path}/s", f"{tmp_path.name}/t", f"{tmp_path}/u/{tmp_path.name}/s"}
    assert set(runs["sweep"]) == names
    assert set(load_runs(sweep)["sweep"]) == {f"{tmp_path.name}/s"}
