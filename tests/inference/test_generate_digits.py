"""``shoal generate digits``: from the command to the file."""

import signal
from pathlib import Path

import jax
import numpy as np
import pytest

from shoal.inference import _generate_digits, _work, cli, generate, pictures
from shoal.inference.progress import Progress
from shoal.models.denoisers import digits_network
from shoal.sampling import diffusion

pytestmark = pytest.mark.quick_compiler


def command(*words: str) -> int:
    return cli.main(["generate", "digits", "--quiet", *words])


def test_the_default_solver_draws_a_picture_of_digits(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert command("--num", "30", "--out", str(tmp_path / "grid.png")) == 0
    said = capsys.readouterr().out
    rows = dict(line.split("  ", 1) for line in said.splitlines() if "  " in line)
    assert rows["solver"].strip() == "dpm-solver-v3, grid logsnr"
    assert rows["network calls"].strip() == "8 per image"
    # Of 30 images at least 27 are seen as what they should be.
    assert float(rows["class accuracy"].split("%")[0]) >= 90
    assert (tmp_path / "grid.png").read_bytes()[1:4] == b"PNG"


def test_guided_images_of_one_digit_as_arrays(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "four.npz"
    words = ("--solver", "ddim", "--steps", "6", "--guidance", "2", "--label", "4")
    assert command(*words, "--num", "11", "--grid", "karras", "--out", str(out)) == 0
    said = capsys.readouterr().out
    assert "12 per image" in said
    with np.load(out) as arrays:
        assert arrays["samples"].shape == (11, 64)
        np.testing.assert_array_equal(arrays["labels"], np.full(11, 4))
        assert np.abs(arrays["samples"]).max() < 1.5


def test_the_same_command_continues_the_run_of_a_folder(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupt(progress: Progress) -> None:
        done.append(progress.done)
        if len(done) == 1:
            signal.raise_signal(signal.SIGINT)

    done: list[int] = []
    in_batches = lambda *words, **options: generate(
        *words, **{**options, "progress": interrupt, "batch_size": 8}
    )
    monkeypatch.setattr(_work, "CHUNK_SECONDS", 0.0)  # one batch in every chunk
    monkeypatch.setattr(_generate_digits, "generate", in_batches)
    monkeypatch.chdir(tmp_path)
    words = ("--solver", "ddim", "--guidance", "0", "--num", "30", "--checkpoint", "run")
    assert command(*words, "--steps", "2", "--out", "a.npz") == 130
    said = capsys.readouterr().err
    assert "interrupted after 16 of 30 samples\n" in said
    assert "To continue: the same command again\n" in said
    assert command(*words, "--steps", "2", "--out", "b.npz") == 0
    assert done == [1, 2, 3, 4]
    first, whole = (np.load(name)["samples"] for name in ("a.npz", "b.npz"))
    assert len(whole) == 30
    np.testing.assert_array_equal(first, whole[:16])
    capsys.readouterr()
    assert command(*words, "--steps", "2", "--seed", "1", "--out", "b.npz") == 2
    assert "run holds a run that differs from this one" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "complaint"),
    [
        (("--label", "10"), "--label: invalid choice: 10"),
        (("--solver", "euler"), "--solver: invalid choice: 'euler'"),
        (("--steps", "0"), "--steps: must be at least 1, got 0"),
        (("--guidance", "nan"), "--guidance: must be a number of at least 0, got nan"),
        (("--out", "grid.txt"), "--out grid.txt: the name must end in .png, .pdf, .svg or .npz"),
        (("--checkpoint", __file__), f"--checkpoint {__file__}: cannot make or use this folder"),
        (("--out", "nowhere/grid.png"), "--out nowhere/grid.png: there is no folder nowhere"),
    ],
)
def test_complaints_are_one_line(
    words: tuple[str, ...], complaint: str, capsys: pytest.CaptureFixture[str]
) -> None:
    try:
        code = command(*words)
    except SystemExit as end:
        code = end.code  # type: ignore[assignment]
    said = capsys.readouterr().err
    assert (code, said.count("\n")) == (2, 1)
    assert complaint in said


def test_every_solver_of_the_command_is_one() -> None:
    network = digits_network()
    for name in set(cli.SOLVERS) - {"dpm-solver-v3"}:
        solver = _generate_digits.make_solver(
            name, jax.random.key(0), network.as_denoiser, diffusion.edm(), None
        )
        assert callable(solver.run)


def test_a_mosaic_has_every_image_in_its_place_and_shows_what_is_lost() -> None:
    images = np.arange(5.0)[:, None, None] * np.ones((5, 2, 3)) / 4
    images[3] = np.nan
    figure = pictures.image_grid(images, columns=2, low=0, high=1, headings=["a", "b"], title="t")
    (ax,) = figure.axes
    mosaic = ax.images[0].get_array()
    assert mosaic.shape == (3 * 3 + 1, 2 * 4 + 1, 3)
    for i, (top, left) in enumerate([(1, 1), (1, 5), (4, 1), (4, 5), (7, 1)]):
        colour = (0.84, 0.37, 0.0) if i == 3 else (i / 4,) * 3
        np.testing.assert_allclose(
            mosaic[top : top + 2, left : left + 3], np.tile(colour, (2, 3, 1))
        )
    np.testing.assert_array_equal(mosaic[7:9, 5:8], 1)
    np.testing.assert_array_equal(mosaic[:, 4], 1)
