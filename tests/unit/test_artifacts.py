"""Artifacts: addressed by hash, read in chunks, unpacked once and whole."""

from __future__ import annotations

import hashlib
import threading

import pytest

from pinnacle import ComponentError, ConfigError
from pinnacle.plugin import Artifact, folder_artifacts, unpack


@pytest.fixture
def folder(tmp_path):
    root = tmp_path / "weights"
    (root / "1_Pooling").mkdir(parents=True)
    (root / "1_Pooling" / "config.json").write_text("{}")
    (root / "model.bin").write_bytes(bytes(range(256)) * 10_000)
    (root / ".git").mkdir()
    (root / ".git" / "hidden").write_text("x")
    return root


def test_bytes_and_files_of_the_same_content_are_equal(folder):
    content = (folder / "model.bin").read_bytes()
    from_bytes, from_file = Artifact(content), Artifact(folder / "model.bin")
    assert from_bytes == from_file
    assert from_file.sha256 == hashlib.sha256(content).hexdigest()
    assert from_file.size == len(content) == 2_560_000
    assert from_file.read() == content
    assert max(map(len, from_file.chunks())) <= 1 << 20


@pytest.mark.parametrize("content", [7, None, "no/such/file"])
def test_anything_else_is_refused(content):
    with pytest.raises(ConfigError, match="Artifact takes bytes or the path of a file"):
        Artifact(content)


def test_a_file_that_changes_after_it_was_hashed_is_noticed(folder):
    artifact = Artifact(folder / "model.bin")
    assert artifact.sha256
    (folder / "model.bin").write_bytes(b"changed")
    with pytest.raises(ComponentError, match="changed or damaged"):
        artifact.read()


def test_a_damaged_blob_in_the_catalog_is_noticed(tmp_path):
    good = Artifact(b"good")
    stored = Artifact.stored(good.sha256, 4, lambda: iter([b"ev", b"il"]), tmp_path)
    with pytest.raises(ComponentError, match="from the catalog has other content"):
        stored.read()


def test_a_folder_is_taken_without_hidden_files_and_unpacked_as_it_was(folder, tmp_path):
    files = folder_artifacts(folder)
    assert sorted(files) == ["1_Pooling/config.json", "model.bin"]
    target = unpack(files, tmp_path / "cache")
    assert (target / "model.bin").read_bytes() == (folder / "model.bin").read_bytes()
    assert (target / "1_Pooling" / "config.json").read_text() == "{}"
    assert [path.name for path in target.parent.iterdir()] == [target.name]


def test_unpacking_again_reads_nothing(folder, tmp_path):
    files = folder_artifacts(folder)
    target = unpack(files, tmp_path)
    before = (target / "model.bin").stat().st_mtime_ns
    assert unpack(files, tmp_path) == target
    assert (target / "model.bin").stat().st_mtime_ns == before


def test_a_damaged_copy_in_the_cache_is_written_anew(folder, tmp_path):
    files = folder_artifacts(folder)
    target = unpack(files, tmp_path)
    (target / "model.bin").write_bytes(b"short")
    assert unpack(files, tmp_path) == target
    assert (target / "model.bin").stat().st_size == 2_560_000
    assert [path.name for path in target.parent.iterdir()] == [target.name]


def test_a_failed_unpacking_leaves_nothing(tmp_path):
    bad = Artifact.stored("0" * 64, 3, lambda: iter([b"bad"]), tmp_path)
    with pytest.raises(ComponentError):
        unpack({"good": Artifact(b"good"), "bad.json": bad}, tmp_path)
    assert list((tmp_path / "artifacts").iterdir()) == []


def test_threads_that_unpack_at_once_agree(folder, tmp_path):
    targets, start = [], threading.Barrier(4)

    def work() -> None:
        files = folder_artifacts(folder)
        start.wait(timeout=600)
        targets.append(unpack(files, tmp_path))

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(timeout=600)
    assert len(targets) == 4
    assert len(set(targets)) == 1


@pytest.mark.parametrize("name", ["../evil", "/etc/evil", "a/../../evil", "", "a\\..\\evil", "..", "a\x00b"])
def test_names_that_lead_out_of_the_folder_are_refused(name, tmp_path):
    with pytest.raises(ComponentError, match="outside of its folder"):
        unpack({name: Artifact(b"x")}, tmp_path)


def stored(content: bytes, tmp_path, **options) -> Artifact:
    """An artifact as it comes out of a database."""
    digest = hashlib.sha256(content).hexdigest()
    return Artifact.stored(digest, len(content), lambda: iter([content]), tmp_path, **options)


def test_of_stored_files_only_data_is_unpacked(tmp_path, caplog):
    names = (
        "model.safetensors",
        "sub/config.JSON",
        "LICENSE",
        "m.py",
        "sub/m.SO",
        "w.bin",
        "x.pkl",
        "json",
        ".py",
    )
    folder = unpack({name: stored(b"x", tmp_path) for name in names})
    found = {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}
    assert found == {"model.safetensors", "sub/config.JSON", "LICENSE"}
    assert "'.py', 'json', 'm.py', 'sub/m.SO', 'w.bin', 'x.pkl'" in caplog.text


def test_other_stored_files_are_unpacked_where_the_caller_or_the_process_says_so(tmp_path):
    assert (unpack({"a.onnx": stored(b"x", tmp_path)}, more=[".onnx"]) / "a.onnx").is_file()
    assert (unpack({"a.py": stored(b"x", tmp_path, may_be_code=True)}) / "a.py").is_file()


def test_a_stored_name_that_is_no_text_is_refused(tmp_path):
    with pytest.raises(ComponentError, match="7 is no text"):
        unpack({7: stored(b"x", tmp_path)})
