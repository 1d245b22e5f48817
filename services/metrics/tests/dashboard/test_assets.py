import gzip
import re
from importlib.resources import files
from typing import get_args

import pytest

from common.contracts.thresholds import RuleMetric
from common.contracts.windows import Window
from metrics.dashboard.assets import UPLOT, read_assets
from metrics.errors import AssetDamaged

PAGE_BYTES_MAX = 150 * 1024


def own(name: str) -> str:
    return (files("metrics.dashboard") / "static" / name).read_text()


def test_assets__are_the_same_every_time() -> None:
    assert read_assets() == read_assets()


def test_everything_that_the_page_loads__is_there_under_its_version() -> None:
    found = read_assets()
    loaded = re.findall(rb'(?:src|href)="/dashboard/([^"]+)"', found.page.body)
    assert {name.decode() for name in loaded} == {f"{found.version}/{name}" for name in found.files}


def test_modules__import_only_each_other() -> None:
    found = read_assets()
    imported = {
        name
        for path, asset in found.files.items()
        if path.endswith(".js") and not path.startswith("uplot")
        for name in re.findall(rb'from "([^"]+)"', asset.body)
    }
    assert imported
    assert {name.decode() for name in imported} <= {f"./{name}" for name in found.files}


def test_the_whole_page__is_small_when_compressed() -> None:
    found = read_assets()
    assert sum(len(asset.gzipped) for asset in (found.page, *found.files.values())) < PAGE_BYTES_MAX


def test_compressed_and_plain__are_the_same() -> None:
    for asset in read_assets().files.values():
        assert gzip.decompress(asset.gzipped) == asset.body


def test_nothing__has_inline_code_or_another_origin() -> None:
    page = read_assets().page.body.decode()
    assert not re.search(r"<style|style=|\son\w+=|<script(?![^>]*\ssrc=)|https?://", page)
    for file in (files("metrics.dashboard") / "static").iterdir():
        text = file.read_text().replace("http://www.w3.org/2000/svg", "")
        assert "http://" not in text and "https://" not in text, file.name
        assert "innerHTML" not in text, file.name


def test_a_plotting_library_that_is_another__is_named() -> None:
    with pytest.raises(AssetDamaged, match=r"uplot\.min\.css"):
        read_assets({**UPLOT, "uplot.min.css": "0" * 64})


def test_metrics_and_windows_of_the_editor__are_those_of_the_contract() -> None:
    text = own("format.js")
    metrics = text[text.index("const METRICS") : text.index("/** Metrics of threshold rules")]
    windows = text[text.index("export const WINDOWS") : text.index("const METRICS")]
    assert set(re.findall(r'^  "?([\w.]+)"?: \[', metrics, re.MULTILINE)) == set(get_args(RuleMetric))
    assert re.findall(r'^  "(\w+)":', windows, re.MULTILINE) == list(get_args(Window))
