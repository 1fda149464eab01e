"""Networks, what they are trained on, and how; the weights of digits; files of images.

Statistical checks have fixed keys and a threshold of 5.2 standard errors (two-sided p 2e-7).
"""

import functools
import gzip
import struct
from pathlib import Path

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from shoal.models.denoisers import pretrained, train_digits
from shoal.models.denoisers.data import digits_data, fashion_mnist
from shoal.models.denoisers.losses import (
    LOSSES,
    noise_levels,
    residual_penalty,
    row_losses,
    step_variance,
    weight,
)
from shoal.models.denoisers.network import PreconditionedNetwork, residual_mlp
from shoal.models.denoisers.training import averaged, drop_labels, held_out_loss, train
from shoal.sampling.core.denoiser import convert

# Root mean square per pixel; the data alone have 0.75.
LARGEST_ERRORS = {0.02: 0.02, 0.1: 0.08, 0.5: 0.23, 2.0: 0.40, 20.0: 0.46}
pytestmark = pytest.mark.quick_compiler
KEY = jax.random.key(3)
FORMS = {"flow": lambda s: (1 / (1 + s), s / (1 + s)), "velocity": lambda s: (1, s)}


class Linear(eqx.Module):
    """F(x, noise) = a x + b noise + c."""

    weights: jax.Array

    def __call__(self, x, noise, labels):
        a, b, c = self.weights
        return a * x + b * noise[:, None] + c


def mean_of_two_points(x, noise, labels):
    """Give the F whose D is tanh(x / sigma²): the posterior mean of -1 and 1, for s = 1."""
    sigma = jnp.exp(4 * noise)[:, None]
    total = jnp.hypot(sigma, 1.0)
    return (jnp.tanh(x * total / sigma**2) - x / total) * total / sigma


TWO_POINTS = PreconditionedNetwork(mean_of_two_points, 1.0)
SMALL = residual_mlp(jax.random.key(0), 3, 4, sigma_data=1.0, width=4, num_blocks=1)


def z(values):
    return np.mean(values, 0) / np.std(values, 0) * len(values) ** 0.5


def z_of_the_best_network(key, loss):
    """For N(0, s²) F = 0 has gradient zero; inputs and targets of F have variance one."""
    num, sigma_data = 20_000, 0.6
    key_data, key = jax.random.split(key)
    data = sigma_data * jax.random.normal(key_data, (num, 1))
    labels = jnp.zeros(num, int)

    def rows(weights):
        network = PreconditionedNetwork(Linear(weights), sigma_data)
        return row_losses(key, network, data, labels, loss)

    zero = jnp.zeros(3)
    slopes, value, identity = jax.jit(
        lambda: (jax.jacfwd(rows)(zero), rows(zero), rows(zero.at[0].set(1.0)))
    )()
    moments = np.stack([value - 1, identity - 2], 1) if loss == "denoising" else slopes[:, :0]
    return z(np.concatenate([slopes, moments], 1).astype(np.float64))


@pytest.mark.parametrize("loss", LOSSES)
def test_the_best_network(loss):
    assert np.max(np.abs(z_of_the_best_network(KEY, loss))) < 5.2


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("loss", LOSSES)
def test_the_loss_is_the_error_of_its_form(loss):
    sigma, data, noise, sigma_data = jnp.array([0.01, 0.7, 30.0]), 0.4, -0.3, 0.6
    guess = 0.9
    if loss == "denoising":
        out = sigma * sigma_data / jnp.hypot(sigma, sigma_data)
        error = (guess - data) / out
    else:
        alpha, scale = FORMS[loss](sigma)
        if loss == "velocity":
            alpha, scale = alpha / jnp.hypot(1, sigma), scale / jnp.hypot(1, sigma)
        x = alpha * data + scale * noise
        truth = noise - data if loss == "flow" else alpha * noise - scale * data
        error = convert(guess, x, alpha, scale, "data", loss) - truth
    np.testing.assert_allclose(
        weight(sigma, loss, sigma_data) * (guess - data) ** 2, error**2, rtol=1e-9
    )


@pytest.mark.usefixtures("x64")
def test_laws_of_the_noise_levels():
    """As many levels as quantiles: each quantile of the law is hit to one part in their number."""
    num = 1000
    draw = lambda *law: jnp.sort(noise_levels(KEY, num, *law, jnp.float64))
    uniform = (np.arange(num) + 0.5) / num
    normal = jax.scipy.special.ndtri(uniform)
    middle = slice(20, -20)

    @jax.jit
    def in_units_of_the_law():
        flow = draw("flow", None)
        return (
            (jnp.log(draw("denoising", None)) + 1.2) / 1.2,
            jnp.log(draw("flow", (0.0, 1.0))),
            flow / (1 + flow),
            jnp.arctan(draw("velocity", None)) * 2 / jnp.pi,
        )

    quantiles = ((normal, 0.05), (normal, 0.05), (uniform, 2 / num), (uniform, 0.01))
    cases = zip(in_units_of_the_law(), quantiles, strict=True)
    for ours, (expected, error) in cases:
        np.testing.assert_allclose(ours[middle], expected[middle], atol=error)


def test_training_finds_the_posterior_mean():
    data = jnp.array([[-1.0], [1.0]])
    network = residual_mlp(jax.random.key(0), 1, sigma_data=1.0, width=16, num_blocks=1)
    options = {"num_steps": 300, "batch_size": 128, "ema_decay": 0.98}
    trained = train(KEY, network, data, loss="flow", optimizer=optax.adam(1e-2), **options)
    images = jnp.tile(data, (500, 1))
    best, first, last = (
        float(held_out_loss(KEY, one, images, num_draws=4))
        for one in (TWO_POINTS, network, trained.network)
    )
    assert first > best + 0.3
    assert best - 1e-3 < last < best + 0.1


def test_the_average_of_the_weights():
    weights = {"w": jnp.array([1.0, 3.0])}
    for number, decay in ((0, 0.1), (5, 0.4), (10**6, 0.999)):
        found = averaged({"w": jnp.zeros(2)}, weights, number, 0.999)
        np.testing.assert_allclose(found["w"], (1 - decay) * weights["w"], rtol=1e-4)


def test_steps_are_the_same_however_cut_and_stop_when_told():
    data, labels = jax.random.normal(KEY, (8, 3)), jnp.arange(8) % 4
    seen = []

    def run(num_steps, chunk_size):
        return train(
            KEY, SMALL, data, labels, num_steps=num_steps, chunk_size=chunk_size, batch_size=4,
            optimizer=optax.sgd(0.1), label_dropout=0.5,
            callback=lambda step, network, loss: seen.append((network, loss)) or step >= 6,
        )  # fmt: skip

    whole, cut = run(6, 6), run(99, 1)
    np.testing.assert_allclose(whole.losses, cut.losses, rtol=1e-5)
    np.testing.assert_allclose(seen[0][1], whole.losses.mean(), rtol=1e-6)
    np.testing.assert_allclose([loss for _, loss in seen[1:]], cut.losses, rtol=1e-6)
    for one, other in zip(jax.tree.leaves(whole), jax.tree.leaves(cut), strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-5, atol=1e-6)
    before, average = (seen[i][0].inner.last.weight for i in (-2, -1))
    expected = 0.4 * before + 0.6 * cut.last_network.inner.last.weight
    np.testing.assert_allclose(average, expected, rtol=1e-5)
    # The row for no label is trained: labels are dropped.
    assert jnp.any(whole.network.inner.label_rows[4] != SMALL.inner.label_rows[4])


def z_of_dropped_labels(key):
    labels = drop_labels(key, jnp.arange(10_000) % 3, 0.1, 3)
    dropped = np.asarray(labels == 3)
    assert np.all(np.asarray(labels)[~dropped] == (np.arange(10_000) % 3)[~dropped])
    return z(dropped - 0.1)


def test_labels_are_dropped_with_their_probability():
    assert abs(z_of_dropped_labels(KEY)) < 5.2


@pytest.mark.usefixtures("x64")
def test_variance_of_a_residual():
    """That of a step of DDPM, in its own notation."""
    step = np.arange(1, 100)
    abar = (
        np.cos((step / 100 + 0.008) / 1.008 * np.pi / 2) ** 2
        / np.cos(0.008 / 1.008 * np.pi / 2) ** 2
    )
    beta = 1 - abar[1:] / abar[:-1]
    expected = beta * (1 - abar[:-1]) / (1 - abar[1:])
    found = step_variance(jnp.asarray(0.5 * np.log(abar / (1 - abar))))
    np.testing.assert_allclose(found, [expected[0], *expected], rtol=1e-9)
    sigma = jnp.sqrt((1 - abar[[1, 60]]) / abar[[1, 60]])
    penalty = residual_penalty(jnp.array([[0.01, 5.0], [0.1, 0.0]]), sigma)
    least = np.log(1e12)
    assert penalty == pytest.approx(
        [(1e-4 / (2 * expected[0]) + least) / 2, 1e-2 / (4 * expected[59])], rel=1e-9
    )


def test_the_residual_is_taken_at_the_mean_or_at_a_sample():
    network = PreconditionedNetwork(Linear(jnp.array([0.5, 0.2, 0.1])), 1.0)
    data, law = jnp.ones((100, 1)), ("denoising", (-1.0, 2.0))
    residual = lambda x: 0.1 * (x**2 - 1)

    @jax.jit
    def taken_and_expected():
        plain = row_losses(KEY, network, data, None, *law)
        keys = jax.random.split(KEY)
        sigma = noise_levels(keys[0], 100, *law, jnp.float32)
        x = data + sigma[:, None] * jax.random.normal(keys[1], data.shape)
        angle = np.array([0.008, 0.018]) / 1.008 * np.pi / 2
        least = np.sqrt((np.cos(angle[0]) / np.cos(angle[1])) ** 2 - 1).astype("f4")
        end = jnp.minimum(sigma, least)
        mean = network(x, sigma)
        sample = network(mean + (end / sigma)[:, None] * (x - mean), end)
        return [
            (row_losses(KEY, network, data, None, *law, residual, 2.0, estimate) - plain,
             2 * residual_penalty(residual(point), sigma))
            for estimate, point in (("mean", mean), ("sample", sample))
        ]  # fmt: skip

    for taken, expected in taken_and_expected():
        assert jnp.mean(expected) > 1e-2
        np.testing.assert_allclose(taken, expected, rtol=1e-3, atol=1e-3)


def test_physics_brings_samples_to_the_circle():
    angle = jnp.linspace(0, 2 * jnp.pi, 500)
    circle = jnp.stack([jnp.cos(angle), jnp.sin(angle)], 1)
    residual = lambda x: jnp.sum(x**2, 1, keepdims=True) - 1
    network = residual_mlp(jax.random.key(0), 2, sigma_data=0.7, width=32, num_blocks=1)
    sigma = jnp.geomspace(20.0, 0.01, 25)

    @eqx.filter_jit
    def distance(network):
        def step(x, pair):
            data = network(x, pair[0])
            return data + pair[1] / pair[0] * (x - data), None

        start = sigma[0] * jax.random.normal(KEY, (500, 2))
        end, _ = jax.lax.scan(step, start, (sigma[:-1], sigma[1:]))
        return jnp.abs(residual(network(end, sigma[-1]))).mean()

    options = {"num_steps": 400, "batch_size": 64, "ema_decay": 0.99}
    plain, physics = (
        float(distance(train(KEY, network, circle, residual=given, **options).network))
        for given in (None, residual)
    )
    assert physics < 0.7 * plain


def test_a_loss_that_overflows_is_not_silent():
    network = PreconditionedNetwork(Linear(jnp.zeros(3)), 1.0)
    with pytest.raises(FloatingPointError, match=r"loss is (nan|inf) at step \d+"):
        train(KEY, network, jnp.ones((4, 2)), num_steps=20, optimizer=optax.sgd(1e30))


def test_the_network_of_digits():
    file = Path(pretrained.__file__).with_name("digits.npz")
    assert file.stat().st_size <= 1_000_000
    pretrained.digits_network.cache_clear()
    jax.eval_shape(lambda: pretrained.digits_network().inner.first.weight)
    network = pretrained.digits_network()
    assert network is pretrained.digits_network()
    assert network.inner.first.weight.dtype == jnp.float32
    images, _, test_images, labels = digits_data()
    assert network.sigma_data == pytest.approx(images.std(), rel=1e-6)
    noise = jax.random.normal(KEY, test_images.shape)

    @jax.jit
    def error(sigma, label):
        guess = pretrained.digits(label).fn(test_images + sigma * noise, sigma)
        return jnp.sqrt(jnp.mean((guess - test_images) ** 2))

    for sigma, largest in LARGEST_ERRORS.items():
        assert error(sigma, labels) < largest, sigma
    # At much noise the label is what is known.
    assert error(5.0, labels) < 0.9 * error(5.0, None)


def test_labels_of_a_denoiser():
    inner = eqx.tree_at(
        lambda inner: (inner.last.weight, inner.blocks[0].modulation.weight),
        SMALL.inner,
        (jnp.arange(12.0).reshape(3, 4), jnp.ones((8, 4))),
    )
    network = eqx.tree_at(lambda network: network.inner, SMALL, inner)
    x, sigma = jax.random.normal(KEY, (2, 3)), jnp.float32(0.5)
    rows = network(x, sigma, jnp.array([1, 4]))
    one, none = network.as_denoiser(1), network.as_denoiser()
    np.testing.assert_allclose(one.fn(x, sigma)[0], rows[0], rtol=1e-5)
    np.testing.assert_allclose(none.fn(x, sigma)[1], rows[1], rtol=1e-5)
    np.testing.assert_allclose(network.as_denoiser([1, 4]).fn(x, sigma), rows, rtol=1e-5)
    np.testing.assert_allclose(network(x, jnp.array([0.5, 0.5])), none.fn(x, sigma), rtol=1e-5)
    assert jnp.abs(one.fn(x, sigma) - none.fn(x, sigma)).max() > 1e-3
    with pytest.raises(ValueError, match=r"label .* 2 particles.*\(3,\)"):
        network.as_denoiser([1, 2, 3]).fn(x, sigma)


def test_the_script_writes_a_network(tmp_path, capsys, monkeypatch):
    small = functools.partial(residual_mlp, width=8, num_blocks=1)
    monkeypatch.setattr(train_digits, "residual_mlp", small)
    train_digits.main(["--out", str(tmp_path / "digits.npz"), "--steps", "2"])
    assert "loss on held-out digits: " in capsys.readouterr().out
    network = pretrained.load_network(tmp_path / "digits.npz")
    assert network.num_labels == 10
    assert network.inner.last.weight.shape == (64, 8)


def write_idx(path, array):
    header = bytes([0, 0, 8, array.ndim]) + struct.pack(f">{array.ndim}I", *array.shape)
    path.write_bytes(gzip.compress(header + array.tobytes()))


def test_fashion_mnist_reads_what_the_package_holds(tmp_path):
    rng = np.random.default_rng(0)
    arrays = {}
    for part, num in (("train", 3), ("t10k", 2)):
        arrays[f"{part}-images-idx3-ubyte.gz"] = rng.integers(0, 256, (num, 4, 5), np.uint8)
        arrays[f"{part}-labels-idx1-ubyte.gz"] = np.arange(num, dtype=np.uint8)
    for name, array in arrays.items():
        write_idx(tmp_path / name, array)
    images, labels, test_images, test_labels = fashion_mnist(tmp_path)
    expected = arrays["train-images-idx3-ubyte.gz"].reshape(3, 20) / 127.5 - 1
    np.testing.assert_allclose(images, expected, atol=1e-6)
    assert (images.dtype, labels.dtype) == (np.float32, np.int32)
    assert (test_images.shape, test_labels.tolist()) == ((2, 20), [0, 1])

    name = "t10k-labels-idx1-ubyte.gz"
    good = (tmp_path / name).read_bytes()
    short = gzip.compress(gzip.decompress(good)[:-1])
    other = gzip.compress(b"\0\0\x09" + gzip.decompress(good)[3:])
    for damaged, says in (
        (good[:-9], "damaged"), (b"text", "damaged"), (short, "holds 1"), (other, "no IDX file"),
    ):  # fmt: skip
        (tmp_path / name).write_bytes(damaged)
        with pytest.raises(ValueError, match=f"{name}.*{says}"):
            fashion_mnist(tmp_path)
    write_idx(tmp_path / name, np.arange(3, dtype=np.uint8))
    with pytest.raises(ValueError, match="2 t10k images but 3 labels"):
        fashion_mnist(tmp_path)
