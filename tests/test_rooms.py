"""The rooms of the package, each of which imports only from those before it; and what `dear.txt` names."""

import ast
import pathlib

import vbjax

ROOT = pathlib.Path(vbjax.__file__).parent
ROOMS = {
    "numerics": "",
    "families": "numerics chains",
    "terms": "numerics families",
    "core": "numerics families terms",
    "chains": "numerics",
    "data": "numerics families core",
    "inference": "numerics families core data",
    "models": "numerics families terms core chains data inference",
    "blackbox": "numerics families core chains inference",
    "metrics": "numerics",
    "plots": "numerics families core inference data models",
    "sklearn": "numerics core data inference models",
    "arviz": "numerics core inference data blackbox",
    "cli": "numerics families core inference data models plots metrics",
}


def imported(path: pathlib.Path) -> set[str]:
    """The rooms that a file imports from, those of its types alone excepted."""
    found = set()
    for node in ast.parse(path.read_text()).body:
        nodes = (
            ast.walk(node)
            if not (isinstance(node, ast.If) and "TYPE_CHECKING" in ast.dump(node.test))
            else ()
        )
        for part in nodes:
            if isinstance(part, ast.ImportFrom) and part.module and part.module.split(".")[0] == "vbjax":
                inner = part.module.split(".")[1:2]
                found |= set(inner) if inner else {alias.name for alias in part.names}
    return found


def test_a_room_imports_only_from_those_before_it():
    wrong = []
    for path in ROOT.rglob("*.py"):
        room = path.relative_to(ROOT).parts[0].removesuffix(".py")
        if room in ROOMS:
            allowed = {room, *ROOMS[room].split()}
            wrong += [f"{path.relative_to(ROOT)} imports {name}" for name in sorted(imported(path) - allowed)]
    assert not wrong


def test_what_takes_long_exists():
    """A test that was renamed would run by default again."""
    for line in pathlib.Path(__file__).with_name("dear.txt").read_text().splitlines():
        path, name = line.removeprefix("but ").split("::")
        assert name.split("[")[0].split(".")[-1] in (ROOT.parent / path).read_text(), line
