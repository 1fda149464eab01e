"""The ``shoal`` command. It reads its arguments before it imports anything heavy.

Exit codes: 0 all went well, 1 a run failed, 2 the command was used wrongly, 130 interrupted.
"""

import argparse
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import NoReturn

from shoal._version import __version__
from shoal.inference import _commands
from shoal.inference._commands import INTERRUPTED, SUMMARY_ROWS, UsageError

SAMPLERS = ("nuts", "auto", "malt", "mams", "mclmc", "mala", "ula", "baoab", "obabo")
SOLVERS = (
    "ddim", "deis", "dpm-solver", "dpm-solver-pp", "dpm-solver-v3", "ghvb", "heavy-ball", "heun",
    "plms", "taylor", "unipc",
)  # fmt: skip
GRIDS = ("logsnr", "uniform", "quadratic", "karras")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; return its exit code.

    Parameters
    ----------
    arguments
        What follows the command's name; that of the process by default.

    Returns
    -------
    int
        0, 1 (the run failed), 2 (used wrongly) or 130 (interrupted).
    """
    options = _parser().parse_args(arguments)
    try:
        return options.command(options)
    except UsageError as error:
        return _fail(options, error, 2)
    except KeyboardInterrupt:
        again = _commands.how_to_continue(options)
        code = _fail(options, f"interrupted{again and f'; to continue: {again}'}", INTERRUPTED)
        if arguments is None:
            _end_at_once(code)
        return code
    except Exception as error:
        if getattr(options, "traceback", False):
            raise
        return _fail(options, f"{_place(options, error)}{type(error).__name__}: {error}", 1)


def _fail(options: argparse.Namespace, error: object, code: int) -> int:
    print(f"shoal {options.name}: {' '.join(str(error).split())}", file=sys.stderr)
    return code


def _end_at_once(code: int) -> NoReturn:
    """End the process without taking Python apart: that crashes where XLA was interrupted."""
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


def _place(options: argparse.Namespace, error: Exception) -> str:
    """Name the line of the user's own file in which a run failed."""
    from shoal.inference.files import where

    path = Path(getattr(options, "model", "").rpartition(":")[0])
    place = where(error, path)
    return f"{path}, {place}" if place else ""


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        """Say what is wrong in one line, without the usage text."""
        self.exit(2, f"{self.prog}: {message} (see {self.prog} --help)\n")


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(
        prog="shoal", description="Sample from Bayesian models: draws, tables and pictures."
    )
    parser.add_argument("--version", action="version", version=f"shoal {__version__}")
    commands = parser.add_subparsers(metavar="COMMAND", required=True, dest="name")

    demo = commands.add_parser(
        "demo",
        help="sample a real posterior, check the answer, and show it",
        description="Bayesian logistic regression on the breast cancer data of scikit-learn, "
        "sampled with MALA and checked against NUTS; prints a table, writes NetCDF and a picture.",
    )
    demo.add_argument("--out", type=Path, default=Path("out/demo"), help="folder (out/demo)")
    demo.add_argument("--seed", type=int, default=0)
    demo.set_defaults(command=_commands.demo)
    _add_sample(commands)
    _add_resume(commands)
    _add_generate(commands)

    summary = commands.add_parser("summary", help="print the table of a saved run")
    plot = commands.add_parser("plot", help="draw densities and traces of a saved run")
    for command in (summary, plot):
        command.add_argument("run", type=Path, help="NetCDF file, written by shoal sample")
        command.add_argument("--var", action="append", metavar="NAME", help="variable; repeatable")
    summary.add_argument("--all", action="store_true", help=f"more than {SUMMARY_ROWS} rows")
    summary.set_defaults(command=_commands.summary)
    plot.add_argument("--out", type=Path, help="picture to write; by default beside the file, .png")
    plot.add_argument(
        "--kind", choices=("overview", "forest", "statistics"), default="overview",
        help="densities and traces, intervals, or the sampler's statistics",
    )  # fmt: skip
    plot.set_defaults(command=_commands.plot)
    return parser


def _add_sample(commands: "argparse._SubParsersAction[_Parser]") -> None:
    sample = commands.add_parser(
        "sample",
        help="sample a NumPyro model from a Python file",
        description="Sample the NumPyro model that is the function MODEL in FILE.",
    )
    sample.add_argument("model", metavar="FILE:MODEL", help="such as model.py:model")
    sample.add_argument(
        "--data", type=Path, metavar="PATH",
        help="the model's arguments by name: arrays of an .npz, columns of a .csv, keys of a .json",
    )  # fmt: skip
    sample.add_argument("--sampler", choices=SAMPLERS, default="nuts")
    sample.add_argument("--chains", type=_count(1), default=4, metavar="N")
    sample.add_argument("--warmup", type=_count(0), default=1000, metavar="N", help="steps")
    sample.add_argument(
        "--samples", type=_count(1), default=1000, metavar="N", help="draws to keep, each chain"
    )
    sample.add_argument("--thin", type=_count(1), default=1, metavar="N", help="steps per draw")
    sample.add_argument("--seed", type=int, default=0)
    sample.add_argument("--tune-metric", choices=("diagonal", "dense", "none"), default="diagonal")
    sample.add_argument("--out", type=Path, default=Path("run.nc"), help="file to write (run.nc)")
    sample.add_argument(
        "--checkpoint", type=Path, metavar="DIR",
        help="folder to save the run to; the same command, or shoal resume DIR, continues it",
    )  # fmt: skip
    sample.add_argument(
        "--save-every", type=_seconds, metavar="SECONDS", help="time between two saves (10)"
    )
    _add_conduct(sample)
    sample.set_defaults(command=_commands.sample)


def _add_resume(commands: "argparse._SubParsersAction[_Parser]") -> None:
    resume = commands.add_parser(
        "resume",
        help="continue a run of shoal sample --checkpoint DIR",
        description="Continue a run that was interrupted or killed, or make it longer. The draws "
        "are those of a run that was never interrupted, bit for bit. The model's file is run "
        "again; data and options are those that the folder holds.",
    )
    resume.add_argument("checkpoint", type=Path, metavar="DIR", help="folder of the run")
    resume.add_argument(
        "--samples", type=_count(1), metavar="N", help="draws in all, each chain; as before"
    )
    resume.add_argument("--out", type=Path, help="file to write; as before")
    _add_conduct(resume)
    resume.set_defaults(command=_commands.resume)


def _add_generate(commands: "argparse._SubParsersAction[_Parser]") -> None:
    generate = commands.add_parser(
        "generate",
        help="draw handwritten digits from a diffusion model",
        description="Draw images from the network that comes with the package, which was trained "
        "on the handwritten digits of scikit-learn; prints a table and writes a picture.",
    )
    generate.add_argument("model", choices=("digits",), help="the network")
    generate.add_argument("--solver", choices=SOLVERS, default="dpm-solver-v3")
    generate.add_argument(
        "--steps", type=_count(1), default=8, metavar="N",
        help="evaluations of the denoiser for each image (8)",
    )  # fmt: skip
    generate.add_argument("--num", type=_count(1), default=100, metavar="N", help="images (100)")
    generate.add_argument(
        "--label", type=int, choices=range(10), metavar="K",
        help="draw this digit alone; by default 0 to 9 in turn",
    )  # fmt: skip
    generate.add_argument(
        "--guidance", type=_weight, default=1.0, metavar="W",
        help="weight of the label: 0 ignores it, 1 is the model (1), more is more typical; other "
        "than 1, each evaluation calls the network twice",
    )  # fmt: skip
    generate.add_argument("--grid", choices=GRIDS, default="logsnr", help="spacing of the steps")
    generate.add_argument("--seed", type=int, default=0)
    generate.add_argument(
        "--checkpoint", type=Path, metavar="DIR",
        help="folder to save the run to, batch by batch; the same command continues it",
    )  # fmt: skip
    generate.add_argument(
        "--out", type=Path, default=Path("grid.png"),
        help="file to write (grid.png): a picture, or with .npz the images as arrays",
    )  # fmt: skip
    _add_conduct(generate)
    generate.set_defaults(command=_commands.generate)


def _add_conduct(command: _Parser) -> None:
    command.add_argument("--quiet", action="store_true", help="no live progress")
    command.add_argument("--traceback", action="store_true", help="show where a run failed")
    command.add_argument(
        "--cache", action="store_true", help="keep compiled programs for the next run"
    )


def _seconds(text: str) -> float:
    value = float(text)
    if not 0 <= value < float("inf"):
        raise argparse.ArgumentTypeError(f"must be a number of seconds, got {text}")
    return value


def _weight(text: str) -> float:
    value = float(text)
    if not 0 <= value < float("inf"):
        raise argparse.ArgumentTypeError(f"must be a number of at least 0, got {text}")
    return value


def _count(lowest: int) -> type:
    def count(text: str) -> int:
        value = int(text)
        if value < lowest:
            raise argparse.ArgumentTypeError(f"must be at least {lowest}, got {value}")
        return value

    count.__name__ = "integer"
    return count  # type: ignore[return-value]


if __name__ == "__main__":
    sys.exit(main())
