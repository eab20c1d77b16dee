from __future__ import annotations

import configparser
import json
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from dkd_bench.check import load_reference

ROOT = Path(__file__).parents[2]
ACTION = yaml.safe_load((ROOT / "action.yml").read_text())
WORKFLOW = yaml.safe_load((ROOT / ".github" / "workflows" / "robustness.yml").read_text())
PAGE = (ROOT / "docs" / "ci.md").read_text()
DOCUMENTED = [yaml.safe_load(block) for block in re.findall(r"```yaml\n(.*?)```", PAGE, re.DOTALL)]
STEPS = {step.get("name", step.get("uses")): step for step in ACTION["runs"]["steps"]}
SCRIPTS = {name: step["run"] for name, step in STEPS.items() if "run" in step}
GIVEN_BY_GITHUB = {"GITHUB_OUTPUT", "GITHUB_STEP_SUMMARY", "RUNNER_TEMP"}

FAKE = """#!{python}
import json, os, sys
with open(os.environ["RECORD"], "a") as record:
    record.write(json.dumps(sys.argv) + "\\n")
sys.exit(int(os.environ.get("STATUS_" + sys.argv[1].upper(), "0")))
"""


class Runner:
    """What GitHub puts around a script: files for outputs and summary, a folder, and the step's environment."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.record = folder / "record"
        self.output = folder / "output"
        self.work = folder / "work"
        self.work.mkdir()
        programs = folder / "bin"
        programs.mkdir()
        for name in ("dkd-bench", "python"):
            (programs / name).write_text(FAKE.format(python=sys.executable))
            (programs / name).chmod(0o755)
        self.path = f"{programs}{os.pathsep}{os.environ['PATH']}"

    def run(self, step: str, **words: str) -> int:
        """Execute a step's script with nothing in its environment but what the action declares."""
        assert set(words) - {"STATUS_RUN", "STATUS_CHECK"} <= set(STEPS[step]["env"])
        given = {
            "GITHUB_OUTPUT": str(self.output),
            "GITHUB_STEP_SUMMARY": str(self.folder / "summary.md"),
            "RUNNER_TEMP": str(self.folder),
            "RECORD": str(self.record),
            "PATH": self.path,
        }
        declared = dict.fromkeys(STEPS[step]["env"], "")
        self.output.write_text("")
        # As GitHub calls 'shell: bash'.
        command = ["bash", "--noprofile", "--norc", "-eo", "pipefail", "-c", SCRIPTS[step]]
        done = subprocess.run(command, env=given | declared | words, cwd=self.work, capture_output=True, text=True)
        self.errors = done.stderr
        return done.returncode

    @property
    def calls(self) -> list[list[str]]:
        return [json.loads(line)[1:] for line in self.record.read_text().splitlines()] if self.record.exists() else []

    @property
    def outputs(self) -> dict[str, str]:
        return dict(line.split("=", 1) for line in self.output.read_text().splitlines())


@pytest.fixture
def runner(tmp_path):
    return Runner(tmp_path)


def uses_of_the_action():
    """Return what the project's own workflow, and that on the documented page, give the action."""
    found = []
    for name, workflow in [("robustness.yml", WORKFLOW), *((f"docs {n}", each) for n, each in enumerate(DOCUMENTED))]:
        steps = [step for job in workflow["jobs"].values() for step in job["steps"]]
        ours = [step for step in steps if step["uses"] == "./" or "dkd-bench@" in step["uses"]]
        assert len(ours) == 1
        found.append(pytest.param(ours[0]["with"], workflow, id=name))
    return found


def test_inputs_are_used_and_declared():
    used = set(re.findall(r"\binputs\.([\w-]+)", json.dumps([ACTION["runs"], ACTION["outputs"]])))
    assert used == set(ACTION["inputs"])


def test_outputs_of_steps_are_written_by_steps_that_come_before():
    written = {"restore": {"cache-primary-key"}}
    for step in [*ACTION["runs"]["steps"], ACTION["outputs"]]:
        for identity, output in re.findall(r"steps\.([\w-]+)\.outputs\.([\w-]+)", json.dumps(step)):
            assert output in written[identity]
        if "run" in step and "id" in step:
            written[step["id"]] = set(re.findall(r'echo "(\w+)=.*GITHUB_OUTPUT', step["run"]))


@pytest.mark.parametrize("name", SCRIPTS)
def test_script_is_bash_that_stops_at_errors(name):
    assert STEPS[name]["shell"] == "bash"
    assert SCRIPTS[name].startswith("set -euo pipefail\n")
    done = subprocess.run(["bash", "-n", "-c", SCRIPTS[name]], capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.parametrize("name", SCRIPTS)
def test_nothing_is_pasted_into_a_script(name):
    assert "${{" not in SCRIPTS[name]
    told = set(re.findall(r"\$\{?([A-Z_]+)", SCRIPTS[name]))
    assert told <= set(STEPS[name]["env"]) | GIVEN_BY_GITHUB


def test_run_and_check_share_the_cache_that_is_kept():
    kept = {step["with"]["path"] for step in STEPS.values() if "actions/cache" in step.get("uses", "")}
    assert kept == {STEPS["Run"]["env"]["DKD_BENCH_CACHE"]} == {STEPS["Check"]["env"]["DKD_BENCH_CACHE"]}


def test_upload_has_run_and_junit_whatever_happened(runner):
    assert "always()" in STEPS["Upload"]["if"]
    runner.run("Run", WORDS="--defense dkd")
    folder = runner.outputs["folder"]
    paths = STEPS["Upload"]["with"]["path"].replace("${{ steps.run.outputs.folder }}", folder).split()
    assert runner.calls[0][-1] == paths[0]
    runner.run("Check", FOLDER=folder, AGAINST="reference.json")
    assert paths[1] in runner.calls[1]


def test_run_gets_its_words_and_a_folder_of_its_own(runner):
    assert runner.run("Run", WORDS="--defense dkd\n  --attack pgd --set 'pgd.steps=5'") == 0
    folder = runner.outputs["folder"]
    words = ["run", "--defense", "dkd", "--attack", "pgd", "--set", "pgd.steps=5", "--out", f"{folder}/run"]
    assert runner.calls == [words]
    assert runner.outputs["status"] == "0"
    runner.run("Run", WORDS="--defense dkd")
    assert runner.outputs["folder"] != folder


def test_status_of_an_incomplete_run_passes_through(runner):
    assert runner.run("Run", WORDS="--defense dkd", STATUS_RUN="3") == 3
    assert runner.outputs["status"] == "3"


@pytest.mark.parametrize(
    ("words", "told"),
    [
        ("--out x; touch owned", ["--out", "x;", "touch", "owned"]),
        ("--defense $(touch owned)", ["--defense", "$(touch", "owned)"]),
        ("--defense `touch owned`", ["--defense", "`touch", "owned`"]),
        ("--defense '$(touch owned); touch owned' && touch owned", None),
        ('--data-root "a folder/*" --set *', ["--data-root", "a folder/*", "--set", "*"]),
        ("--defense $HOME | tee owned > owned", ["--defense", "$HOME", "|", "tee", "owned", ">", "owned"]),
    ],
)
def test_words_are_words_and_never_executed(runner, words, told):
    (runner.work / "bystander").touch()
    told = told or ["--defense", "$(touch owned); touch owned", "&&", "touch", "owned"]
    assert runner.run("Run", WORDS=words) == 0
    assert runner.calls[0][1:-2] == told
    assert [file.name for file in runner.work.iterdir()] == ["bystander"]


def test_unclosed_quote_is_an_error_and_runs_nothing(runner):
    assert runner.run("Run", WORDS="--defense 'dkd") != 0
    assert "quote" in runner.errors
    assert runner.calls == []


@pytest.mark.parametrize("status", [0, 1, 2, 3])
def test_status_of_the_check_passes_through(runner, status):
    assert runner.run("Check", FOLDER="f", AGAINST="reference.json", STATUS_CHECK=str(status)) == status
    assert runner.outputs == {"verdict": str(status)}


def test_check_gets_its_options(runner):
    runner.run("Check", FOLDER="f", AGAINST="a b; touch owned", ALPHA="0.01", TOLERANCE="0")
    summary = str(runner.folder / "summary.md")
    plain = ["check", "f/run", "--against", "a b; touch owned", "--junit", "f/junit.xml", "--summary", summary]
    assert runner.calls == [[*plain, "--alpha", "0.01", "--tolerance", "0"]]
    assert list(runner.work.iterdir()) == []


def test_limits_that_are_not_told_are_left_to_the_command(runner):
    runner.run("Check", FOLDER="f", AGAINST="reference.json")
    assert not {"--alpha", "--tolerance"} & set(runner.calls[0])
    assert (ACTION["inputs"]["alpha"]["default"], ACTION["inputs"]["tolerance"]["default"]) == ("", "")


def test_requirements_are_split_and_not_executed(runner):
    assert runner.run("Install", REQUIREMENTS=".[dev] --extra-index-url https://x.org/$(id)*; touch owned") == 0
    assert runner.calls == [
        ["-m", "pip", "install", ".[dev]", "--extra-index-url", "https://x.org/$(id)*;", "touch", "owned"]
    ]
    assert list(runner.work.iterdir()) == []


def test_requirements_may_have_several_lines(runner):
    assert runner.run("Install", REQUIREMENTS=".\n  dkd-bench\n\n--find-links 'a folder'\n") == 0
    assert runner.calls == [["-m", "pip", "install", ".", "dkd-bench", "--find-links", "a folder"]]


def test_unclosed_quote_in_requirements_installs_nothing(runner):
    assert runner.run("Install", REQUIREMENTS=". 'dkd-bench") != 0
    assert "quote" in runner.errors
    assert runner.calls == []


@pytest.mark.parametrize(("given", "workflow"), uses_of_the_action())
def test_workflow_gives_the_action_what_it_takes(given, workflow):
    required = {name for name, about in ACTION["inputs"].items() if about.get("required")}
    assert required <= set(given) <= set(ACTION["inputs"])
    assert workflow["permissions"] == {"contents": "read"}


@pytest.mark.parametrize(("given", "workflow"), uses_of_the_action())
def test_workflow_runs_what_the_command_understands(runner, given, workflow):
    assert runner.run("Run", WORDS=given["run"]) == 0
    assert runner.run("Check", FOLDER="f", AGAINST=given["against"], ALPHA="0.05", TOLERANCE="0.02") == 0
    for words in runner.calls:
        understood(words)


def test_commands_of_the_page_are_understood():
    commands = re.findall(r"^ +(dkd-bench .*)$", re.sub(r"\\\n +", "", PAGE), re.MULTILINE)
    assert {command.split()[1] for command in commands} == {"run", "reference", "check"}
    for command in commands:
        understood(shlex.split(command.replace("$seed", "0"))[1:])


@pytest.fixture(scope="module")
def own_check():
    """Return what the project's own workflow gives the action."""
    return next(step["with"] for step in WORKFLOW["jobs"]["digits"]["steps"] if step["uses"] == "./")


def test_tox_and_the_workflow_check_the_same(own_check):
    tox = configparser.ConfigParser(interpolation=None)
    tox.read(ROOT / "tox.ini")
    regression = tox["testenv:regression"]
    assert own_check["run"].split() == regression["words"].split()
    run, check = (shlex.split(line) for line in regression["commands"].strip().splitlines())
    assert run[:3] == ["dkd-bench", "run", "{[testenv:regression]words}"]
    assert check[:4] == ["dkd-bench", "check", "--against", own_check["against"]]
    assert run[-1] == check[-1]


def test_the_reference_that_is_checked_against_is_of_the_words_that_run(own_check):
    reference = load_reference(ROOT / own_check["against"])
    words = understood(["run", *shlex.split(own_check["run"])])
    for made in reference.runs:
        assert made.request["defenses"] == list(words["defenses"])
        assert made.request["attacks"] == list(words["attacks"])
        assert made.request["threat_models"] == list(words["threat_models"])
        assert made.request["n_examples"] == words["n_examples"] == reference.dataset.n
    assert {cell.key.defense for cell in reference.cells} == set(words["defenses"])
    assert {cell.key.attack for cell in reference.cells} == set(words["attacks"])


def understood(words: list[str]) -> dict[str, Any]:
    """Return what ``dkd-bench`` makes of these words, or raise click's error; carries nothing out."""
    from typer.main import get_command

    from dkd_bench.cli.app import app

    command = get_command(app).commands[words[0]]
    return command.make_context(words[0], words[1:]).params
