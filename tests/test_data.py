"""Data on disk: the same bytes from every making, any change noticed before use, nothing torn."""

from __future__ import annotations

import hashlib
import json
import os
import tracemalloc
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import ROOT

from jepa import data
from jepa.runs.config import Part
from jepa.runs.data import generate, made_by, main
from jepa.worlds.fork import Fork
from jepa.worlds.plane import QUANTUM, Plane

GOLDEN = ROOT / "tests" / "golden" / "data.json"
BENT = Part("plane", {"dimension": 3, "modes": 5, "falloff": 0.75, "bend": 0.5})
MADE_BY = {"world": BENT.flat()}


def digests(folder: Path) -> dict[str, str]:
    """Return the SHA-256 of every file under a folder, by its path there."""
    files = sorted(file for file in folder.rglob("*") if file.is_file())
    return {file.relative_to(folder).as_posix(): hashlib.sha256(file.read_bytes()).hexdigest() for file in files}


@pytest.fixture
def folder(tmp_path):
    """Return the folder of a small set."""
    generate(tmp_path / "set", BENT, 32, seed=7)
    return tmp_path / "set"


def test_every_making_gives_the_bytes_on_record(tmp_path):
    main(["--out", str(tmp_path / "data"), "--sets", str(ROOT / "experiments" / "data.yaml")])
    made = digests(tmp_path / "data")
    assert made == json.loads(GOLDEN.read_text()), f"the sets were changed on purpose? then renew {GOLDEN.name}"
    for copy in (ROOT / "data", ROOT / "build" / "data"):
        assert not copy.is_dir() or digests(copy) == made


def test_loaded_set_is_what_the_world_renders_rounded_once(folder):
    held_out = data.load(folder, MADE_BY)
    factors, world = held_out.factors, Plane(**BENT.options)
    rendered = world.render(factors["x"], factors["mode"].squeeze(1), factors["offset"])
    assert (rendered.y - held_out.y).abs().max() / QUANTUM < 0.51  # half a quantum, and what float32 loses
    assert torch.equal(held_out.x, factors["x"]) and held_out.x.abs().max() <= 1
    assert torch.equal(held_out.y / QUANTUM, (held_out.y / QUANTUM).round())
    assert factors["mode"].dtype == torch.int64 and set(factors["mode"].flatten().tolist()) <= set(range(5))


def test_loaded_clips_are_what_the_world_renders_but_for_the_noise(tmp_path):
    part = Part("fork", {"frames": 2})
    generate(tmp_path / "clips", part, 5, seed=7)
    held_out, world = data.load(tmp_path / "clips", {"world": part.flat()}), Fork(**part.options)
    rendered, noise = world.render(held_out.factors), []
    for name in ("x", "y"):
        stored, found = np.load(tmp_path / "clips" / f"{name}.npy"), getattr(held_out, name)
        assert stored.dtype == np.int8 and (stored < 0).any() and found.dtype == torch.float32
        assert found.shape == stored.shape == (5, 2, 32, 32)
        assert (found.numpy() * 32 == stored).all()
        assert found is held_out.factors[name]
        noise.append(found - getattr(rendered, name))
    assert torch.stack(noise).abs().max() <= world.noise + 0.55 / 32  # half a quantum, and what float32 loses
    assert held_out.factors["branch"].dtype == torch.int64 and held_out.factors["branch"].shape == (5, 1)
    assert held_out.factors["angle"].dtype == torch.float32 and (held_out.factors["angle"] > 0.4).all()


@pytest.mark.parametrize("name", ["x", "y", "mode", "offset"])
@pytest.mark.parametrize("place", [0, 70, -1])
@pytest.mark.parametrize("read", [data.load, data.dataset])
def test_changed_byte_is_named_with_both_hashes_and_the_remedy(folder, name, place, read):
    file = folder / f"{name}.npy"
    before, text = hashlib.sha256(file.read_bytes()).hexdigest(), bytearray(file.read_bytes())
    text[place] ^= 1
    file.write_bytes(text)
    with pytest.raises(ValueError) as caught:
        read(folder, MADE_BY)
    for word in (f"set/{name}.npy", before, hashlib.sha256(text).hexdigest(), "dvc checkout", "dvc repro data.dvc"):
        assert word in str(caught.value)


@pytest.mark.parametrize("name", ["x.npy", "offset.npy", "manifest.json"])
def test_missing_file_is_named_with_the_remedy(folder, name):
    (folder / name).unlink()
    with pytest.raises(ValueError, match=f"set/{name}.*no such file.*dvc checkout"):
        data.verify(folder)
    with pytest.raises(ValueError, match="none/manifest.json, found no such file.*dvc repro data.dvc"):
        data.load(folder / "none", MADE_BY)


@pytest.mark.parametrize("text", ["", "{", "[]", "{}", '{"files": {"x": 1}}', '{"files": []}', "\ud800"])
def test_broken_manifest_is_named_with_the_remedy(folder, text):
    (folder / "manifest.json").write_bytes(text.encode("utf-8", "surrogatepass"))
    with pytest.raises(ValueError, match="set/manifest.json, found .*dvc checkout"):
        data.verify(folder)


@pytest.mark.parametrize("world", [Part("plane"), Part("plane", {**BENT.options, "bend": 0.25}), Part("maze", {})])
def test_set_of_another_world_is_refused(folder, world):
    with pytest.raises(ValueError, match="expected set made by the world .*bend.: 0.5") as caught:
        data.load(folder, {"world": world.flat()})
    assert str(world.flat()) in str(caught.value)


@pytest.mark.parametrize(
    ("module", "name", "call"),
    [(np, "save", 1), (np, "save", 4), (Path, "write_text", 1), (os, "replace", 1), (os, "replace", 2)],
)
def test_failure_while_writing_leaves_the_old_set_whole_and_nothing_beside_it(folder, monkeypatch, module, name, call):
    before, real, calls = digests(folder.parent), getattr(module, name), []

    def failing(*arguments, **options):
        calls.append(arguments)
        if len(calls) == call:
            raise OSError("no space left on device")
        return real(*arguments, **options)

    with monkeypatch.context() as patch:
        patch.setattr(module, name, failing)
        with pytest.raises(OSError, match="no space left"):
            generate(folder, BENT, 16, seed=8)
    assert digests(folder.parent) == before
    generate(folder, BENT, 16, seed=8)
    assert len(data.load(folder, MADE_BY).x) == 16 and len(list(folder.parent.iterdir())) == 1


@pytest.mark.parametrize(
    ("world", "count", "message"),
    [
        (BENT, 0, "count: expected at least 1, found 0"),
        (Part("plain"), 8, "world: expected one of crossing, drive, .*, found 'plain'; .*'plane'"),
        (Part("plane", {"mods": 4}), 8, "world: option of 'plane'.*did you mean 'modes'"),
        (Part("plane", {"bend": "1e-3"}), 8, "world.bend: expected float, found '1e-3'"),
        (Part("plane", {"radius": 12.0}), 8, "plane: expected coordinates within"),
    ],
)
def test_set_that_cannot_be_made_is_an_error_and_leaves_nothing(tmp_path, world, count, message):
    with pytest.raises(ValueError, match=message):
        generate(tmp_path / "set", world, count, seed=0)
    assert list(tmp_path.iterdir()) == []


def small(**arrays) -> dict[str, np.ndarray]:
    """Return named arrays of integers."""
    return {"x": np.arange(12, dtype=np.int16).reshape(4, 3), "y": np.zeros((4, 2), np.uint8), **arrays}


def test_what_is_written_is_what_is_read_in_its_unit(tmp_path):
    arrays = small(kind=np.array([[3], [1], [2], [0]], np.int8))
    data.write(tmp_path / "mine", arrays, {"x": 0.5, "y": 1 / 255, "kind": 1}, {"camera": "left"})
    found = data.load(tmp_path / "mine", {"camera": "left"})
    assert torch.equal(found.x, torch.arange(12.0).reshape(4, 3) / 2) and found.y.dtype == torch.float32
    assert torch.equal(found.factors["kind"], torch.tensor([[3], [1], [2], [0]]))
    assert json.loads((tmp_path / "mine" / "manifest.json").read_text())["camera"] == "left"
    assert torch.equal(data.load(tmp_path / "mine", count=2).x, found.x[:2])
    with pytest.raises(ValueError, match="expected mine made by the camera right, found left"):
        data.dataset(tmp_path / "mine", {"camera": "right"})


@pytest.mark.parametrize(
    ("arrays", "about", "message"),
    [
        ({}, {}, "arrays: expected at least one"),
        (small(x=np.zeros((4, 3))), {}, r"x: expected integers \[4, …\], found float64 \[4, 3\]"),
        (small(y=np.zeros((5, 2), int)), {}, r"y: expected integers \[4, …\], found int64 \[5, 2\]"),
        (small(z=np.zeros((4, 1), int)), {}, "quanta: expected one for 'z', found 'x', 'y'"),
        (small(), {"files": 3}, "about: expected no entry 'files'"),
    ],
)
def test_arrays_that_cannot_be_kept_are_an_error_and_leave_nothing(tmp_path, arrays, about, message):
    with pytest.raises(ValueError, match=message):
        data.write(tmp_path / "mine", arrays, {"x": 1, "y": 1}, about)
    assert list(tmp_path.iterdir()) == []


def test_data_without_pairs_are_no_held_out_set(tmp_path):
    data.write(tmp_path / "mine", {"frames": np.zeros((2, 3, 1), int)}, {"frames": 1}, {})
    with pytest.raises(ValueError, match="expected x and y in mine, found frames"):
        data.load(tmp_path / "mine")


def test_a_mapped_set_takes_no_memory_and_has_what_a_loaded_one_has(tmp_path):
    large = np.random.RandomState(0).randint(-99, 99, (200, 10, 1000)).astype(np.int16)  # 4 MB
    data.write(tmp_path / "mine", {"x": large, "y": large[:, :1]}, {"x": 0.25, "y": 0.5}, {})
    before = hashlib.sha256((tmp_path / "mine" / "x.npy").read_bytes()).hexdigest()
    data._hashed.cache_clear()
    tracemalloc.start()
    stored = data.dataset(tmp_path / "mine")
    rows = stored.read("x", np.array([7, 3, 7]))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < large.nbytes / 4
    assert isinstance(stored.arrays["x"], np.memmap) and not stored.arrays["x"].flags.writeable
    assert torch.equal(rows, data.load(tmp_path / "mine").x[[7, 3, 7]])
    rows.zero_()
    assert hashlib.sha256((tmp_path / "mine" / "x.npy").read_bytes()).hexdigest() == before


@pytest.mark.parametrize("part", [BENT, Part("plane"), Part("fork", {"frames": 2}), Part("crossing", {"open": True})])
def test_a_set_of_pairs_is_made_by_all_constants_of_its_world(part):
    assert made_by(part) == {"world": part.flat()}


@pytest.mark.parametrize("walls", [{}, {"walls": "fixed"}])
@pytest.mark.parametrize("looks", [{}, {"size": 17, "view": "gray", "subtract": False, "group": 2, "step_limit": 1.0}])
def test_a_set_of_tasks_is_made_by_what_decides_tasks_and_serves_all_looks(tmp_path, walls, looks):
    part = Part("rooms", walls | looks)
    assert made_by(part) == {"world": {"name": "rooms", **walls}}
    generate(tmp_path / "plain", Part("rooms", walls), 4, seed=1)
    generate(tmp_path / "looks", part, 4, seed=1)
    assert digests(tmp_path / "plain") == digests(tmp_path / "looks")
    assert len(data.load(tmp_path / "looks", made_by(part)).x) == 4
    other = made_by(Part("rooms", {"walls": {"fixed": "random"}.get(walls.get("walls"), "fixed"), **looks}))
    with pytest.raises(ValueError, match="^data: expected plain made by the world .*, found .*rooms"):
        data.load(tmp_path / "plain", other)


def test_constants_that_do_not_exist_made_nothing():
    with pytest.raises(ValueError, match="world: option of 'rooms': expected one of .*mean 'walls'"):
        made_by(Part("rooms", {"wals": "fixed"}))
