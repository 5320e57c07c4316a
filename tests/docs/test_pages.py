"""Pages that are true: commands and options, links, tables made from the code, the workflow."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import yaml  # type: ignore[import-untyped]  # its stubs are not among the requirements

from tests.docs import commands, rooms
from tests.docs.commands import ROOT
from train.pages.settings_table import MARK, settings_table

COMMANDS_PAGE = ROOT / "docs" / "commands.md"
WORKFLOW = ROOT / ".github" / "workflows" / "ci.yml"
PAGES = commands.pages()
EVERY_COMMAND = re.compile(r"^## Options of every command\n(.*?)(?=^## )", re.MULTILINE | re.DOTALL)
SECTION = re.compile(r"^## (\S+\.py)\n(.*?)(?=^## |\Z)", re.MULTILINE | re.DOTALL)


def between_marks(page: Path, mark: str) -> str:
    """What stands in a page between `<!-- mark -->` and `<!-- /mark -->`."""
    texts = re.findall(rf"<!-- {mark} -->\n(.*?)\n<!-- /{mark} -->", page.read_text(), re.DOTALL)
    assert len(texts) == 1, f"{page.name}: needs the marks of '{mark}' once"
    return str(texts[0])


def targets() -> set[str]:
    return set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))


def documented(section: str) -> set[str]:
    """The options and arguments in the first column of a section's table."""
    rows = [line for line in section.splitlines() if line.startswith("| `")]
    return {name for row in rows for name in re.findall(r"`(-*[\w-]+)[^`]*`", row.split(" | ")[0])}


def test_every_command_has_a_section() -> None:
    sections = [name for name, _ in SECTION.findall(COMMANDS_PAGE.read_text())]
    assert sorted(sections) == sorted(commands.commands())


@pytest.mark.parametrize("command", commands.commands())
def test_the_options_of_a_command_are_those_in_its_section(command: str) -> None:
    sections = dict(SECTION.findall(COMMANDS_PAGE.read_text()))
    of_every_command = documented(EVERY_COMMAND.findall(COMMANDS_PAGE.read_text())[0])
    options = commands.options(commands.parser_of(command))
    assert options >= of_every_command
    assert documented(sections[command]) == options - of_every_command


def test_every_call_in_a_page_is_one_of_a_command_with_options_that_it_has() -> None:
    known = {name: commands.options(commands.parser_of(name)) for name in commands.commands()}
    for page in PAGES:
        for command, options in commands.calls(page):
            assert command in known, f"{page.name}: there is no {command}"
            missing = [option for option in options if option not in known[command]]
            assert not missing, f"{page.name}: {command} has no {', '.join(missing)}"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_make_target_in_a_page_exists(page: Path) -> None:
    text = page.read_text()
    named = re.findall(r"`make ([a-z-]+)", text) + re.findall(r"^make ([a-z-]+)", text, re.MULTILINE)
    assert set(named) <= targets()


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_relative_link_of_a_page_leads_somewhere(page: Path) -> None:
    for link in re.findall(r"\]\(([^)\s]+)\)", page.read_text()):
        if "://" in link:
            continue
        name, _, anchor = link.partition("#")
        there = (page.parent / name).resolve() if name else page
        assert there.exists(), f"{page.name}: {link}"
        assert there.is_relative_to(ROOT), f"{page.name}: {link} leaves the repository"
        if anchor:
            assert anchor in anchors(there), f"{page.name}: {link}"


def anchors(page: Path) -> set[str]:
    """What GitHub calls the headings of a page."""
    headings = re.findall(r"^#+ (.*)$", page.read_text(), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def test_the_readme_is_short() -> None:
    assert len((ROOT / "README.md").read_text().splitlines()) <= 150


def test_the_readme_links_to_every_page() -> None:
    linked = re.findall(r"\]\(([^)\s#]+)", (ROOT / "README.md").read_text())
    docs = {str(page.relative_to(ROOT)) for page in PAGES} - {"README.md"}
    assert docs <= set(linked)


def test_the_table_of_settings_is_that_of_the_code() -> None:
    table = between_marks(ROOT / "docs" / "recipes.md", MARK)
    assert table == settings_table(), "run `make docs`"


def test_the_rooms_are_those_of_the_code() -> None:
    table = between_marks(ROOT / "docs" / "architecture.md", rooms.MARK)
    assert table == rooms.rooms(), "run `make docs`"


def test_every_folder_of_the_tree_exists() -> None:
    (tree,) = re.findall(
        r"```\n(submission/.*?)```", (ROOT / "docs/architecture.md").read_text(), re.DOTALL
    )
    parents: list[str] = []
    for line in tree.splitlines():
        depth, name = (len(line) - len(line.lstrip())) // 2, line.split()[0]
        parents = [*parents[:depth], name]
        assert (ROOT / "".join(parents)).exists(), "".join(parents)


@pytest.fixture(scope="module")
def workflow() -> dict[Any, Any]:
    return dict(yaml.safe_load(WORKFLOW.read_text()))


def test_the_workflow_runs_on_push_and_nightly(workflow: dict[Any, Any]) -> None:
    triggers = workflow[True]  # YAML 1.1 reads the key `on` as true
    assert "push" in triggers
    (schedule,) = triggers["schedule"]
    assert re.fullmatch(r"\d+ \d+ \* \* \*", schedule["cron"])


def test_the_workflow_calls_make_targets_that_exist(workflow: dict[Any, Any]) -> None:
    steps = [step for job in workflow["jobs"].values() for step in job["steps"]]
    assert all(("run" in step) != ("uses" in step) for step in steps)
    called = {
        target
        for step in steps
        for line in step.get("run", "").splitlines()
        if line.startswith("make ")
        for target in line.split()[1:]
        if "=" not in target
    }
    assert {"lint", "quick", "demo"} <= called <= targets()
