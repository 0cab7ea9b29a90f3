"""``nox``: the tests on each Python, with the oldest and the newest torch of pyproject.toml; linter and types."""

import nox

nox.options.default_venv_backend = "venv"
nox.options.sessions = ["tests", "oldest_torch", "lint", "types"]

PYTHONS = ["3.11", "3.12", "3.13", "3.14"]


@nox.session(python=PYTHONS)
def tests(session: nox.Session) -> None:
    """The suite with the newest of everything; ``nox -s tests-3.11 -- -m slow`` passes words on."""
    session.install(".[test]")
    session.run("pytest", *session.posargs)


@nox.session(python="3.11")
def oldest_torch(session: nox.Session) -> None:
    """The suite with the oldest torch."""
    session.install(".[test]", "torch==2.11.*", "torchvision==0.26.*")
    session.run("pytest", *session.posargs)


@nox.session(python="3.11")
def lint(session: nox.Session) -> None:
    """The linter and the formatter."""
    session.install("ruff>=0.9")
    session.run("ruff", "check", ".")
    session.run("ruff", "format", "--check", ".")


@nox.session(python="3.11")
def types(session: nox.Session) -> None:
    """The type checker, on an installed package."""
    session.install(".[test]", "mypy>=1.14")
    with session.chdir(session.create_tmp()):
        session.run("mypy", "--config-file", f"{session.invoked_from}/pyproject.toml", "-p", "pyro_avae")
