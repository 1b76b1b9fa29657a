"""A task written in Python: ``module.py:object`` or ``package.module:object``, the object a `Task` or a function returning one.

The module is run as any Python program is, with your rights: name only files that you trust.
"""

from __future__ import annotations

import contextlib
import hashlib
import importlib
import importlib.util
import inspect
import sys
import sysconfig
import traceback
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

from fstsim.errors import InputError
from fstsim.llm.tasks.exactness import check_exact
from fstsim.llm.types import SPLITS, Answered, Demonstrated, Problem, Score, Task

_NOT_THEIRS = (__file__, "<", sysconfig.get_paths()["stdlib"])
"""how the names of files begin that a user did not write"""


def load_task(name: str) -> Task:
    """The task called ``name``. Raises InputError if its module raises, lacks the object, or the object is no task."""
    module_name, _, wanted = name.rpartition(":")
    module = _file(module_name) if module_name.endswith(".py") else _package(module_name)
    if not hasattr(module, wanted):
        raise InputError(f"task {name}: {module_name} has no object {wanted!r}")
    found = getattr(module, wanted)
    if isinstance(found, type) or (callable(found) and not _is_task(found)):
        try:
            found = found()
        except (Exception, SystemExit) as error:
            raise InputError(f"task {name}: {_said(error)}") from error
    return _checked(found, name)


def objects_of(path: str) -> list[str]:
    """What of the file ``path`` can be named as a task: ``path:object`` of tasks, and of classes and functions written in it."""
    module = _file(path)
    here = {
        name: value
        for name, value in vars(module).items()
        if not name.startswith("_") and (not callable(value) or getattr(value, "__module__", "") == module.__name__)
    }
    return [f"{path}:{name}" for name, value in here.items() if callable(value) or _is_task(value)]


def source_hash(task: Task) -> str:
    """SHA-256 of the file that the task's class is written in, so that a changed verifier is noticed; "" of our own classes.

    Of a class of the program that runs, its own text: the rest of a script may change. "" too where there is no text.
    """
    kind = type(task)
    if kind.__module__.partition(".")[0] == __name__.partition(".")[0]:
        return ""
    try:
        if kind.__module__ == "__main__":
            return hashlib.sha256(inspect.getsource(kind).encode()).hexdigest()
        return hashlib.sha256(Path(inspect.getfile(kind)).read_bytes()).hexdigest()
    except (OSError, TypeError):
        return ""


def _is_task(value: Any) -> bool:
    """Whether it has all that a task has; a property that raises is none."""
    try:
        return isinstance(value, Task)
    except Exception:
        return False


def _file(path: str) -> ModuleType:
    if not Path(path).is_file():
        raise InputError(f"task module {path} does not exist")
    name = f"fstsim_task_{Path(path).stem}"
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module  # dataclasses in it look themselves up there
    try:
        with _nothing_written():
            spec.loader.exec_module(module)
    except (Exception, SystemExit) as error:
        raise InputError(f"task module {path} raises {_said(error)}") from error
    return module


def _package(name: str) -> ModuleType:
    here = str(Path.cwd())
    added = here not in sys.path  # as `python -m` would find it, for the installed command too
    if added:
        sys.path.insert(0, here)
    try:
        with _nothing_written():
            return importlib.import_module(name)
    except ModuleNotFoundError as error:
        if error.name is not None and f"{name}.".startswith(f"{error.name}."):
            raise InputError(f"task module {name} does not exist: there is no {error.name}") from error
        raise InputError(f"task module {name} raises {_said(error)}") from error
    except (Exception, SystemExit) as error:
        raise InputError(f"task module {name} raises {_said(error)}") from error
    finally:
        if added:
            sys.path.remove(here)


@contextlib.contextmanager
def _nothing_written() -> Iterator[None]:
    """No bytecode is left beside a user's files."""
    before, sys.dont_write_bytecode = sys.dont_write_bytecode, True
    try:
        yield
    finally:
        sys.dont_write_bytecode = before


def _said(error: BaseException) -> str:
    """What was raised, and the line of a user's file that raised it, in one line."""
    message = " ".join(str(error).split())
    if isinstance(error, SyntaxError):
        return f"{type(error).__name__} at {error.filename}:{error.lineno}: {error.msg}"
    frames = traceback.extract_tb(error.__traceback__)
    of_user = [f for f in frames if not f.filename.startswith(_NOT_THEIRS) and "site-packages" not in f.filename]
    last = (of_user or frames)[-1]
    return f"{type(error).__name__} at {last.filename}:{last.lineno}: {message}"


def _read(found: Any, name: str, part: str, kind: type, what: str) -> None:
    """InputError unless the property ``part`` can be read and is ``what``."""
    try:
        value = getattr(found, part)
    except (Exception, SystemExit) as error:
        raise InputError(f"task {name}: {part} raises {_said(error)}") from error
    if not isinstance(value, kind) or value == "":
        raise InputError(f"task {name}: {part} must be {what}, got {value!r:.60}")


def _check_texts(found: Task, name: str) -> None:
    """InputError unless `answer` and `old_answer`, where there are any, give text for every problem."""
    parts = ("answer",) if isinstance(found, Answered) else ()
    for part in (*parts, "old_answer") if isinstance(found, Demonstrated) else parts:
        for problem in (p for split in SPLITS for p in found.problems(split)):
            place = f"task {name}: {part} of problem {problem.stated[:60]!r}"
            try:
                text = getattr(found, part)(problem)
            except (Exception, SystemExit) as error:
                raise InputError(f"{place} raises {_said(error)}") from error
            if not isinstance(text, str):
                raise InputError(f"{place} is {type(text).__name__}, not text")


def _checked(found: Any, name: str) -> Task:
    for part, kind, what in (("name", str, "text, not empty"), ("exact", bool, "True or False")):
        if hasattr(type(found), part):  # a property
            _read(found, name, part, kind, what)
    if not _is_task(found):
        lacking = [part for part in ("name", "exact", "problems", "score") if not hasattr(found, part)]
        raise InputError(f"task {name} is not a Task: {type(found).__name__} lacks {', '.join(lacking)}")
    _read(found, name, "name", str, "text, not empty")
    _read(found, name, "exact", bool, "True or False")
    first: list[Problem] = []
    for split in SPLITS:
        try:
            problems: list[Any] = list(found.problems(split))
            again: list[Any] = list(found.problems(split))
        except (Exception, SystemExit) as error:
            raise InputError(f"task {name}: problems({split!r}) raises {_said(error)}") from error
        strange = [p for p in problems if not isinstance(p, Problem)]
        if strange:
            raise InputError(f"task {name}: problems({split!r}) holds {type(strange[0]).__name__}, not Problem alone")
        if problems != again:
            raise InputError(
                f"task {name}: problems({split!r}) differs from call to call; it must return the same problems"
            )
        if not isinstance(found.problems(split), Sequence):
            raise InputError(f"task {name}: problems({split!r}) must return a list or a tuple of problems")
        if len({p.uid for p in problems}) < len(problems):
            raise InputError(f"task {name}: problems({split!r}) holds a problem twice; give each problem once")
        first += problems[:1]
        by_uid = {p.uid for p in problems}
        for other in SPLITS[: SPLITS.index(split)]:
            both = by_uid.intersection(p.uid for p in found.problems(other))
            if both:
                raise InputError(f"task {name}: problem {min(both)!r} is in two splits, {other} and {split}")
    for problem in first[:1]:
        try:
            said = found.score(problem, "")
        except Exception:
            continue
        if not isinstance(said, Score):
            raise InputError(f"task {name}: score returns {type(said).__name__}, not Score")
    _check_texts(found, name)
    check_exact(found)
    return found
