"""What a kernel is, how kernels combine, and the user's own function as a kernel."""

import abc
from collections.abc import Callable
from typing import Any, NamedTuple

import equinox as eqx
import jax

from shoal.sampling.core._checks import real_parameter


class Jet(NamedTuple):
    """A kernel's value and its first and second partial derivatives in ``q`` and ``g``.

    Arrays of the shape of ``q``; an entry that is zero everywhere may be the number 0.
    """

    value: Any
    q: Any = 0.0
    g: Any = 0.0
    qq: Any = 0.0
    qg: Any = 0.0
    gg: Any = 0.0


class Kernel(eqx.Module):
    """A positive semi-definite kernel; ``kernel(x, y)`` is its value at one pair of points.

    ``x`` and ``y`` have shape ``(d,)``. For many pairs use `shoal.sampling.core.pairwise`.
    """

    @abc.abstractmethod
    def __call__(self, x: jax.Array, y: jax.Array) -> jax.Array:
        """Return k(x, y), a scalar, for points of shape ``(d,)``."""

    @property
    @abc.abstractmethod
    def has_jet(self) -> bool:
        """Whether the kernel is a function of ``q`` and ``g`` with derivatives in closed form."""

    @property
    @abc.abstractmethod
    def is_radial(self) -> bool:
        """Whether the kernel is a function of ``q`` alone."""

    @property
    def log_slope(self) -> Any:
        """The number f'(q) / f(q) where it is the same for every ``q`` (RBF), otherwise None."""
        return None

    def jet(self, q: jax.Array, g: Any = 0.0) -> Jet:
        """Return value and derivatives at squared distances ``q`` and inner products ``g``.

        Elementwise; a radial kernel does not look at ``g``. Raises ``TypeError`` for a kernel
        that holds a function of the user's.
        """
        raise TypeError(f"{type(self).__name__} has no closed form in distances: {self}")

    def profile(self, q: jax.Array) -> jax.Array:
        """Return f(q) of a radial kernel, elementwise."""
        return self._radial_jet(q).value

    def slope(self, q: jax.Array) -> jax.Array:
        """Return df/dq of a radial kernel, elementwise."""
        return self._radial_jet(q).q

    def curvature(self, q: jax.Array) -> jax.Array:
        """Return d^2f/dq^2 of a radial kernel, elementwise.

        That of ``Matern32`` is infinite at zero; there it is a large finite number, so that
        ``q * curvature(q)`` has its limit, zero.
        """
        return self._radial_jet(q).qq

    def _radial_jet(self, q: jax.Array) -> Jet:
        if not self.is_radial:
            raise ValueError(f"kernel must be a function of the distance alone, got {self}")
        return self.jet(q)

    def __add__(self, other: "Kernel | Callable[..., Any]") -> "Kernel":
        return Sum(self, as_kernel(other)) if callable(other) else NotImplemented

    def __radd__(self, other: Callable[..., Any]) -> "Kernel":
        return Sum(as_kernel(other), self) if callable(other) else NotImplemented

    def __mul__(self, other: Any) -> "Kernel":
        return Product(self, as_kernel(other)) if callable(other) else Scaled(other, self)

    def __rmul__(self, other: Any) -> "Kernel":
        return Product(as_kernel(other), self) if callable(other) else Scaled(other, self)


def as_kernel(kernel: Kernel | Callable[..., Any]) -> Kernel:
    """Return a kernel as it is and any other callable as `Custom`."""
    if isinstance(kernel, Kernel):
        return kernel
    if callable(kernel) and not isinstance(kernel, type):
        return Custom(kernel)
    raise TypeError(f"kernel must be a Kernel or a function k(x, y), got {kernel!r}")


class Custom(Kernel):
    """A user's own kernel ``function(x, y, *parameters) -> scalar`` of two points ``(d,)``.

    It is evaluated pair by pair in blocks and differentiated by JAX, so it costs more than the
    kernels above.

    Parameters
    ----------
    function
        Pure function, part of the compiled program: a new function object compiles anew.
    parameters
        Arrays, floats or pytrees of them: leaves, whose change compiles nothing.
    """

    function: Callable[..., Any] = eqx.field(static=True)
    parameters: tuple[Any, ...]

    def __init__(self, function: Callable[..., Any], *parameters: Any) -> None:
        if not callable(function):
            raise TypeError(f"function must be a callable k(x, y), got {function!r}")
        self.function = function
        self.parameters = parameters

    @property
    def has_jet(self) -> bool:
        """Known only pair by pair: no."""
        return False

    @property
    def is_radial(self) -> bool:
        """Unknown, hence no."""
        return False

    def __call__(self, x: jax.Array, y: jax.Array) -> jax.Array:
        """Return k(x, y), a scalar, for points of shape ``(d,)``."""
        return self.function(x, y, *self.parameters)


class _Pair(Kernel):
    """A combination of two kernels."""

    left: Kernel
    right: Kernel

    @property
    def has_jet(self) -> bool:
        """Whether both have."""
        return self.left.has_jet and self.right.has_jet

    @property
    def is_radial(self) -> bool:
        """Whether both are."""
        return self.left.is_radial and self.right.is_radial


class Sum(_Pair):
    """k1 + k2."""

    def __call__(self, x: jax.Array, y: jax.Array) -> jax.Array:
        """Return k(x, y), a scalar, for points of shape ``(d,)``."""
        return self.left(x, y) + self.right(x, y)

    def jet(self, q: jax.Array, g: Any = 0.0) -> Jet:
        """Return value and derivatives, elementwise."""
        pairs = zip(self.left.jet(q, g), self.right.jet(q, g), strict=True)
        return Jet(*(a + b for a, b in pairs))


class Product(_Pair):
    """k1 * k2."""

    @property
    def log_slope(self) -> Any:
        """The sum of both, where both are constant."""
        left, right = self.left.log_slope, self.right.log_slope
        return None if left is None or right is None else left + right

    def __call__(self, x: jax.Array, y: jax.Array) -> jax.Array:
        """Return k(x, y), a scalar, for points of shape ``(d,)``."""
        return self.left(x, y) * self.right(x, y)

    def jet(self, q: jax.Array, g: Any = 0.0) -> Jet:
        """Return value and derivatives, elementwise."""
        a, b = self.left.jet(q, g), self.right.jet(q, g)
        return Jet(
            a.value * b.value,
            q=a.q * b.value + a.value * b.q,
            g=a.g * b.value + a.value * b.g,
            qq=a.qq * b.value + 2 * a.q * b.q + a.value * b.qq,
            qg=a.qg * b.value + a.q * b.g + a.g * b.q + a.value * b.qg,
            gg=a.gg * b.value + 2 * a.g * b.g + a.value * b.gg,
        )


class Scaled(Kernel):
    """scale * k, with a positive number ``scale``."""

    scale: Any
    kernel: Kernel

    def __init__(self, scale: Any, kernel: Kernel) -> None:
        self.scale = real_parameter("scale", scale, 0.0)
        self.kernel = as_kernel(kernel)

    @property
    def has_jet(self) -> bool:
        """Whether the kernel that is scaled has."""
        return self.kernel.has_jet

    @property
    def is_radial(self) -> bool:
        """Whether the kernel that is scaled is."""
        return self.kernel.is_radial

    @property
    def log_slope(self) -> Any:
        """That of the kernel that is scaled."""
        return self.kernel.log_slope

    def __call__(self, x: jax.Array, y: jax.Array) -> jax.Array:
        """Return k(x, y), a scalar, for points of shape ``(d,)``."""
        return self.scale * self.kernel(x, y)

    def jet(self, q: jax.Array, g: Any = 0.0) -> Jet:
        """Return value and derivatives, elementwise."""
        return Jet(*(self.scale * entry for entry in self.kernel.jet(q, g)))
