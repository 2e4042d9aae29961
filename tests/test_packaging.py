"""Static guards: what the package installs, what its files must not name, what importing it must not load, and that the
Markdown files name only what exists.

Nothing here needs a GPU, a network or more than a few seconds.
"""

import json
import re
import subprocess
import sys
import tomllib
from importlib.util import find_spec
from pathlib import Path

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from palign.params import Params

ROOT = Path(__file__).resolve().parent.parent
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]

NEEDS_GPU = {"unsloth", "unsloth-zoo", "vllm", "bitsandbytes", "xformers", "triton"}
HEAVY = {"torch", "transformers", "trl", "peft", "datasets", "unsloth", "vllm"}


def by_name(lines):
    """Requirement lines as ``{canonical name: Requirement}``; a name given twice is an error."""
    found = {}
    for line in lines:
        requirement = Requirement(line)
        name = canonicalize_name(requirement.name)
        assert name not in found, f"{name} is required twice"
        found[name] = requirement
    return found


def exact(requirement):
    """The version of a ``name==version`` requirement, ``None`` for any other."""
    specifiers = list(requirement.specifier)
    if len(specifiers) == 1 and specifiers[0].operator == "==" and not specifiers[0].version.endswith("*"):
        return specifiers[0].version
    return None


CORE = by_name(PROJECT["dependencies"])
EXTRAS = {name: by_name(lines) for name, lines in PROJECT["optional-dependencies"].items()}


@pytest.fixture(scope="module")
def environment():
    """The lines of environment.yml's pip section."""
    dependencies = yaml.safe_load((ROOT / "environment.yml").read_text(encoding="utf-8"))["dependencies"]
    (pip,) = [entry["pip"] for entry in dependencies if isinstance(entry, dict)]
    return pip


def test_pins_agree_between_pyproject_and_environment(environment):
    """One of the two files was updated and the other was not: a GPU study ran on untested versions."""
    pinned = by_name(line for line in environment if not line.startswith("-e"))
    wanted = CORE | EXTRAS["gpu"] | EXTRAS["test"]
    assert set(pinned) == set(wanted)
    for name, requirement in wanted.items():
        version = exact(pinned[name])
        assert version, f"environment.yml: {pinned[name]} is not an exact pin"
        assert requirement.specifier.contains(version), f"environment.yml has {pinned[name]}, pyproject {requirement}"


def lock():
    """The lock's requirements; one with an environment marker says where it is needed."""
    lines = (ROOT / "requirements.lock").read_text(encoding="utf-8").splitlines()
    return by_name(line for line in lines if line.strip() and not line.startswith("#"))


def test_the_lock_holds_the_same_versions_as_pyproject_and_environment(environment):
    """A lock that was not renewed installs versions that the project does not name."""
    locked = lock()
    for name, requirement in (CORE | EXTRAS["test"]).items():
        assert name in locked, f"requirements.lock: {name} is missing; renew it as its head says"
        assert exact(locked[name]) == exact(requirement), f"requirements.lock: {locked[name]}, pyproject {requirement}"
    pinned = by_name(line for line in environment if not line.startswith("-e"))
    for name in set(pinned) & set(locked):
        assert exact(pinned[name]) == exact(locked[name])


def test_the_lock_is_exact_sorted_and_names_no_place():
    locked = lock()
    assert all(exact(requirement) and not requirement.url for requirement in locked.values())
    assert list(locked) == sorted(locked)
    assert not NEEDS_GPU & set(locked)


def test_make_setup_holds_pip_to_the_lock():
    installs = [line for line in (ROOT / "Makefile").read_text(encoding="utf-8").splitlines() if "install -" in line]
    assert installs and all("-c requirements.lock" in line for line in installs if "-e '.[test" in line)


def resolve(what, folder):
    """What pip would install into an empty environment under the lock: ``{name: version without a local label}``."""
    report = folder / "report.json"
    command = [sys.executable, "-m", "pip", "install", "--dry-run", "--ignore-installed", "--quiet"]
    subprocess.run([*command, "--report", report, "-c", "requirements.lock", what], cwd=ROOT, check=True, timeout=900)
    found = json.loads(report.read_text(encoding="utf-8"))["install"]
    found = {canonicalize_name(entry["metadata"]["name"]): entry["metadata"]["version"] for entry in found}
    return {name: version.split("+")[0] for name, version in found.items() if name != "palign"}


@pytest.mark.slow
def test_the_lock_still_resolves_and_is_whole(tmp_path):
    """The index withdrew a version, or the lock forgot a dependency, which may then change any day."""
    locked = {n: exact(r) for n, r in lock().items() if r.marker is None or r.marker.evaluate()}
    found = resolve(".[test]", tmp_path)
    # torch's CUDA build, on Linux, brings packages that torch itself pins
    brought = {name for name in found if name.startswith(("nvidia-", "cuda-")) or name == "triton"}
    assert {name: version for name, version in found.items() if name not in brought} == locked


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="the gpu extra is for Linux")
def test_the_gpu_extra_resolves_beside_the_lock(tmp_path, environment):
    """unsloth and vLLM each restrict the versions that the other may use."""
    found = resolve(".[gpu,test]", tmp_path)
    pinned = by_name(line for line in environment if not line.startswith("-e"))
    assert {name: found[name] for name in pinned} == {name: exact(pinned[name]) for name in pinned}


def test_environment_installs_the_project_itself_with_its_gpu_extra(environment):
    assert [line for line in environment if line.startswith("-e")] == ["-e .[gpu,test]"]


def test_every_requirement_but_vllm_is_an_exact_pin():
    """A dependency changed overnight, and the numbers with it."""
    for name, requirement in (CORE | EXTRAS["gpu"] | EXTRAS["test"] | EXTRAS["dev"]).items():
        assert exact(requirement) or name == "vllm", f"{requirement} is not an exact pin"


def test_vllm_has_a_floor_and_a_ceiling():
    """Without a floor the resolver silently goes back to vllm 0.2.5."""
    vllm = EXTRAS["gpu"]["vllm"].specifier
    assert vllm.contains("0.32.0") and not vllm.contains("0.2.5") and not vllm.contains("0.33.0")


def test_a_machine_without_a_gpu_installs_nothing_that_needs_one():
    """`import unsloth` raises without an accelerator; vllm alone downloads gigabytes."""
    assert not NEEDS_GPU & set(CORE)
    assert not NEEDS_GPU & set(EXTRAS["test"]) and not NEEDS_GPU & set(EXTRAS["dev"])
    assert set(EXTRAS["gpu"]) == NEEDS_GPU


def test_colab_installs_the_gpu_extra_at_the_same_pins_but_what_depends_on_its_torch():
    """Colab must fine-tune with the versions of environment.yml; its torch and triton are built for its driver."""
    lines = (ROOT / "requirements-colab.txt").read_text(encoding="utf-8").splitlines()
    colab = by_name(line for line in lines if not line.startswith("#"))
    shared = EXTRAS["gpu"].keys() & colab.keys()
    assert shared == EXTRAS["gpu"].keys() - {"vllm", "triton", "xformers"}
    assert all(exact(colab[name]) == exact(EXTRAS["gpu"][name]) for name in shared)
    assert all(map(exact, colab.values())) and "torch" not in colab


def test_pre_commit_hooks_use_the_dev_extras_versions_and_clone_nothing():
    """A commit hook and `make lint` disagreed about formatting."""
    config = yaml.safe_load((ROOT / ".pre-commit-config.yaml").read_text(encoding="utf-8"))
    assert [repo["repo"] for repo in config["repos"]] == ["local"]
    for hook in config["repos"][0]["hooks"]:
        for name, requirement in by_name(hook["additional_dependencies"]).items():
            assert exact(requirement) == exact(EXTRAS["dev"][name])


# The patterns use character classes so that this file does not match itself.
REGISTRY_HOST = re.compile(
    r"pypi[.]org|pythonhosted[.]org|npmjs[.](?:org|com)|yarnpkg[.]com|anaconda[.](?:org|com)"
    r"|download[.]pytorch[.]org|proxy[.]golang[.]org|crates[.]io|(?:deb|security)[.]debian[.]org|archive[.]ubuntu[.]com",
    re.IGNORECASE,
)
DEVELOPER_PATH = re.compile(
    # not the middle of a relative path or of an address, hence the look-behind
    r"(?<![\w.~$})\]-])(?:/(?:work|root)|/(?:home|Users)/[A-Za-z_][\w.-]*)/|\b[A-Z]:\\+Users\\+\w"
)


@pytest.mark.parametrize(
    ("pattern", "caught", "let_through"),
    [
        (
            REGISTRY_HOST,
            ["https://{}/simple".format("pypi" + ".org"), "registry." + "npmjs" + ".org"],
            ["pypi", "the organisation"],
        ),
        (
            DEVELOPER_PATH,
            [
                '"/' + 'work/main"',
                "file:///" + "root/x",
                "/" + "home/jo/x",
                "open(/" + "Users/jo/x",
                "C:" + "\\Users\\jo",
            ],
            ["runs/work/x", "https://host.example/work/x", "~/" + "work/", "$HOME/work/x", "/content/drive", "/home/"],
        ),
    ],
    ids=["registry-host", "developer-path"],
)
def test_the_patterns_catch_what_they_should(pattern, caught, let_through):
    for text in caught:
        assert pattern.search(text), text
    for text in let_through:
        assert not pattern.search(text), text


def text_files():
    """The repository's text files, as git sees them: tracked, or new and not ignored. ``{relative path: text}``."""
    listing = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    found = {}
    for name in filter(None, listing.split("\0")):
        path = ROOT / name
        if not path.is_file() or path.is_symlink():  # deleted but not yet committed
            continue
        content = path.read_bytes()
        if b"\0" not in content[:8192]:
            found[name] = content.decode("utf-8", errors="replace")
    return found


@pytest.mark.parametrize(
    ("pattern", "what"),
    [(REGISTRY_HOST, "a package registry's host"), (DEVELOPER_PATH, "an absolute path of somebody's machine")],
    ids=["registry-host", "developer-path"],
)
def test_no_file_names(pattern, what):
    """A committed report or notebook worked only on the machine that made it."""
    files = text_files()
    assert "pyproject.toml" in files
    named = [
        f"{name}:{text.count(chr(10), 0, match.start()) + 1}: {match.group()}"
        for name, text in files.items()
        if (match := pattern.search(text))
    ]
    assert not named, f"{what} in " + ", ".join(named)


def test_no_link_to_another_place_is_committed():
    """A link to another checkout's tokenizers took the place of the folder that `make test-formats` fills."""
    kept = subprocess.run(["git", "ls-files", "--stage"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    assert not [line for line in kept.splitlines() if line.startswith("120000")]


def test_every_report_is_of_a_study_of_this_repository():
    """benchmarks/faults.py once wrote its own report here, because it had found no other project to write to."""
    known = {path.stem for path in (ROOT / "params").glob("*.yaml")}
    known |= {"paper-audit", "paper-audit-released", "recorded-rollouts", "rollouts-pocket-prefixes", "benchmarks"}
    known |= {"LOG.md", "README.md", "FINDINGS.md", "REPRODUCTION.md", "rivals"}
    assert {Path(name).parts[1] for name in text_files() if name.startswith("reports/")} <= known


def loaded_after(statements):
    """Which of the heavy packages a fresh interpreter has loaded after these statements."""
    probe = f"{statements}\nimport json, sys\nprint(json.dumps(sorted({HEAVY!r} & set(sys.modules))))"
    result = subprocess.run([sys.executable, "-c", probe], cwd=ROOT, capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    return json.loads(result.stdout.splitlines()[-1])


def test_importing_palign_loads_no_heavy_package():
    """`palign --help` and a notebook's first cell took half a minute."""
    assert loaded_after("import palign") == []


@pytest.mark.model
def test_heavy_imports_stay_inside_the_functions_that_need_them():
    """An `import torch` at the top of a module slows every command and runs before settings that must precede it."""
    modules = [path.relative_to(ROOT).with_suffix("").parts for path in sorted((ROOT / "palign").rglob("*.py"))]
    names = [".".join(parts).removesuffix(".__init__") for parts in modules if parts[-1] != "__main__"]
    assert "palign.params" in names
    assert loaded_after("import " + ", ".join(names)) == []


PAGES = [path for glob in ("*.md", "[!.]*/*.md", "palign/**/*.md") for path in sorted(ROOT.glob(glob))]
PROSE = {str(path.relative_to(ROOT)): path.read_text("utf-8") for path in PAGES if path.name != "LOG.md"}
LINK = re.compile(r"\]\((?!https?:)([^)#\s]*)(?:#([^)\s]*))?\)")


def dead_links(text, folder):
    """Links of a Markdown file of ``folder`` to files and headings of this repository that do not exist."""
    dead = []
    for target, anchor in LINK.findall(text):
        path = folder / target
        # a link within the page itself has an anchor only
        page = text if not target else path.read_text("utf-8") if anchor and path.is_file() else ""
        headings = re.findall(r"^#+ (.+)$", page, re.MULTILINE)
        anchors = [re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings]
        if not path.exists() or (anchor and anchor not in anchors):
            dead.append(f"{target}#{anchor}")
    return dead


def dead_names(text):
    """Targets, parameters, files and modules in a Markdown file's code that do not exist."""
    code = "\n".join(re.findall(r"`([^`\n]+)`", text) + re.findall(r"^ {4}(.+)$", text, re.MULTILINE))
    targets = re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE)
    keys = {"arm", "training_seed", *Params.model_fields}
    files = re.findall(r"(?<![\w/.])(?:palign|params|tests|notebooks)/[\w/.*-]*\w", code)
    return [
        *(f"make {name}" for name in re.findall(r"\bmake ([a-z-]+)", code) if name not in targets),
        *(f"-p {name}" for name in re.findall(r"(?<!mkdir) -p ([a-z_]+)", code) if name not in keys),
        *(name for name in files if not any(ROOT.glob(name)) and name != "params/mine.yaml"),
        *(name for name in re.findall(r"python -m ((?:palign|benchmarks)[.\w]+)", code) if not find_spec(name)),
    ]


@pytest.mark.parametrize("name", PROSE)
def test_what_a_markdown_file_names_exists(name):
    """A section moved, or a file or parameter was renamed, and the prose still named the old one."""
    assert dead_links(PROSE[name], (ROOT / name).parent) == []
    assert dead_names(PROSE[name]) == []


def test_what_does_not_exist_is_found():
    links = "[a](README.md) [b](#here) [c](gone.md) [d](README.md#gone) [e](#gone) [f](https://host.example/x)"
    assert dead_links(f"{links}\n# Here\n", ROOT) == ["gone.md#", "README.md#gone", "#gone"]
    code = "`make study` `make gone` `palign run params/poc*.yaml -p seed 1 -p gone 1` `palign/gone.py`"
    assert dead_names(f"{code}\n\n    python -m palign.gone\n") == [
        "make gone",
        "-p gone",
        "palign/gone.py",
        "palign.gone",
    ]


def test_the_front_page_begins_with_two_commands_and_ends_with_the_citation():
    head, rest = PROSE["README.md"].split("\n## ", 1)
    commands = [line.split("#")[0].strip() for line in head.splitlines() if line.startswith("    ")]
    assert commands == ["make study", "make test"]
    assert "CITATION.cff" in rest.split("\n## ")[-1]
