"""Two small runs, really trained and evaluated on the embedded data, the report made of them, and a reader of pages."""

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from html.parser import HTMLParser
from pathlib import Path

import pytest

from pyro_avae.data import load_dataset
from pyro_avae.evaluation import evaluate
from pyro_avae.experiments.evaluate import write_evaluation
from pyro_avae.experiments.methods import builder_of
from pyro_avae.experiments.triples import make_triple
from pyro_avae.report import write_report
from pyro_avae.report.style import svg_picture
from pyro_avae.runs.loading import load_run
from pyro_avae.runs.run_folder import RunFolder
from pyro_avae.runs.settings import Settings
from pyro_avae.training import fit

BASE = Settings(
    dataset="color-digits", steps=60, batch_size=64, lr=2e-3, latent_dim=3, hidden=(16,), obs_variance=0.5, limit=300
)


def train(path: Path, method: str, *, evaluated: bool = True) -> Path:
    """A run of ``method`` in ``path``."""
    settings = replace(BASE, method=method, builder=builder_of(method))
    data = load_dataset(settings.dataset, limit=settings.limit)
    model, guide, elbo = make_triple(settings)
    fit(
        model,
        guide,
        data,
        elbo=elbo,
        steps=settings.steps,
        batch_size=settings.batch_size,
        lr=settings.lr,
        out=path,
        settings=settings,
        log_every=5,
    )
    if evaluated:
        result = evaluate(
            model, guide, data, epsilons=[0.0, 0.03], steps=3, restarts=1, limit=60, num_importance_samples=30
        )
        write_evaluation(RunFolder(path), load_run(path), result)
    return path


@pytest.fixture(scope="session")
def runs(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """A VAE and an AVAE; read them, do not change them."""
    folder = tmp_path_factory.mktemp("runs")
    return [train(folder / method, method) for method in ("vae", "avae")]


@pytest.fixture(scope="session")
def report(runs: list[Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The report of both."""
    return write_report(runs, tmp_path_factory.mktemp("report") / "report.html")


@pytest.fixture
def train_run(tmp_path: Path) -> Callable[..., Path]:
    """``(name, method, evaluated=)`` to a run of one's own."""
    return lambda name, method, **options: train(tmp_path / name, method, **options)


_VOID = {"meta", "img", "link", "br", "hr", "input", "base"}


@dataclass
class Page(HTMLParser):
    """Tags, addresses, alternative texts, table cells and text of a page."""

    tags: list[str] = field(default_factory=list)
    attributes: list[tuple[str, str, str]] = field(default_factory=list)
    tables: list[list[list[str]]] = field(default_factory=list)
    text: str = ""
    open_tags: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        super().__init__(convert_charrefs=True)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += [(tag, name, value or "") for name, value in attrs]
        if tag not in _VOID:
            self.open_tags.append(tag)
        if tag == "table":
            self.tables.append([])
        if tag == "tr":
            self.tables[-1].append([])
        if tag in ("td", "th"):
            self.tables[-1][-1].append("")

    def handle_endtag(self, tag: str) -> None:
        assert self.open_tags.pop() == tag, f"</{tag}> closes nothing"

    def handle_data(self, data: str) -> None:
        if "style" in self.open_tags:
            return
        self.text += data
        if self.open_tags and self.open_tags[-1] in ("td", "th"):
            self.tables[-1][-1][-1] += data

    def values(self, tag: str, name: str) -> list[str]:
        """The values of one attribute over all tags of a kind."""
        return [value for t, n, value in self.attributes if t == tag and n == name]


def parse(content: str) -> Page:
    """Parse a page; every tag that is opened must be closed."""
    page = Page()
    page.feed(content)
    page.close()
    assert page.open_tags == []
    return page


@pytest.fixture(scope="session")
def read_page() -> Callable[[str], Page]:
    """A page taken apart by Python's own parser."""
    return parse


@pytest.fixture(scope="session")
def page(report: Path) -> Page:
    """The report of both runs, taken apart."""
    return parse(report.read_text(encoding="utf-8"))


@pytest.fixture
def figure_of(monkeypatch: pytest.MonkeyPatch):
    """The figure that a function of a module makes."""

    def draw(module, function, *args, **options):
        figures = []

        def keep(figure, alt):
            figures.append(figure)
            return svg_picture(figure, alt)

        monkeypatch.setattr(module, "svg_picture", keep)
        function(*args, **options)
        return figures[0]

    return draw
