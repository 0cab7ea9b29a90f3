"""A report in headless Chromium: it draws every picture, asks for nothing, and has nothing to complain of."""

import json
import re
import shutil
import subprocess
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

from pyro_avae.experiments.reproduce import reproduce
from pyro_avae.report import Extra, ExtraTable, write_report
from pyro_avae.report.sweep_curves import sweep_curves

BROWSER = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
pytestmark = pytest.mark.skipif(BROWSER is None, reason="no chromium, chromium-browser or google-chrome on the path")

OPTIONS = (
    "--headless",
    "--no-sandbox",  # root, as in most containers, cannot have Chromium's own
    "--disable-gpu",
    "--disable-dev-shm-usage",
    "--no-first-run",
    "--disable-background-networking",
    "--host-resolver-rules=MAP * ~NOTFOUND",
    "--enable-logging=stderr",
    "--v=0",
    "--dump-dom",
)
POLICY = "default-src 'none'; img-src data:; style-src 'unsafe-inline'"
#: Goes into a copy of the page alone: which pictures are drawn, and what was asked for.
SCRIPT = """<script>addEventListener("load", () => {
const drawn = Array.from(document.images, (image) => image.complete && image.naturalWidth > 0);
const asked = performance.getEntriesByType("resource").map((entry) => entry.name);
document.documentElement.dataset.seen = JSON.stringify({drawn, asked});
})</script>"""
#: Attributes through which a page can ask for something.
ADDRESSES = ("src", "href", "srcset", "action", "formaction", "data", "poster", "background", "xlink:href")


@dataclass(frozen=True)
class Seen:
    """What the browser makes of a page.

    Attributes:
        console: its messages on the page as it is.
        drawn: for each picture, whether it is there in full size.
        asked: addresses outside the page, in what the browser built or asked for.
    """

    console: list[str]
    drawn: list[bool]
    asked: list[str]


def browse(page: Path) -> tuple[str, list[str]]:
    """The document after loading, and the console."""
    assert BROWSER is not None
    profile = page.parent / f"profile-{page.stem}"
    result = subprocess.run(
        [BROWSER, *OPTIONS, f"--user-data-dir={profile}", page.as_uri()],
        capture_output=True,
        encoding="utf-8",
        timeout=60,
        check=True,
    )
    return result.stdout, [line for line in result.stderr.splitlines() if "CONSOLE" in line]


@pytest.fixture
def look(tmp_path: Path, read_page) -> Callable[[str], Seen]:
    """Open a page as it is, and a copy whose policy lets the script above look at the pictures."""

    def open_both(content: str) -> Seen:
        assert content.count(POLICY) == 1
        assert content.count("</head>") == 1
        relaxed = content.replace(POLICY, f"{POLICY}; script-src 'unsafe-inline'").replace(
            "</head>", f"{SCRIPT}</head>"
        )
        (tmp_path / "page.html").write_text(content, encoding="utf-8")
        (tmp_path / "copy.html").write_text(relaxed, encoding="utf-8")
        document, console = browse(tmp_path / "page.html")
        built = [value for _, name, value in read_page(document).attributes if name in ADDRESSES]
        (seen,) = read_page(browse(tmp_path / "copy.html")[0]).values("html", "data-seen")
        facts = json.loads(seen)
        asked = {value for value in [*built, *facts["asked"]] if not value.startswith("data:")}
        return Seen(console, facts["drawn"], sorted(asked))

    return open_both


@pytest.fixture(scope="module")
def content(runs: list[Path], tmp_path_factory: pytest.TempPathFactory) -> str:
    """The page of two real runs, with a table and a figure of its own."""
    points = {0.0: {"digit": {"0": 0.9, "0.1": 0.1}}, 0.999: {"digit": {"0": 0.9, "0.1": 0.8}}}
    table = ExtraTable(
        "Per cent", ["method", "ε = 0.1"], [["<script>console.log(1)</script>", "80"], ["published", "88"]], {1}
    )
    extra = Extra("Sweep", ["Words."], table, sweep_curves(points, xlabel="ρ", alt="Accuracy over ρ."), "Over ρ.")
    out = write_report(runs, tmp_path_factory.mktemp("browser") / "report.html", extras=[extra])
    return out.read_text(encoding="utf-8")


def test_every_picture_is_drawn_and_nothing_is_asked_for(content: str, look, read_page) -> None:
    seen = look(content)
    assert seen.console == []
    assert seen.asked == []
    assert len(seen.drawn) == read_page(content).tags.count("img") > 3
    assert all(seen.drawn)


@pytest.mark.parametrize("kind", ["png", "svg\\+xml"])
def test_a_damaged_picture_is_noticed(content: str, look, kind: str) -> None:
    last = list(re.finditer(f'src="data:image/{kind};base64,([^"]*)"', content))[-1]
    # Its first letters lost, a file is of no known kind.
    damaged = f"{content[: last.start(1)]}{content[last.start(1) + 40 :]}"
    number = content[: last.start()].count("<img ") - 1
    seen = look(damaged)
    assert [place for place, drawn in enumerate(seen.drawn) if not drawn] == [number]


def test_a_request_is_noticed(content: str, look) -> None:
    seen = look(content.replace("<main>", '<main><img src="http://outside.example/x.png" alt="">'))
    assert seen.asked == ["http://outside.example/x.png"]
    assert any("outside.example" in line for line in seen.console), "the page's own policy refuses it"
    assert seen.drawn.count(False) == 1


def test_a_script_is_refused(content: str, look) -> None:
    seen = look(content.replace("<main>", "<main><script>document.body.textContent = ''</script>"))
    assert any("inline script violates" in line for line in seen.console)


@pytest.mark.slow
def test_the_report_of_a_reproduction_is_drawn(tmp_path: Path, look, read_page) -> None:
    rows = ["vae", "avae", "rho-0", "sample-cut"]
    out = tmp_path / "out"
    reproduce("color-mnist", out, dataset="color-digits", preset="smoke", device="cpu", rows=rows)
    content = (out / "report.html").read_text(encoding="utf-8")
    assert "Sweep over ρ" in content
    assert "Ablation of the AVAE" in content
    seen = look(content)
    assert seen.console == []
    assert seen.asked == []
    assert len(seen.drawn) == read_page(content).tags.count("img") > 6
    assert all(seen.drawn)
