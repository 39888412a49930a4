"""What packages offer is read once, and anew where packages were installed since."""

from __future__ import annotations

import importlib.metadata

from pinnacle.base.entry_points import entry_points

GROUP = "pinnacle.tested"


def names():
    return sorted(point.name for point in entry_points(group=GROUP))


def install(folder, package):
    info = folder / f"{package}-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {package}\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(f"[{GROUP}]\n{package} = {package}:Offered\n")


def test_a_package_that_is_installed_meanwhile_is_found(tmp_path, monkeypatch):
    assert names() == []
    monkeypatch.syspath_prepend(tmp_path)
    install(tmp_path, "one")
    assert names() == ["one"]
    assert [point.value for point in entry_points(group=GROUP, name="one")] == ["one:Offered"]
    assert entry_points(group=GROUP, name="two") == []
    install(tmp_path, "two")
    assert names() == ["one", "two"]


def test_nothing_is_read_again_where_nothing_was_installed(monkeypatch):
    before = names()
    monkeypatch.setattr(importlib.metadata, "entry_points", lambda **group: [][0])
    assert names() == before
