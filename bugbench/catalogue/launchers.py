"""Hydra's launchers: what runs the jobs of a sweep, and which package brings each."""

import multiprocessing
import os
import threading
import time
from importlib.util import find_spec

from bugbench.names import UnknownName, unknown
from hydra.core.config_store import ConfigStore
from hydra.core.plugins import Plugins

# launcher: (its module, what to install)
PACKAGES = {
    "joblib": ("hydra_plugins.hydra_joblib_launcher", "hydra-joblib-launcher"),
    "submitit_local": ("hydra_plugins.hydra_submitit_launcher", "'bugbench[slurm]'"),
    "submitit_slurm": ("hydra_plugins.hydra_submitit_launcher", "'bugbench[slurm]'"),
    "ray": ("hydra_plugins.hydra_ray_launcher", "'bugbench[ray]'"),
    "ray_aws": ("hydra_plugins.hydra_ray_launcher", "'bugbench[ray]'"),
}
ONE_BY_ONE = "basic"  # the launcher whose jobs do not run side by side
WATCH = "end with parent"
PARENT_SECONDS = 0.5  # between two looks
UNBOUNDED = "submitit_local"  # starts every job of a batch at once, however few cores there are


def check_launcher(name: str) -> None:
    """Check that a launcher exists and is installed.

    Raises:
        UnknownName: with the nearest launchers, or with what to install.
    """
    if name in PACKAGES:
        module, package = PACKAGES[name]
        if not _importable(module):
            raise UnknownName(f"hydra/launcher={name} is not installed: pip install {package}")
        return
    Plugins.instance()  # launchers of other packages enter Hydra's ConfigStore when Hydra looks for plug-ins
    installed = {option.removesuffix(".yaml") for option in ConfigStore.instance().list("hydra/launcher")}
    known = {ONE_BY_ONE, *PACKAGES, *installed}
    if name not in known:
        raise UnknownName(unknown("launcher", name, known))


def end_with_parent() -> None:
    """End this process soon after the one that started it is gone, if that was joblib (or its like).

    A killed sweep would leave its processes behind: joblib's wait for work from a queue whose other end they hold, too.
    """
    parent = multiprocessing.parent_process()
    if parent is None or any(thread.name == WATCH for thread in threading.enumerate()):
        return

    def watch(pid: int | None) -> None:
        while os.getppid() == pid:
            time.sleep(PARENT_SECONDS)
        os._exit(1)  # workers end when this end of their pipes is closed

    threading.Thread(target=watch, args=(parent.pid,), name=WATCH, daemon=True).start()


def _importable(module: str) -> bool:
    try:
        return find_spec(module) is not None
    except ModuleNotFoundError:  # hydra_plugins itself
        return False
