"""The ``shoal`` command. It reads its arguments before it imports anything heavy.

Exit codes: 0 all went well, 1 a run failed, 2 the command was used wrongly, 130 interrupted.
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

from shoal._version import __version__

if TYPE_CHECKING:
    from shoal.inference.result import Result

SAMPLERS = ("nuts", "mclmc", "mala", "ula", "baoab", "obabo")
_SUMMARY_ROWS = 60


class UsageError(Exception):
    """The command was given what it cannot use; the message is one line for the user."""


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
        options.command(options)
    except UsageError as error:
        return _fail(options, error, 2)
    except KeyboardInterrupt:
        return _fail(options, "interrupted", 130)
    except Exception as error:
        if getattr(options, "traceback", False):
            raise
        return _fail(options, f"{_place(options, error)}{type(error).__name__}: {error}", 1)
    return 0


def _fail(options: argparse.Namespace, error: object, code: int) -> int:
    print(f"shoal {options.name}: {' '.join(str(error).split())}", file=sys.stderr)
    return code


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
    demo.set_defaults(command=_demo)
    _add_sample(commands)

    summary = commands.add_parser("summary", help="print the table of a saved run")
    plot = commands.add_parser("plot", help="draw densities and traces of a saved run")
    for command in (summary, plot):
        command.add_argument("run", type=Path, help="NetCDF file, written by shoal sample")
        command.add_argument("--var", action="append", metavar="NAME", help="variable; repeatable")
    summary.add_argument("--all", action="store_true", help=f"more than {_SUMMARY_ROWS} rows")
    summary.set_defaults(command=_summary)
    plot.add_argument("--out", type=Path, help="picture to write; by default beside the file, .png")
    plot.add_argument(
        "--kind", choices=("overview", "forest", "statistics"), default="overview",
        help="densities and traces, intervals, or the sampler's statistics",
    )  # fmt: skip
    plot.set_defaults(command=_plot)
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
    sample.add_argument("--quiet", action="store_true", help="no live progress")
    sample.add_argument("--traceback", action="store_true", help="show where a run failed")
    sample.set_defaults(command=_sample)


def _count(lowest: int) -> type:
    def count(text: str) -> int:
        value = int(text)
        if value < lowest:
            raise argparse.ArgumentTypeError(f"must be at least {lowest}, got {value}")
        return value

    count.__name__ = "integer"
    return count  # type: ignore[return-value]


def _demo(options: argparse.Namespace) -> None:
    _make_folder(options.out)
    from shoal.inference.demo import demo

    demo(options.out, options.seed)


def _sample(options: argparse.Namespace) -> None:
    if not options.out.parent.is_dir():
        raise UsageError(f"--out {options.out}: there is no folder {options.out.parent}")
    from shoal.inference.files import FileError, check_arguments, load_data, load_model

    try:
        model = load_model(options.model)
        data = load_data(options.data) if options.data else {}
        check_arguments(model, options.model, data, options.data)
    except FileError as error:
        raise UsageError(error) from error
    import jax

    from shoal.inference import sample

    result = sample(
        jax.random.key(options.seed), model, options.sampler, model_kwargs=data,
        num_chains=options.chains, num_warmup=options.warmup, num_samples=options.samples,
        thin=options.thin, progress=not options.quiet,
        tune_metric=None if options.tune_metric == "none" else options.tune_metric,
    )  # fmt: skip
    path = result.save(options.out)
    _print(result, None, _SUMMARY_ROWS)
    print(f"\nWrote {path}. Next: shoal plot {path}")


def _summary(options: argparse.Namespace) -> None:
    result = _load(options)
    _print(result, options.var, None if options.all else _SUMMARY_ROWS)


def _plot(options: argparse.Namespace) -> None:
    result = _load(options)
    from shoal.inference import plot

    path = options.out or options.run.with_suffix(".png")
    if not path.parent.is_dir():
        raise UsageError(f"--out {path}: there is no folder {path.parent}")
    if options.kind == "statistics":
        figure = plot.statistics(result)
    else:
        figure = getattr(plot, options.kind)(result, options.var)
    known = figure.canvas.get_supported_filetypes()
    if path.suffix[1:].lower() not in known:
        raise UsageError(f"--out {path}: the name must end in one of {', '.join(sorted(known))}")
    figure.savefig(path)
    print(f"Wrote {path}")


def _load(options: argparse.Namespace) -> "Result":
    from shoal.inference.result import Result

    try:
        result = Result.load(options.run)
    except (FileNotFoundError, ValueError) as error:
        raise UsageError(error) from error
    unknown = sorted(set(options.var or ()) - set(result.posterior))
    if unknown:
        raise UsageError(f"--var {unknown[0]}: {options.run} holds {', '.join(result.posterior)}")
    return result


def _print(result: "Result", names: Sequence[str] | None, max_rows: int | None) -> None:
    from shoal.inference.summary import facts, summarize

    summary = summarize(result, names)
    print(facts(result))
    print(summary.table(max_rows))
    if max_rows is not None and max_rows < len(summary.names):
        print("(shoal summary --all shows every row)")
    print(summary.verdict())
    trouble = result.report()
    if trouble:
        print(trouble)


def _make_folder(path: Path) -> None:
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UsageError(f"--out {path}: cannot make this folder ({error.strerror})") from error


if __name__ == "__main__":
    sys.exit(main())
