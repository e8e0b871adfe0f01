"""What the project says of itself holds: versions, licences, locked dependencies, no back doors."""

import ast
import itertools
import json
import re
import runpy
import tomllib

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from kneeoa_mm import __version__

PICKLE_OR_NETWORK = {
    "aiohttp",
    "cloudpickle",
    "dill",
    "ftplib",
    "http",
    "httpx",
    "joblib",
    "marshal",
    "pickle",
    "requests",
    "shelve",
    "smtplib",
    "urllib",
    "urllib3",
}


@pytest.fixture(scope="module")
def project(repository):
    return tomllib.loads((repository / "pyproject.toml").read_text())["project"]


@pytest.fixture(scope="module")
def lock(repository):
    return (repository / "requirements.lock").read_text()


def back_doors(source):
    """Lines of a Python source that open a pickle, run text as code, or reach for the network."""
    return [node.lineno for node in ast.walk(ast.parse(source)) if _opens(node)]


def _opens(node):
    match node:
        case ast.Import(names=names):
            return any(alias.name.partition(".")[0] in PICKLE_OR_NETWORK for alias in names)
        case ast.ImportFrom(module=str(module)):
            return module.partition(".")[0] in PICKLE_OR_NETWORK | {"socket"}
        case ast.Attribute(value=ast.Name(id="socket"), attr=attribute):
            return attribute != "gethostname"
        case ast.Attribute(attr="read_pickle" | "to_pickle" | "load_state_dict_from_url"):
            return True
        case ast.Attribute(value=ast.Name(id="torch"), attr="hub"):
            return True
        case ast.Call(func=ast.Attribute(value=ast.Name(id="torch"), attr="load")):
            return not any(_is(word, "weights_only", True) for word in node.keywords)
        case ast.keyword(arg="allow_pickle"):
            return not _is(node, "allow_pickle", False)
        case ast.Name(id="eval" | "exec"):
            return True
    return False


def _is(keyword, name, value):
    constant = keyword.value
    return keyword.arg == name and isinstance(constant, ast.Constant) and constant.value is value


@pytest.mark.parametrize(
    "source",
    [
        "import pickle",
        "import urllib.request",
        "from urllib import request",
        "from socket import create_connection",
        "import socket; socket.create_connection(('a', 1))",
        "torch.load('weights.pt')",
        "torch.load('weights.pt', weights_only=False)",
        "torch.hub.load('a', 'b')",
        "numpy.load('a.npy', allow_pickle=True)",
        "pd.read_pickle('a')",
        "eval('1')",
    ],
)
def test_the_search_for_back_doors_finds(source):
    assert back_doors(source) == [1]


@pytest.mark.parametrize(
    "source",
    [
        "torch.load('weights.pt', weights_only=True)",
        "import socket; socket.gethostname()",
        "numpy.load('a.npy', allow_pickle=False)",
        "network.eval()",
    ],
)
def test_the_search_for_back_doors_lets_pass(source):
    assert back_doors(source) == []


def test_the_package_opens_no_pickle_and_no_connection(repository):
    found = {
        str(path.relative_to(repository)): lines
        for folder in ("kneeoa_mm", "cohorts")
        for path in (repository / folder).rglob("*.py")
        if (lines := back_doors(path.read_text(encoding="utf-8")))
    }
    assert found == {}


def test_one_version_everywhere(repository, project):
    citation = yaml.safe_load((repository / "CITATION.cff").read_text())
    assert project["version"] == citation["version"] == __version__


def test_the_same_licences_everywhere_each_with_its_text(repository, project):
    citation = yaml.safe_load((repository / "CITATION.cff").read_text())
    assert project["license"].split(" AND ") == citation["license"]
    texts = [" ".join((repository / path).read_text().split()) for path in project["license-files"]]
    starts = {
        "Apache-2.0": "Apache License Version 2.0",
        "AGPL-3.0-only": "GNU AFFERO GENERAL",
        "CC-BY-4.0": "Attribution 4.0 International",
    }
    for licence, text in zip(citation["license"], texts, strict=True):
        assert text.startswith(starts[licence])


def test_the_table_of_graders_is_that_of_the_committed_figures(repository):
    table = runpy.run_path(str(repository / "benchmarks" / "grading_table.py"))["table"]
    files = sorted((repository / "docs" / "results").glob("kl-*/metrics.json"), key=str)
    assert table(files) in (repository / "docs" / "results.md").read_text()


@pytest.mark.parametrize(
    ("benchmark", "result"),
    [
        ("kl_trials.py", "kl-baseline-official/trials.json"),
        ("share_of_optimum.py", "synthetic/share_of_optimum.json"),
    ],
)
def test_the_table_of_a_study_is_that_of_its_committed_figures(repository, benchmark, result):
    table = runpy.run_path(str(repository / "benchmarks" / benchmark))["table"]
    document = json.loads((repository / "docs" / "results" / result).read_text())
    assert table(document) in (repository / "docs" / "results.md").read_text()


@pytest.mark.parametrize(
    "study",
    [
        "progression-mendeley/compare",
        "progression-mendeley/survival",
        "progression-tiulpin/compare",
        "progression-tkr/compare",
        "demo-standard/compare",
        "demo-null/compare",
    ],
)
def test_the_tables_of_progression_are_those_of_the_committed_figures(repository, study):
    table = runpy.run_path(str(repository / "benchmarks" / "progression_table.py"))["table"]
    file = repository / "docs" / "results" / f"{study}.json"
    assert table(file) in (repository / "docs" / "results.md").read_text()


def locked(lock):
    """Name, version and number of hashes of each entry of the lock."""
    entries = re.findall(r"(?m)^([\w.-]+)(?:\[.*?\])?==([^\s;]+)(.*(?:\n[ ]+--hash=.*)*)", lock)
    return [
        (canonicalize_name(name), version, rest.count("--hash=sha256:"))
        for name, version, rest in entries
    ]


def test_the_lock_names_no_package_index(lock):
    assert not re.search(r"https?://|--(extra-)?index-url|--find-links|--trusted-host", lock)


def test_every_locked_package_is_pinned_and_hashed(lock):
    entries = [line for line in lock.splitlines() if line and line[0] not in " #"]
    assert len(locked(lock)) == len(entries) > 50
    assert [name for name, _, hashes in locked(lock) if hashes == 0] == []


def test_the_lock_satisfies_every_declared_dependency(lock, project):
    extras = project["optional-dependencies"].values()
    declared = [*project["dependencies"], *itertools.chain.from_iterable(extras)]
    unsatisfied = [
        str(wanted)
        for wanted in map(Requirement, declared)
        if not any(
            name == canonicalize_name(wanted.name) and version in wanted.specifier
            for name, version, _ in locked(lock)
        )
    ]
    assert unsatisfied == []


def test_no_file_names_a_place_of_one_machine(repository):
    place = re.compile(r"(?<![\w./~<-])/(?:work|root|home|Users|tmp|mnt|opt)/\w")
    assert place.search("see /" + "home/somebody")
    suffixes = {".cff", ".j2", ".lock", ".md", ".py", ".sh", ".toml", ".yaml", ".yml"}
    folders = ("kneeoa_mm", "configs", "cohorts", "tests", "docs", "benchmarks", ".github", ".ci")
    files = [path for path in repository.iterdir() if path.is_file()]
    files += [path for folder in folders for path in (repository / folder).rglob("*")]
    named = [
        f"{path.relative_to(repository)}: {match.group()}"
        for path in files
        if path.suffix in suffixes and "_build" not in path.parts
        for match in place.finditer(path.read_text(encoding="utf-8"))
    ]
    assert named == []
