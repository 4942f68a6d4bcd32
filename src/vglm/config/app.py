"""The command line of train.py and evaluate.py: Hydra, with errors a user can read."""

import functools
import logging
import os
import shlex
import sys
import typing
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from vglm.config.commands import QUIET, WITH_VALUE
from vglm.config.lazy import defer
from vglm.config.places import ensure_home, repo_root
from vglm.console import be_quiet, begin, is_quiet, recording
from vglm.errors import ConfigError, WorkbenchError, message_of
from vglm.processes import is_main, wait_for_main

if typing.TYPE_CHECKING:
    from omegaconf import DictConfig

INTERRUPTED = 130
"""Exit code after Ctrl-C, as shells count signals."""

_WITHOUT_RUN = ("--help", "-h", "--hydra-help", "--version", "--cfg", "-c", "--info", "-i", "--shell-completion", "-sc")


def entry_point(config_name: str) -> "Callable[[Callable[[DictConfig], Any]], Callable[[], None]]":
    """`@hydra.main` on `conf/<config_name>.yaml`, with errors a user can read: one message, exit code 2.

    Programming mistakes keep their traceback. Of the processes that `torchrun` starts, one prints for all. The folder
    of the script, which Python puts first among those it imports from, is taken out: what lies in it is data.
    `--allow-target` names what configs may build besides, `-q` leaves out remarks and bars, and a YAML file among the
    arguments stands for overrides, see `vglm.config.own_file`. A sweep counts its runs.

    Args:
        config_name: Name of the config in `conf/`, without suffix.

    Returns:
        A decorator that turns `main(cfg)` into a `main()` that reads the command line.
    """
    arguments: list[str] = []
    typed: list[str] = []
    is_running = False
    sweep = _Sweep()

    def decorate(task: "Callable[[DictConfig], Any]") -> Callable[[], None]:
        @functools.wraps(task)
        def guarded(cfg: "DictConfig") -> Any:
            nonlocal is_running
            sys.argv[1:] = arguments  # as typed, for the run's record
            is_running = True
            begin()
            sweep.begin_run(_overrides(typed))
            try:
                from hydra.core.hydra_config import HydraConfig

                from vglm.config.overrides import in_todays_names
                from vglm.config.resolvers import register_resolvers

                register_resolvers()  # which a worker of a launcher has not, nor what the command line allows
                _take_allowed(_take_quiet(arguments))
                result = task(in_todays_names(cfg, _overrides(arguments), HydraConfig.get().runtime.choices))
            except WorkbenchError as error:
                _exit(error)
            is_running = False
            if config_name == "train":
                sweep.end_run()
            return result

        @functools.wraps(task)
        def main() -> None:
            with recording():
                read_and_run()

        def read_and_run() -> None:
            try:
                arguments[:] = sys.argv[1:]
                own = _take_quiet(arguments)
                prepare_process()
                announce(f"{config_name}.py: reading the config")
                own = _take_allowed(own)

                import hydra

                from vglm.config.overrides import check_composable
                from vglm.config.own_file import take_file
                from vglm.config.resolvers import register_resolvers

                register_resolvers()
                typed[:] = sys.argv[1:] = take_file(own, config_name)
                if not any(argument.partition("=")[0] in _WITHOUT_RUN for argument in own):
                    check_composable(config_name, _overrides(sys.argv[1:]))
                os.environ.setdefault("HYDRA_FULL_ERROR", "1")  # let Hydra's own errors come through to here
                conf = str(repo_root() / "conf")
                hydra.main(version_base="1.3", config_path=conf, config_name=config_name)(guarded)()
            except WorkbenchError as error:
                _exit(error)
            except KeyboardInterrupt:
                print("interrupted", file=sys.stderr)
                raise SystemExit(INTERRUPTED) from None
            except Exception as error:
                if is_running and not _is_of_config(error):
                    raise
                from vglm.config.overrides import explain

                _exit(ConfigError(explain(error)))

        return main

    return decorate


class _Sweep:
    """Counts the runs of a sweep, and says at its end how to compare them."""

    def __init__(self) -> None:
        self.runs, self.done = 1, 0

    def begin_run(self, overrides: Sequence[str]) -> None:
        """Print which run begins."""
        from hydra.core.hydra_config import HydraConfig
        from hydra.types import RunMode

        from vglm.config.overrides import runs_of_sweep

        own = HydraConfig.get()
        if own.mode is RunMode.MULTIRUN:
            self.runs = runs_of_sweep(own.sweeper.get("params") or {}, overrides)
            self.done += 1
            if self.runs > 1 and is_main():
                print(f"run {self.done} of {self.runs}", file=sys.stderr, flush=True)

    def end_run(self) -> None:
        """Say after the last one what compares them."""
        from hydra.core.hydra_config import HydraConfig

        if self.done == self.runs > 1 and is_main():
            own = HydraConfig.get()
            command = "protocol" if own.runtime.choices.get("protocol") else "report"
            print(f"compare them: vglm {command} {shlex.quote(own.sweep.dir)}", flush=True)


def _is_of_config(error: Exception) -> bool:
    """Whether Hydra or OmegaConf complains, of an override or a value."""
    from hydra.errors import HydraException
    from omegaconf.errors import OmegaConfBaseException

    return isinstance(error, HydraException | OmegaConfBaseException)


def _take_quiet(arguments: Sequence[str]) -> list[str]:
    """Remove the options for quiet output from the arguments, and apply them."""
    if any(argument in QUIET for argument in arguments):
        be_quiet()
    return [argument for argument in arguments if argument not in QUIET]


def _take_allowed(arguments: Sequence[str]) -> list[str]:
    """The arguments without `--allow-target`, whose names are allowed."""
    from vglm.config.targets import OPTION, allow_targets

    rest: list[str] = []
    remaining = iter(arguments)
    for argument in remaining:
        name, equals, value = argument.partition("=")
        if name != OPTION:
            rest.append(argument)
            continue
        allow_targets(value if equals else next(remaining, ""))
    return rest


def _overrides(arguments: Sequence[str]) -> list[str]:
    """The arguments that are not options of Hydra's, nor their values."""
    rest: list[str] = []
    before = ""
    for argument in arguments:
        if not argument.startswith("-") and before not in WITH_VALUE:
            rest.append(argument)
        before = argument
    return rest


def prepare_process() -> None:
    """Defer optional imports, silence messages that a user cannot act on, and import only from safe folders.

    Only for a process of the workbench's own: it changes what is imported later, and from where.
    """
    ensure_home()
    defer()
    _leave_script_folder()
    quiet_libraries()
    _quiet_other_processes()


def _leave_script_folder() -> None:
    """Import nothing more from the folder of the script, or the working directory of `python -m`."""
    script = getattr(sys.modules.get("__main__"), "__file__", None)
    if sys.flags.safe_path or not script or not sys.path:
        return
    of_module = getattr(sys.modules["__main__"], "__spec__", None) is not None  # python -m vglm
    folder = Path.cwd() if of_module else Path(script).resolve().parent
    if sys.path[0] == "" or Path(sys.path[0]).resolve() == folder:
        del sys.path[0]


def announce(text: str) -> None:
    """Print on stderr what is being done, before libraries load for seconds; nothing if they are loaded."""
    if "torch" not in sys.modules and is_main() and not is_quiet():
        print(text, file=sys.stderr, flush=True)


def quiet_libraries() -> None:
    """Silence notes that no user of the workbench can act on."""
    for name in ("bitsandbytes", "transformers.integrations.bitsandbytes"):
        logging.getLogger(name).setLevel(logging.ERROR)


def _exit(error: Exception) -> typing.NoReturn:
    """Print one message and leave with 2; most mistakes are met by all of several processes at once."""
    wait_for_main()
    print(f"error: {message_of(error)}", file=sys.stderr, flush=True)
    raise SystemExit(2)


def _quiet_other_processes() -> None:
    """Let one of several processes speak for all: in the others nothing is printed but what makes them fail."""
    if not is_main():
        sys.stdout = open(os.devnull, "w", encoding="utf-8")  # noqa: SIM115 - until the process ends
        os.environ["TQDM_DISABLE"] = "1"  # read when tqdm is imported, later
        warnings.simplefilter("ignore")
        logging.disable(logging.WARNING)
