"""Run by path in a backend's own interpreter: ``python -I -u _bootstrap.py backend.py``."""

import sys
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path


def import_voice_worker() -> None:
    """Import the package next to this file by its location.

    So that nothing else of the checkout can be imported from a backend, and nothing that its venv
    holds under the same name is taken instead.
    """
    folder = Path(__file__).resolve().parent
    spec = spec_from_file_location(
        "voice_worker", folder / "__init__.py", submodule_search_locations=[str(folder)]
    )
    assert spec is not None
    assert spec.loader is not None
    package = module_from_spec(spec)
    sys.modules["voice_worker"] = package
    spec.loader.exec_module(package)


if __name__ == "__main__":
    import_voice_worker()
    from voice_worker.stdio import take_stdio

    take_stdio()  # before the backend's imports, which may print
    import runpy

    backend = Path(sys.argv[1]).resolve()
    # As for any script, its neighbours can be imported, before what is installed.
    sys.path.insert(0, str(backend.parent))
    runpy.run_path(str(backend), run_name="__main__")
