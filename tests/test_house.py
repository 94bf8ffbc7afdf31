"""The house rules that prose cannot keep: who imports whom, what is packaged, how light the command is."""

from __future__ import annotations

import ast
import json
import subprocess
import sys
import tomllib
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
CODE = ["weatherfm", "data_pipeline", "evaluation", "training"]
LAYERS = ["", "earth", "model", "data_pipeline", "evaluation", "training"]
"""Of `weatherfm.*`, each of which may import those on its left; the first is what lies loose in weatherfm/."""
COMMAND = ["verbs", "face"]
"""Rooms of weatherfm/ above all layers: the verbs of the command line over the functions that do what they say."""
LIGHT = [
    "training",
    *(
        f"weatherfm/face/{name}.py"
        for name in ("runs", "training", "ensemble_training", "planning", "forecasting", "validation")
    ),
    "evaluation/metrics/array_scores.py",
    "evaluation/forecasting/on_disk.py",
    "evaluation/forecast.py",
    "data_pipeline/store/states.py",
    "data_pipeline/store/training_store.py",
    "data_pipeline/loader.py",
]
ABOVE = ("weatherfm.cli", *(f"weatherfm.{name}" for name in COMMAND))
FACE = ROOT / "weatherfm" / "__init__.py"
"""Its public names are imported from everywhere, when asked for."""
HEAVY = {
    "xarray",
    "zarr",
    "dask",
    "distributed",
    "cartopy",
    "matplotlib",
    "climetlab",
    "wandb",
    "cfgrib",
    "jax",
    "netCDF4",
}
PARSING = {
    "attr",
    "attrs",
    "cyclopts",
    "docstring_parser",
    "markdown_it",
    "mdurl",
    "pygments",
    "rich",
    "tqdm",
    "typing_extensions",
}
"""What reads a command line and shows its help."""


def sources(*places: str) -> list[Path]:
    found = [p for place in places for p in ([ROOT / place] if place.endswith(".py") else (ROOT / place).rglob("*.py"))]
    assert found
    return found


def imports(path: Path, everywhere: bool = True) -> set[str]:
    """Modules a file imports; with everywhere=False only those of its top level, outside `if TYPE_CHECKING`."""
    tree = ast.parse(path.read_text())
    nodes = ast.walk(tree) if everywhere else tree.body
    names = set()
    for node in nodes:
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            names |= {f"{node.module}.{alias.name}" for alias in node.names} | {str(node.module)}
    return names


def layer_of(module: str) -> str | None:
    """None of a module that is not ours."""
    first, _, rest = module.partition(".")
    if first != "weatherfm":
        return None
    inner = rest.split(".")[0]
    return inner if inner in LAYERS else ""


def misdirected(path: Path, module: str) -> bool:
    """True when this file must not import this module."""
    folder, *below = path.relative_to(ROOT).parts
    layer = (below[0] if below[0] in LAYERS else "") if folder == "weatherfm" else folder
    target = layer_of(module)
    if is_command(path) or path == FACE or target is None:
        return False
    return LAYERS.index(target) > LAYERS.index(layer) or module.startswith(ABOVE)


GROUND = {
    "data_pipeline": [
        "access",
        "source_config",
        "picture_config",
        "joined_config",
        "variable_config",
        "period_config",
        "store_config",
    ],
    "data_pipeline/formats": ["chunks", "orientation", "units", "pieces", "wanted_times", "time_values"],
    "data_pipeline/store": [],
    "evaluation": ["ensemble_config", "regions", "forecast_config"],
    "evaluation/figures": ["pictures"],
    "training": ["start_config", "rollout_config", "run_config", "parts"],
}
"""Loose files of a folder below all of its rooms; the other loose ones, its faces, are above them."""
ROOMS = {
    "data_pipeline": [
        "machine", "fields", "store", "formats", "cds", "planet", "leaves", "sources",
        "design", "writing", "verification",
    ],
    "data_pipeline/formats": [
        "zarr", "opendap", "files", "meaning", "datasets", "grib", "choice", "sums", "reading", "cubes",
    ],
    "data_pipeline/store": ["records"],
    "evaluation/figures": ["maps"],
    "training": ["upkeep", "ranks", "parallel", "starting", "feeding", "stepping", "checkpoints", "plan", "validating"],
    "evaluation": [
        "forecasts", "forecasting", "metrics", "baselines", "scoring", "significance", "results", "figures", "report",
        "reconstructions",
    ],
}  # fmt: skip
"""Of a folder, from the ground up: none imports one above it."""


def floor_of(folder: str, room: str) -> int:
    """Of a room or a loose file (without .py)."""
    order = [*GROUND[folder], *ROOMS[folder]]
    return order.index(room) if room in order else len(order)


def climbs(path: Path, module: str) -> bool:
    """True when this file imports a room above its own, in its own folder or one around it."""
    parts = path.relative_to(ROOT).with_suffix("").parts
    for folder in ROOMS:
        depth = len(folder.split("/"))
        prefix = f"weatherfm.{folder.replace('/', '.')}."
        if "/".join(parts[:depth]) == folder and module.startswith(prefix):
            target = module.removeprefix(prefix).split(".")[0]
            if floor_of(folder, target) > floor_of(folder, parts[depth]):
                return True
    return False


def is_command(path: Path) -> bool:
    """Of the command line or of its face in Python, which may import everything, when a verb runs."""
    return path == ROOT / "weatherfm" / "cli.py" or path.parent in [ROOT / "weatherfm" / name for name in COMMAND]


def test_imports_point_one_way():
    wrong = [f"{p.relative_to(ROOT)} imports {m}" for p in sources(*CODE) for m in imports(p) if misdirected(p, m)]
    assert wrong == []


@pytest.mark.parametrize("folder", ROOMS)
def test_no_room_imports_one_above_it(folder):
    wrong = [f"{p.relative_to(ROOT)} imports {m}" for p in sources(folder) for m in imports(p) if climbs(p, m)]
    assert wrong == []
    rooms = {p.parent.name for p in (ROOT / folder).glob("*/__init__.py")}
    assert rooms == set(ROOMS[folder])


def test_every_folder_with_rooms_has_their_order():
    rooms = {p.parent.relative_to(ROOT) for p in sources(*CODE) if p.name == "__init__.py"}
    above = {str(room.parent) for room in rooms} - {".", "weatherfm"}  # LAYERS has those of weatherfm/
    assert above == set(ROOMS)


def module_of(path: Path) -> str:
    """Dotted name below `weatherfm.`."""
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[parts[0] == "weatherfm" : len(parts) - (parts[-1] == "__init__")])


def who_knows_whom() -> dict[str, set[str]]:
    """File -> files that it imports anywhere, for types alone too; the face in weatherfm/ aside."""
    files = {module_of(path): path for path in sources(*CODE) if path != FACE}
    named = {name: {m.removeprefix("weatherfm.") for m in imports(path)} for name, path in files.items()}
    return {name: (found & files.keys()) - {name} for name, found in named.items()}


def circles(graph: dict[str, set[str]]) -> list[set[str]]:
    """Sets of two files or more each of which imports every other of its set, through others perhaps."""
    reach = {name: set(found) for name, found in graph.items()}
    for through in graph:
        for found in reach.values():
            if through in found:
                found |= reach[through]
    together = {frozenset(other for other in reach[name] if name in reach[other]) for name in graph}
    return sorted((set(circle) for circle in together if circle), key=sorted)


def test_no_two_files_know_each_other():
    assert circles(who_knows_whom()) == []


def test_a_circle_is_found_through_other_files():
    graph = {"a": {"b"}, "b": {"c"}, "c": {"a", "d"}, "d": {"e"}, "e": set(), "f": {"g", "a"}, "g": {"f"}}
    assert circles(graph) == [{"a", "b", "c"}, {"f", "g"}]


def test_the_direction_test_can_fail():
    assert climbs(ROOT / "data_pipeline" / "store" / "training_store.py", "weatherfm.data_pipeline.writing.journal")
    assert climbs(ROOT / "data_pipeline" / "store_config.py", "weatherfm.data_pipeline.fields.time_axis")
    assert climbs(ROOT / "data_pipeline" / "writing" / "journal.py", "weatherfm.data_pipeline.prepare")
    formats = ROOT / "data_pipeline" / "formats"
    assert climbs(formats / "grib" / "index.py", "weatherfm.data_pipeline.formats.sums.sums_from_sums")
    assert climbs(formats / "grib" / "index.py", "weatherfm.data_pipeline.sources.files")
    assert not climbs(formats / "sums" / "terms.py", "weatherfm.data_pipeline.formats.grib.index")
    assert not climbs(ROOT / "data_pipeline" / "prepare.py", "weatherfm.data_pipeline.writing.journal")
    assert climbs(ROOT / "evaluation" / "figures" / "curves.py", "weatherfm.evaluation.report.page")
    assert climbs(ROOT / "evaluation" / "scoring" / "scorer.py", "weatherfm.evaluation.evaluate")
    assert climbs(ROOT / "training" / "feeding" / "samples.py", "weatherfm.training.stepping.loss")
    assert misdirected(ROOT / "weatherfm" / "model" / "model.py", "weatherfm.training.stepping.loss")
    assert misdirected(ROOT / "weatherfm" / "earth" / "grid.py", "weatherfm.model.share")
    assert misdirected(ROOT / "weatherfm" / "config.py", "weatherfm.earth.grid")
    assert not misdirected(ROOT / "weatherfm" / "model" / "model.py", "weatherfm.earth.forcings")
    assert misdirected(ROOT / "data_pipeline" / "store.py", "weatherfm.evaluation.metrics")
    assert misdirected(ROOT / "training" / "trainer.py", "weatherfm.cli")
    assert misdirected(ROOT / "training" / "trainer.py", "weatherfm.face.training")
    assert not misdirected(ROOT / "training" / "trainer.py", "weatherfm.evaluation.metrics")


def test_the_model_knows_no_ranks_and_no_data_stack():
    for path in sources("weatherfm"):
        assert not {m for m in imports(path) if m.startswith("torch.distributed")}, path
        if not is_command(path):
            assert not {m.split(".")[0] for m in imports(path)} & HEAVY, path


def test_every_package_is_listed():
    listed = set(tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]["packages"])
    found = {".".join(p.parent.relative_to(ROOT).parts) for p in sources(*CODE, "configs") if p.name == "__init__.py"}
    assert listed == {name if name.split(".")[0] == "weatherfm" else f"weatherfm.{name}" for name in found}
    folders = {p.parent for p in sources(*CODE)}
    assert all((folder / "__init__.py").exists() for folder in folders)


def test_readers_of_the_source_find_every_package():
    """Editors and type checkers know no package-dir: to them weatherfm.training is what weatherfm/ links to."""
    for package in tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]["packages"]:
        assert (ROOT / package.replace(".", "/") / "__init__.py").exists(), package
    links = {p.name: p.readlink() for p in (ROOT / "weatherfm").iterdir() if p.is_symlink()}
    assert links == {name: Path("..") / name for name in [*CODE[1:], "configs"]}


def test_package_data_patterns_match_files():
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]
    for package, patterns in settings["package-data"].items():
        folder = package.removeprefix("weatherfm.").replace(".", "/") if package != "weatherfm" else "weatherfm"
        for pattern in patterns:
            assert list((ROOT / folder).glob(pattern)), (package, pattern)


def run_python(code: str, *flags: str) -> str:
    done = subprocess.run([sys.executable, *flags, "-c", code], capture_output=True, text=True, check=True, cwd="/")
    return done.stdout


def packages(modules: list[str]) -> set[str]:
    """Those that are not Python's own, nor of the way in which this one is installed (as Debian's sitecustomize)."""
    return {m.split(".")[0] for m in modules if not m.startswith("_")} - sys.stdlib_module_names - at_start()


@cache
def at_start() -> set[str]:
    """What any Python here imports before its first line."""
    return set(run_python("import sys; print(*sys.modules)").split())


def own(modules: list[str]) -> list[str]:
    return [m for m in modules if m.split(".")[0] == "weatherfm"]


@pytest.mark.parametrize("verb", [[], ["train"], ["prepare"]], ids=str)
def test_help_imports_only_what_shows_it(verb):
    """So that it answers within half a second: seconds themselves depend on what else a machine does."""
    code = f"""
import json, sys
from weatherfm.cli import run_command
status = run_command({[*verb, "--help"]!r})
print(json.dumps([status, sorted(sys.modules)]))
"""
    status, modules = json.loads(run_python(code).splitlines()[-1])
    assert status == 0
    assert packages(modules) <= PARSING | {"weatherfm"}
    assert len(own(modules)) < 40


def test_evaluate_brings_no_figures():
    """Of which the maps' libraries clash with that of GRIB, where it was imported before (by xarray, as it guesses)."""
    code = "import json, sys, weatherfm; weatherfm.evaluate; print(json.dumps(sorted(sys.modules)))"
    assert not {"matplotlib", "cartopy", "pyproj"} & packages(json.loads(run_python(code).splitlines()[-1]))


def test_importing_the_package_imports_nothing_else():
    code = """
import sys
import weatherfm
assert {"load", "forecast", "open_store"} <= set(dir(weatherfm))
print(*sys.modules)
"""
    modules = run_python(code).split()
    assert packages(modules) == {"weatherfm"}
    assert own(modules) == ["weatherfm"]


def test_public_names_are_there_when_asked_for():
    code = """
import weatherfm
from weatherfm import forecast, load, open_store
print(weatherfm.load is load, weatherfm.open_store.__module__, forecast.__module__, hasattr(weatherfm, "no_such"))
"""
    assert run_python(code).split() == [
        "True", "weatherfm.data_pipeline.store.training_store", "weatherfm.evaluation.forecasting.in_memory", "False"
    ]  # fmt: skip


def test_training_side_imports_without_the_data_stack():
    """Clusters seldom have the data stack where the GPUs are."""
    modules = [
        ".".join(("weatherfm", *p.relative_to(ROOT).with_suffix("").parts))
        for p in [*sources(*LIGHT), *(p for p in sources("weatherfm") if not is_command(p))]
        if p.name != "__init__.py"
    ]
    names = [m.replace("weatherfm.weatherfm.", "weatherfm.") for m in modules]
    code = f"""
import importlib, sys
for name in {sorted(HEAVY | {"safetensors", "scipy", "pandas"})!r}:
    sys.modules[name] = None  # importing it now raises
for name in {names!r}:
    importlib.import_module(name)
"""
    run_python(code)


def test_files_and_functions_stay_small():
    long_files = {str(p.relative_to(ROOT)): n for p in sources(*CODE) if (n := len(p.read_text().splitlines())) > 400}
    assert long_files == {}
    long_functions = [
        f"{p.relative_to(ROOT)}:{node.lineno} {node.name}"
        for p in sources(*CODE)
        for node in ast.walk(ast.parse(p.read_text()))
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and node.end_lineno - node.lineno >= 60
    ]
    assert long_functions == []
