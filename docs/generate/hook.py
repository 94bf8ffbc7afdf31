"""Called by mkdocs: adds what `site_pages` makes, and refuses a site that would load anything from the network."""

from __future__ import annotations

import tempfile
from pathlib import Path

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.exceptions import PluginError
from mkdocs.plugins import event_priority
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page
from site_pages import copy_package, generated, loaded_from_elsewhere, navigation, with_links, with_pictures

_copies: list[tempfile.TemporaryDirectory[str]] = []
"""Removed when the build ends."""


@event_priority(100)  # before mkdocstrings, which copies its settings
def on_config(config: MkDocsConfig) -> MkDocsConfig:
    """Complete the navigation; show readers of source the package as it installs."""
    assert config.nav is not None
    config.nav = navigation(config.nav, generated())
    folder = tempfile.TemporaryDirectory(prefix="weatherfm-docs-")
    _copies.append(folder)
    copy_package(Path(folder.name))
    config.plugins["mkdocstrings"].config.handlers["python"]["paths"] = [folder.name]
    return config


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the pages that are made here."""
    for path, text in generated().items():
        files.append(File.generated(config, path, content=text))
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Lead links out of docs/ to pages of the site, and put drawn pictures into the page itself."""
    return with_pictures(with_links(markdown), Path(config.docs_dir))


def on_post_page(output: str, page: Page, config: MkDocsConfig) -> str:
    """Refuse a page that would load something from elsewhere.

    Raises:
        PluginError: it would.
    """
    if found := loaded_from_elsewhere(output):
        raise PluginError(f"{page.file.src_uri} loads {', '.join(found)} from the network; keep it in docs/")
    return output


def on_post_build(config: MkDocsConfig) -> None:
    """Remove the copy of the package."""
    while _copies:
        _copies.pop().cleanup()
