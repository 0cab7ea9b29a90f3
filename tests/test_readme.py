"""The README's Python runs from top to bottom, and its commands are commands."""

import re
from pathlib import Path

import pytest

from pyro_avae.experiments.cli import main
from pyro_avae.experiments.commands import COMMANDS

README = (Path(__file__).resolve().parent.parent / "README.md").read_text()


def blocks(language):
    return re.findall(rf"```{language}\n(.*?)```", README, flags=re.DOTALL)


def test_the_first_screen_has_exactly_two_commands():
    assert blocks("bash")[0].splitlines() == [
        "pip install . && pyro-avae quickstart",
        'pip install ".[test]" && pytest',
    ]
    assert README.index("```bash") < README.index("\n## ")


def test_python_blocks_run_in_order(capsys):
    namespace = {}
    for block in blocks("python"):
        exec(compile(block, "README.md", "exec"), namespace)
    assert "passed" in capsys.readouterr().out
    accuracy = namespace["results"]["tasks"]["color"]["accuracy"]
    assert set(accuracy) == {"0.0", "0.1"}


def test_every_command_of_the_program_is_mentioned():
    for command in COMMANDS:
        assert f"pyro-avae {command}" in README, command


@pytest.mark.parametrize("line", re.findall(r"^pyro-avae (\w+ .*)$", "\n".join(blocks("bash")), flags=re.MULTILINE))
def test_options_in_commands_exist(line, capsys):
    """Each option of a shown command is in that command's help."""
    command, *words = line.split()
    assert main([command, "--help"]) == 0
    shown = capsys.readouterr().out
    for option in (word for word in words if word.startswith("--")):
        assert option in shown, option
