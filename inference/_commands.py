"""What each command does. Heavy imports are made within, so that ``shoal --help`` is fast."""

import argparse
import os
import shlex
import sys
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from shoal.inference.interruption import Interruption

if TYPE_CHECKING:
    from shoal.inference.files import Order
    from shoal.inference.result import Result

SUMMARY_ROWS = 60
INTERRUPTED = 130


class UsageError(Exception):
    """The command was given what it cannot use; the message is one line for the user."""


def demo(options: argparse.Namespace) -> int:
    """Run the demonstration."""
    with _named("--out", options.out):
        options.out.mkdir(parents=True, exist_ok=True)
    from shoal.inference.demo import demo

    demo(options.out, options.seed)
    return 0


def sample(options: argparse.Namespace) -> int:
    """Sample a model from a file, and keep the run in a folder if asked to."""
    _hush_compiler(options)
    _check_out(options.out)
    if options.save_every is not None and options.checkpoint is None:
        raise UsageError("--save-every says how often to save, but there is no --checkpoint")
    with Interruption() as interruption:
        from shoal.inference.files import FileError, Order, check_arguments, load_data, load_model

        try:
            model = load_model(options.model)
            data = load_data(options.data) if options.data else {}
            check_arguments(model, options.model, data, options.data)
        except FileError as error:
            raise UsageError(error) from error
        order = Order(options.model, options.data, options.out)
        _prepare(options, interruption)
        import jax

        from shoal.inference import Checkpoint, sample

        saving = options.checkpoint and Checkpoint(options.checkpoint)
        if saving and options.save_every is not None:
            saving = saving._replace(every=options.save_every)
        with _readable_complaints(options):
            if saving:
                _note_new(options.checkpoint, order)
            result = sample(
                jax.random.key(options.seed), model, options.sampler, model_kwargs=data,
                num_chains=options.chains, num_warmup=options.warmup, num_samples=options.samples,
                thin=options.thin, progress=not options.quiet, checkpoint=saving,
                tune_metric=None if options.tune_metric == "none" else options.tune_metric,
            )  # fmt: skip
        return _finish(options, result, order, options.samples)


def resume(options: argparse.Namespace) -> int:
    """Continue a run of `sample` from its folder."""
    _hush_compiler(options)
    folder = options.checkpoint
    with Interruption() as interruption:
        from shoal.inference.files import FileError, load_model, read_order

        _check_run(folder)
        try:
            order = read_order(folder)
            # Where the run itself fails, the line of this file is named.
            options.model = order.model
            model = load_model(order.model)
        except FileError as error:
            raise UsageError(error) from error
        order = order._replace(out=options.out or order.out)
        _check_out(order.out)
        _prepare(options, interruption)
        from shoal.inference import checkpoint, resume
        from shoal.inference._recipe import NAME

        with _readable_complaints(options):
            result = resume(folder, model, num_samples=options.samples, progress=not options.quiet)
        total = options.samples or checkpoint.read(folder / NAME).meta["options"]["num_samples"]
        return _finish(options, result, order, total)


def generate(options: argparse.Namespace) -> int:
    """Draw digits from the trained network, and write them."""
    _hush_compiler(options)
    _check_out(options.out)
    with Interruption() as interruption:
        from shoal.inference import GenerationWarning, _generate_digits

        if not _generate_digits.can_write(options.out):
            raise UsageError(f"--out {options.out}: the name must end in .png, .pdf, .svg or .npz")
        _prepare(options, interruption)
        order = _generate_digits.Order(
            options.solver, options.steps, options.num, options.label, options.guidance,
            options.grid, options.seed, options.out, options.checkpoint,
        )  # fmt: skip
        if options.checkpoint is not None:
            from shoal.inference._lock import Lock

            with _named("--checkpoint", options.checkpoint), Lock(options.checkpoint):
                pass
        with _readable_complaints(options):
            warnings.simplefilter("always", GenerationWarning)
            outcome = _generate_digits.generate_digits(order, progress=not options.quiet)
    if outcome != "interrupted":
        return 0
    _say_how_to_continue(options)
    return INTERRUPTED


def summary(options: argparse.Namespace) -> int:
    """Print the table of a saved run."""
    result = _load(options)
    _print(result, options.var, None if options.all else SUMMARY_ROWS)
    return 0


def plot(options: argparse.Namespace) -> int:
    """Draw a saved run."""
    result = _load(options)
    from shoal.inference import plot

    path = options.out or options.run.with_suffix(".png")
    _check_out(path)
    if options.kind == "statistics":
        figure = plot.statistics(result)
    else:
        figure = getattr(plot, options.kind)(result, options.var)
    known = figure.canvas.get_supported_filetypes()
    if path.suffix[1:].lower() not in known:
        raise UsageError(f"--out {path}: the name must end in one of {', '.join(sorted(known))}")
    figure.savefig(path)
    print(f"Wrote {path}")
    return 0


def how_to_continue(options: argparse.Namespace) -> str:
    """Return the command that continues the run of a folder; empty if there is none."""
    folder = getattr(options, "checkpoint", None)
    if folder is None:
        return ""
    if options.name == "generate":
        return "the same command again" if any(folder.glob("state-*.ckpt")) else ""
    return f"shoal resume {shlex.quote(str(folder))}" if (folder / "run.ckpt").is_file() else ""


def _say_how_to_continue(options: argparse.Namespace) -> None:
    if again := how_to_continue(options):
        print(f"To continue: {again}", file=sys.stderr)


def _check_out(path: Path) -> None:
    if not path.parent.is_dir():
        raise UsageError(f"--out {path}: there is no folder {path.parent}")


def _check_run(folder: Path) -> None:
    """Say at once what is missing in a folder that is to be resumed."""
    from shoal.inference._recipe import NAME
    from shoal.inference.files import ORDER

    if not folder.is_dir():
        raise UsageError(f"{folder}: there is no such folder")
    has_order, has_run = ((folder / name).is_file() for name in (ORDER, NAME))
    if has_order and not has_run:
        raise UsageError(
            f"{folder}: its run was stopped before it began; give the command shoal sample again"
        )
    if not has_run:
        raise UsageError(f"{folder}: holds no run (there is no {NAME} in it)")
    if not has_order:
        raise UsageError(
            f"{folder}: holds a run of sample() in Python, not of this command: continue it with "
            "shoal.inference.resume"
        )


def _hush_compiler(options: argparse.Namespace) -> None:
    """Keep XLA, which must be told before it starts, from reporting every cached CPU program.

    It takes two hints of its own on the choice of instructions for features that the machine lacks.
    """
    if options.cache and "jax" not in sys.modules:
        os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")


def _prepare(options: argparse.Namespace, interruption: Interruption) -> None:
    """Set up the compilation cache; end here if that is already wished."""
    if options.cache:
        from shoal.inference.cache import enable_compilation_cache

        try:
            enable_compilation_cache()
        except OSError as error:
            raise UsageError(f"--cache: {error.filename}: {error.strerror}") from error
    if interruption.requested:
        raise KeyboardInterrupt


def _note_new(folder: Path, order: "Order") -> None:
    """Write what `resume` has to know into the folder of a run that is about to begin."""
    from shoal.inference._lock import Lock
    from shoal.inference._recipe import NAME
    from shoal.inference.files import write_order

    with _named("--checkpoint", folder), Lock(folder):
        if not (folder / NAME).exists():
            write_order(folder, order)


@contextmanager
def _named(option: str, path: Path) -> Iterator[None]:
    """Blame an option for a folder that cannot be made or used."""
    try:
        yield
    except BlockingIOError as error:
        raise UsageError(error) from error
    except OSError as error:
        what = "make or use this folder"
        raise UsageError(f"{option} {path}: cannot {what} ({error.strerror})") from error


def _say(options: argparse.Namespace, message: object) -> None:
    print(f"shoal {options.name}: {' '.join(str(message).split())}", file=sys.stderr)


@contextmanager
def _readable_complaints(options: argparse.Namespace) -> Iterator[None]:
    """Show warnings in a line each, and what is wrong with a run's folder as wrong use."""
    from shoal.inference import SamplingWarning
    from shoal.inference.checkpoint import DamagedCheckpoint, ForeignCheckpoint

    def show(message: Any, category: type[Warning], *place: Any) -> None:
        # How far an interrupted run came is said at its end, and how to continue it here.
        if not (category is SamplingWarning and "interrupted" in str(message)):
            _say(options, message)

    with warnings.catch_warnings():
        warnings.simplefilter("always", SamplingWarning)
        warnings.showwarning = show  # type: ignore[assignment]
        try:
            yield
        except (BlockingIOError, DamagedCheckpoint, ForeignCheckpoint) as error:
            raise UsageError(error) from error


def _finish(options: argparse.Namespace, result: "Result", order: "Order", total: int) -> int:
    """Write and print what there is; return the exit code."""
    from shoal.inference.files import write_order

    if options.checkpoint is not None:
        # A run that was there before may have had another file to write.
        write_order(options.checkpoint, order)
    num_draws = next(iter(result.posterior.values())).shape[1]
    if num_draws:
        path = result.save(order.out)
        _print(result, None, SUMMARY_ROWS)
        print(f"\nWrote {path}. Next: shoal plot {path}", flush=True)
    if result.outcome != "interrupted":
        return 0
    said = f"after {num_draws} of {total} draws of each chain"
    if not num_draws:
        said = f"before the first draw: {order.out} is not written"
    print(f"shoal {options.name}: interrupted {said}", file=sys.stderr)
    _say_how_to_continue(options)
    return INTERRUPTED


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
    efficiency = summary.efficiency()
    if efficiency:
        print(efficiency)
    trouble = result.report()
    if trouble:
        print(trouble)
