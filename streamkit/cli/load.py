"""From the JOB argument to the one `Job` of its module."""

import importlib
import importlib.util
import os
import sys
import traceback
from pathlib import Path
from types import ModuleType

from streamkit.dsl import Job
from streamkit.errors import DefinitionError, StreamkitError

__all__ = ["load_job", "module_file"]


def load_job(name: str) -> Job:
    """Load the module or file `name` and return its job; the current directory comes first on the path.

    Raises:
        DefinitionError: There is no such module, it raises at import, or it has no job or several.
    """
    here = os.getcwd()
    if not sys.path or sys.path[0] != here:
        sys.path.insert(0, here)
    module = _module(name)
    jobs = {id(value): (variable, value) for variable, value in vars(module).items() if isinstance(value, Job)}
    found = list(jobs.values())
    if len(found) == 1:
        return found[0][1]
    if not found:
        raise DefinitionError(f"{name} has no job", hint='make one at its top level: job = Job("name")')
    raise DefinitionError(
        f"{name} has {len(found)} jobs, and can be run only if it has one",
        detail=", ".join(f"{variable} = Job({job.name!r})" for variable, job in found),
        hint="put each job into a module of its own",
    )


def module_file(name: str) -> Path:
    """Return the file of a job's module that was loaded."""
    if _is_file(name):
        return Path(name)
    file = sys.modules[name].__file__
    assert file is not None, "a module with a job has a file"
    # As short as the user would write it.
    return Path(os.path.relpath(file)) if Path(file).is_relative_to(os.getcwd()) else Path(file)


def _is_file(name: str) -> bool:
    return name.endswith(".py") or "/" in name


def _module(name: str) -> ModuleType:
    file = Path(name)
    try:
        if _is_file(name):
            if not file.is_file():
                raise DefinitionError(f"there is no file {name!r}", hint="JOB is a module or a file")
            return _load_file(file)
        return importlib.import_module(name)
    except DefinitionError as error:
        error.detail = "\n  ".join(filter(None, (error.detail, _place(error, file))))
        raise
    except StreamkitError:
        raise
    except ModuleNotFoundError as error:
        if error.name is not None and (name == error.name or name.startswith(f"{error.name}.")):
            raise DefinitionError(
                f"there is no module {name!r}",
                detail=f"looked in {os.getcwd()} first",
                hint="JOB is a module or a file",
            ) from error
        raise _raised(name, error, file) from error
    except Exception as error:
        raise _raised(name, error, file) from error


def _load_file(file: Path) -> ModuleType:
    name = f"job_file_{file.stem}"
    spec = importlib.util.spec_from_file_location(name, file)
    if spec is None or spec.loader is None:
        raise DefinitionError(f"{str(file)!r} is no Python file", hint="JOB is a module or a file that ends in .py")
    module = importlib.util.module_from_spec(spec)
    # Annotations are looked up by module name.
    sys.modules[name] = module
    spec.loader.exec_module(module)
    return module


def _raised(name: str, error: Exception, file: Path) -> DefinitionError:
    return DefinitionError(
        f"{name} raised at import: {type(error).__name__}: {error}",
        detail=_place(error, file),
        hint="a job module only defines: mend it so that python can import it",
    )


def _place(error: BaseException, file: Path) -> str:
    """Return the innermost line outside of streamkit and of the import machinery."""
    if isinstance(error, SyntaxError):
        return f"{error.filename}, line {error.lineno}"
    library = str(Path(__file__).parents[1])
    frames = [
        frame
        for frame in traceback.extract_tb(error.__traceback__)
        if not frame.filename.startswith((library, "<frozen"))
    ]
    return f"{frames[-1].filename}, line {frames[-1].lineno}: {frames[-1].line}" if frames else str(file)
