"""The documentation's site: its generated pages are whole, its navigation is, and it loads nothing from elsewhere."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import notebook_pages
import pytest
import room_pages
import settings_pages
import site_pages
import verb_pages
import yaml
from places import ROOT

from weatherfm.cli import app
from weatherfm.training.run_config import RunConfig

SETTINGS = yaml.safe_load((ROOT / "mkdocs.yml").read_text())


def places(nav: Any) -> Iterator[str]:
    """All pages of a navigation."""
    if isinstance(nav, str):
        yield nav
    else:
        for item in nav.values() if isinstance(nav, dict) else nav:
            yield from places(item)


def test_every_page_is_in_the_navigation_once_and_every_entry_is_a_page():
    pages = site_pages.generated()
    listed = list(places(site_pages.navigation(SETTINGS["nav"], pages)))
    written = {path.name for path in (ROOT / "docs").glob("*.md")}
    assert sorted(listed) == sorted(written | set(pages))


def test_an_index_comes_first_and_rooms_lie_in_their_folder():
    pages = dict.fromkeys(["x/index.md", "x/a.md", "x/b/index.md", "x/b/c/index.md", "x/b/c/d.md", "x/b/e.md"], "")
    assert site_pages.navigation([{"X": "x/"}, {"Home": "index.md"}], pages) == [
        {"X": ["x/index.md", {"a": "x/a.md"}, {"b": ["x/b/index.md", {"c": ["x/b/c/index.md", {"d": "x/b/c/d.md"}]},
                                                     {"e": "x/b/e.md"}]}]},
        {"Home": "index.md"},
    ]  # fmt: skip


PERIOD = {"start", "end"}
"""Keys of what is written as one text."""


def resolved(schema: dict[str, Any], ref: str) -> dict[str, Any]:
    return schema["$defs"][ref.rpartition("/")[2]]


def described(schema: dict[str, Any], node: dict[str, Any], key: str) -> Iterator[tuple[str, str | None]]:
    """(key, text) of every setting, by the JSON schema of a run: another way than the pages go."""
    if "$ref" in node:
        node = schema["$defs"][node["$ref"].rpartition("/")[2]] | {k: v for k, v in node.items() if k != "$ref"}
    held = node.get("properties")
    if held is not None and not set(held) >= PERIOD:
        for name, inner in held.items():
            yield from described(schema, inner, f"{key}.{name}".lstrip("."))
        return
    entries = node.get("items", {}).get("$ref")
    if entries is not None and not set(resolved(schema, entries).get("properties", {})) >= PERIOD:
        yield from described(schema, node["items"], key)
        return
    parts = [part for part in node.get("oneOf", node.get("anyOf", [])) if "$ref" in part]
    told = ("parts.source", "mix.source", "mix.area", "mix.regrid", "source.test")
    if key.endswith(told):  # sources of sources, stores of a mix and crops for test have settings told before
        parts = []
    held = [schema["$defs"][part["$ref"].rpartition("/")[2]].get("properties", {}) for part in parts]
    if any(not set(one) >= PERIOD for one in held):
        for part in parts:
            yield from described(schema, part, key)
    else:
        yield key, node.get("description")
    entries = [*node.get("patternProperties", {}).values(), node.get("additionalProperties", {})]
    for entry in entries:  # settings by names of the user's own
        if isinstance(entry, dict) and "$ref" in entry:
            yield from described(schema, entry, f"{key}.NAME")


def test_every_setting_is_in_the_reference_with_its_text():
    schema = RunConfig.model_json_schema()
    settings = list(described(schema, schema, ""))
    assert len(settings) > 90
    for key, text in settings:
        section = key.partition(".")[0]
        page = site_pages.generated()[f"configuration/{'index' if section == key else section}.md"]
        assert f"### `{key}` " in page, key
        if not key.endswith(".kind") or text:
            assert text, f"{key} has no text; write a sentence under it"
            assert " ".join(text.split()) in page, key


def test_the_reference_has_no_settings_that_are_none():
    schema = RunConfig.model_json_schema()
    known = {key for key, _ in described(schema, schema, "")}
    for name in settings_pages.sections():
        assert {setting.key for group in settings_pages.groups(name) for setting in group.settings} <= known


@pytest.mark.parametrize(
    ("key", "type", "default"),
    [
        ("data.store", "text", None),
        ("data.climatology_window", "whole number, at least 1 and at most 366, or `null`", "`61`"),
        ("data.step", "time span, as `6h` or `3d`", "not set"),
        ("data.area.north", "number, at least -90 and at most 90", None),
        ("data.source.lead_time", "time span, as `6h`, or `shortest`", "not set"),
        ("model.patch_size", "whole number or list of 2 whole numbers", "`4`"),
        ("model.input_times", "list of time span, as `6h` or `3d`", "`[0h]`"),
        ("model.aggregation.block_mib", "number above 0 or `auto`", "`auto`"),
        ("training.cache", "`auto`, `on` or `off`", "`auto`"),
        ("training.channel_weights", "`pressure`, or channel or variable → number", "`{}`"),
        ("training.cooldown_steps", "whole number at least 1", "not set"),
        ("training.betas", "list of 2 numbers", "`[0.9, 0.95]`"),
        ("parallel.tp", "whole number, at least 1 and at most 1,000,000", "`1`"),
    ],
    ids=lambda value: value if str(value).count(".") and " " not in value else "",
)
def test_types_and_defaults_in_words(key, type, default):
    groups = settings_pages.groups(key.partition(".")[0])
    (setting,) = [s for group in groups for s in group.settings if s.key == key]
    assert (setting.type, setting.default) == (type, default)


def test_files_that_settings_name_are_there():
    pages = site_pages.generated()
    named = {
        path
        for name in pages
        if name.startswith("configuration/")
        for path in re.findall(r"`([\w/]+\.py)`", pages[name])
    }
    assert named
    assert [path for path in named if not list(ROOT.glob(f"*/{path}")) and not (ROOT / path).exists()] == []


def test_anchors_of_a_page_differ():
    for name, page in site_pages.generated().items():
        found = re.findall(r"\{ #([\w-]+) \}", page)
        assert len(found) == len(set(found)), name


@pytest.mark.parametrize("verb", verb_pages.verbs())
def test_a_verb_has_the_help_that_it_prints(verb):
    command = [sys.executable, "-m", "weatherfm.cli", verb, "--help"]
    wide = os.environ | {"COLUMNS": "100"}  # of a process of its own: a console keeps the width that it began with
    said = subprocess.run(command, capture_output=True, text=True, check=True, env=wide).stdout
    printed = [line.rstrip() for line in said.strip().splitlines()]
    page = site_pages.generated()[f"command/{verb}.md"]
    assert "\n".join(printed) in page
    assert "\x1b" not in page
    assert max(map(len, page.splitlines())) <= 100


def test_the_command_lists_every_verb():
    index = site_pages.generated()["command/index.md"]
    verbs = [name for name in app if not name.startswith("-")]
    assert "demo" in verbs
    assert "report" in verbs
    assert [verb for verb in verbs if f"[`{verb}`]({verb}.md)" not in index] == []


def test_every_package_and_public_name_has_its_place():
    import tomllib

    import weatherfm

    packages = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]["packages"]
    rooms = {room.package for room in room_pages.rooms(ROOT)}
    assert rooms == set(packages) - {"weatherfm.configs"}
    index = site_pages.generated()["python/index.md"]
    assert all(f"heading: weatherfm.{name}\n" in index for name in set(weatherfm.__all__) - {"__version__"})


def test_a_room_lists_its_modules_that_have_something_public(tmp_path):
    room = room_pages.Room("weatherfm.x", tmp_path)
    (tmp_path / "__init__.py").write_text('"""What it does."""\n')
    (tmp_path / "a.py").write_text("def open_it():\n    pass\n")
    (tmp_path / "b.py").write_text("def _inner():\n    pass\nNUMBER = 1\n")
    assert room.modules() == ["weatherfm.x.a"]
    page = room_pages.page(room)
    assert "What it does." in page
    assert "::: weatherfm.x.a\n" in page
    assert "weatherfm.x.b" not in page


def test_the_package_is_laid_out_as_it_is_imported(tmp_path):
    site_pages.copy_package(tmp_path)
    assert (tmp_path / "weatherfm" / "training" / "trainer.py").read_text() == (
        ROOT / "training" / "trainer.py"
    ).read_text()
    assert (tmp_path / "weatherfm" / "model" / "model.py").is_file()


def test_a_notebook_becomes_a_page(tmp_path):
    cells = [
        {"cell_type": "markdown", "source": ["# Title\n", "\n", "Words."]},
        {
            "cell_type": "code",
            "source": ["x = 1\n", "print(x)"],
            "outputs": [
                {"output_type": "stream", "text": ["1\n"]},
                {"output_type": "execute_result", "data": {"text/plain": ["two"], "text/html": ["<b>two</b>"]}},
                {"output_type": "display_data", "data": {"image/png": "QUJD\n", "text/plain": ["Figure"]}},
            ],
        },
        {"cell_type": "code", "source": [], "outputs": []},
    ]
    path = tmp_path / "n.ipynb"
    path.write_text(json.dumps({"cells": cells}))
    assert notebook_pages.page(path) == (
        "# Title\n\n*This page is the notebook `docs/n.ipynb`.*\n\nWords.\n\n````python\nx = 1\nprint(x)\n````\n\n"
        "````text\n1\n````\n\n````text\ntwo\n````\n\n![](data:image/png;base64,QUJD)\n"
    )


def test_links_out_of_the_folder_lead_to_pages():
    text = "[a](../configs/era5_1p40625deg_16gpus.yaml) [b](../CHANGELOG.md) [c](../README.md) [d](n.ipynb) [e](a.md#x)"
    assert site_pages.with_links(text) == (
        "[a](configuration/index.md#era5_1p40625deg_16gpus-yaml) [b](changelog.md) [c](index.md) [d](n.md) [e](a.md#x)"
    )
    assert "{ #era5_1p40625deg_16gpus-yaml }" in site_pages.generated()["configuration/index.md"]


def test_a_drawing_becomes_part_of_its_page(tmp_path):
    (tmp_path / "x.svg").write_text("<svg>\n</svg>\n")
    text = site_pages.with_pictures("before\n\n![Words](x.svg)\n\n![photo](y.png)", tmp_path)
    assert "<svg>\n</svg>" in text
    assert 'aria-label="Words"' in text
    assert "![photo](y.png)" in text


@pytest.mark.parametrize(
    "html",
    [
        '<script async src="https://unpkg.com/x"></script>',
        "<script src=//cdn.net/x.js></script>",
        '<link rel="stylesheet" href="https://fonts.googleapis.com/css?family=Roboto">',
        '<link href="https://fonts.gstatic.com" rel="preconnect" crossorigin>',
        '<img alt="x" src="http://a.net/x.png">',
    ],
    ids=["script", "script-without-scheme", "fonts", "preconnect", "picture"],
)
def test_what_a_browser_would_fetch_from_elsewhere_is_found(html):
    assert len(site_pages.loaded_from_elsewhere(f"<p>x</p>{html}")) == 1


def test_links_to_follow_are_not_loaded():
    html = '<a href="https://x.net/paper">paper</a><link rel="canonical" href="https://x.net/"><img src="a.png">'
    assert site_pages.loaded_from_elsewhere(html) == []


def test_the_build_is_strict_and_asks_for_nothing_from_the_network():
    assert "mkdocs build --strict" in (ROOT / "Makefile").read_text()
    assert re.search(r"^make .*\bdocs\b", (ROOT / ".ci" / "run").read_text(), re.MULTILINE)
    assert SETTINGS["theme"]["font"] is False
    assert SETTINGS["extra"]["polyfills"] == ["assets/iframe-worker.js"]  # else the plugin `offline` takes its own
    assert SETTINGS["validation"]["nav"]["omitted_files"] == "warn"
