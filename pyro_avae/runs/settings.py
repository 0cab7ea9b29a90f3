"""Everything that defines a run, as one frozen, checked dataclass that travels as JSON."""

from collections.abc import Mapping
from dataclasses import MISSING, dataclass, field, fields
from typing import Any, Self

from pyro_avae.errors import InputError, shown_value
from pyro_avae.runs.kinds import Integer, IntegerList, Kind, Number, NumberOr, Optional, Switch, Text
from pyro_avae.runs.migration import Migrations, migrated

__all__ = ["SettingInfo", "Settings", "setting_infos"]

#: Version of the JSON form.
FORMAT = 1
#: From format k to k + 1. A new setting needs none: where it is left out it has its default.
MIGRATIONS: Migrations = {}

_RHO = NumberOr(Number("a number in (-1, 1)", lambda v: -1 < v < 1), ("learned", "learned-per-dimension", "natural"))
_POSITIVE = Number("a finite number above 0", lambda v: v > 0)
_NOT_NEGATIVE = Number("a finite number of at least 0", lambda v: v >= 0)
_WIDTH = Integer(1, 10**6)


@dataclass(frozen=True)
class SettingInfo:
    """What is known of one setting: its name, what it may be, what it means, whether it defines the run, its option."""

    name: str
    kind: Kind
    help: str
    defines_run: bool
    option: str


def _setting(default: Any, kind: Kind, help: str, *, defines_run: bool = True, option: str | None = None) -> Any:
    return field(default=default, metadata={"kind": kind, "help": help, "defines_run": defines_run, "option": option})


@dataclass(frozen=True, kw_only=True)
class Settings:
    """The settings of a run. The defaults are those of the paper's ColorMNIST experiment.

    Two runs with equal settings on one device make equal parameters, bit for bit on a CPU. A method reads what it has
    a use for: ``rho``, ``view``, ``gradient`` and ``num_views`` mean nothing to a plain VAE. Names of methods,
    likelihoods and architectures are looked up where the pair is built, so a method of one's own may have its own.

    Raises:
        InputError: a value of the wrong type or out of range; the message names the setting.

    Example:
        >>> settings = Settings(method="avae", dataset="color-digits", steps=500)
        >>> Settings.from_json(settings.to_json()) == settings
        True
        >>> Settings(lr=-1.0)
        Traceback (most recent call last):
        pyro_avae.errors.InputError: lr: expected a finite number above 0, got -1.0

    Source: Cemgil et al. 2020 (arXiv 2012.03715), appendix; google-deepmind/deepmind-research ``avae/run.sh``.
    """

    method: str = _setting("avae", Text("a method's name or module:function"), "the (model, guide, ELBO) to train")
    dataset: str = _setting("color-digits", Text("a data set's name"), "the images")
    seed: int = _setting(0, Integer(0, 2**32 - 1), "fixes parameters, data order, colours and noise")
    steps: int = _setting(102_000, Integer(1, 10**12), "gradient steps")
    batch_size: int = _setting(64, Integer(1, 10**9), "images in a step, at most all of them")
    lr: float = _setting(1e-4, _POSITIVE, "Adam's learning rate")
    rho: float | str = _setting(0.975, _RHO, "correlation of z and z_aux")
    latent_dim: int = _setting(64, Integer(1, 10**6), "number of latent dimensions")
    obs_variance: float = _setting(0.5, _POSITIVE, "variance of a pixel given z, or where a learned one starts")
    likelihood: str = _setting("gaussian", Text("a likelihood's name"), "distribution of a pixel given z")
    view: str = _setting("sample", Text("a view's name"), "what of the decoder is encoded again: sample or mean")
    gradient: str | None = _setting(
        None,
        Optional(Text("through_z or cut")),
        "through_z or cut; by default through_z where x_aux can be reparametrised, else cut",
    )
    num_views: int = _setting(1, Integer(1, 1000), "links of the chain z, x_aux, z_aux, ...")
    beta: float = _setting(1.0, _POSITIVE, "weight of KL(q(z|x) || p(z))")
    consistency_weight: float = _setting(
        1.0, _POSITIVE, "weight of the terms of every further encoding, or of cr-vae's divergence"
    )
    num_particles: int = _setting(
        1, Integer(1, 10**6), "samples of the guide for each image: averaged, or for iwae the importance samples"
    )
    dreg: bool = _setting(
        False, Switch(), "of iwae: take the doubly reparametrised gradient, of smaller variance, for the encoder"
    )
    guide: str = _setting(
        "gaussian",
        Text("a guide's name"),
        "gaussian: q(z|x); hamiltonian: moved on by leapfrog steps on log p(x, z)",
    )
    leapfrog_steps: int = _setting(5, Integer(1, 1000), "of the Hamiltonian guide")
    tempering: str = _setting("fixed", Text("fixed, free or none"), "of the Hamiltonian guide: fixed, free or none")
    transformation: str = _setting(
        "affine", Text("a transformation's name"), "of cr-vae: how an image is changed: affine, affine-large"
    )
    jacobian_l1: float = _setting(
        0.0, _NOT_NEGATIVE, "weight of the L1 norm of the decoder's Jacobian, added to the loss"
    )
    jacobian_step: float | None = _setting(
        None, Optional(_POSITIVE), "of the Jacobian: forward differences of this step; by default the derivative itself"
    )
    kl_warmup: int = _setting(
        0, Integer(0, 10**12), "steps over which the weights of all KL terms and penalties rise from 0 to their value"
    )
    input_noise: float = _setting(
        0.0, _NOT_NEGATIVE, "standard deviation of the noise that training adds to what is encoded"
    )
    epsilon: float = _setting(
        0.1, Number("a number in (0, 1]", lambda v: 0 < v <= 1), "L-infinity radius of the worst-case view"
    )
    attack_steps: int = _setting(5, Integer(1, 10**4), "gradient steps that find the worst-case view")
    coupling: str = _setting(
        "factorised",
        Text("a coupling's name"),
        "of z and the worst case's encoding: factorised, optimal, pairwise",
    )
    gamma: float = _setting(1.0, _POSITIVE, "strength of the pairwise coupling")
    model: str = _setting(
        "vae",
        Text("a model's name"),
        "vae: pixels independent given z; lossy: each pixel given z and a window of those before it",
    )
    window: tuple[int, ...] = _setting(
        (7, 4), IntegerList(Integer(0, 1000), 2, 2), "of the lossy model: width and rows of what it sees above a pixel"
    )
    prior: str = _setting("gaussian", Text("a prior's name"), "of z: gaussian, N(0, I); flow, an autoregressive flow")
    flow_steps: int = _setting(4, Integer(1, 1000), "of the prior flow")
    flow_hidden: int = _setting(640, _WIDTH, "hidden units of each step of the prior flow")
    free_bits: float = _setting(0.0, _NOT_NEGATIVE, "nats per image that KL(q(z|x) || p(z)) may cost nothing")
    architecture: str = _setting("mlp", Text("an architecture's name"), "kind of encoder and decoder")
    hidden: tuple[int, ...] = _setting(
        (200, 200, 200, 200), IntegerList(_WIDTH, 0, 100), "widths of the hidden layers of the architecture mlp"
    )
    channels: int = _setting(
        32, Integer(1, 4096), "channels of the architecture conv after its first convolution; the decoder has half"
    )
    normalization: str = _setting("none", Text("a normalisation's name"), "of the layers: none, batch, layer, group")
    auxiliary_statistics: str = _setting(
        "batch",
        Text("batch or running"),
        "which statistics batch normalisation uses on views, whose pass updates none: batch or running",
    )
    start_from: str | None = _setting(
        None,
        Optional(Text("a run's folder")),
        "run whose networks are started from; its data set, likelihood and shapes are taken over",
        option="--from",
    )
    image_shape: tuple[int, int, int] = _setting((3, 28, 28), IntegerList(_WIDTH, 3, 3), "channels, height, width")
    limit: int | None = _setting(None, Optional(Integer(1, 10**12)), "train on the first N images only")
    compile: bool | None = _setting(
        None,
        Optional(Switch()),
        "trace and compile the step; by default where 5,000 steps or more make up for the time that it takes",
    )
    precision: str = _setting(
        "32-true",
        Text("32-true, bf16-mixed or 64-true"),
        "32-true; bf16-mixed to compute networks in bfloat16; 64-true to train in float64",
    )
    log_every: int = _setting(100, Integer(1, 10**12), "steps between logged ones", defines_run=False)
    checkpoint_every: int = _setting(1000, Integer(1, 10**12), "steps between checkpoints", defines_run=False)
    keep_every: int | None = _setting(
        None,
        Optional(Integer(0, 10**12)),
        "steps between the parameters that are kept for good, 0 for none; by default ten times in a training",
        defines_run=False,
    )
    data_root: str | None = _setting(
        None,
        Optional(Text("a folder")),
        "folder of the data sets, laid out as torchvision does; by default a cache of downloads",
        defines_run=False,
    )
    builder: str | None = _setting(
        None,
        Optional(Text("module:function")),
        "function that makes (model, guide, ELBO) of these settings",
        defines_run=False,
    )

    def __post_init__(self) -> None:
        for info in setting_infos().values():
            object.__setattr__(self, info.name, info.kind.check(info.name, getattr(self, info.name)))

    def to_json(self) -> dict[str, Any]:
        """A dictionary of plain values for JSON, with the version of the format."""
        values = {info.name: getattr(self, info.name) for info in setting_infos().values()}
        plain = {name: list(value) if isinstance(value, tuple) else value for name, value in values.items()}
        return {"format": FORMAT, **plain}

    @classmethod
    def from_json(cls, document: object) -> Self:
        """The settings in a dictionary as :meth:`to_json` makes it; a setting left out has its default.

        Raises:
            InputError: no dictionary, another format, an unknown setting, or a value that is not allowed.
        """
        if not isinstance(document, Mapping):
            raise InputError(f"settings: expected a JSON object, got {type(document).__name__}")
        values = migrated({"format": FORMAT, **document}, MIGRATIONS, current=FORMAT, what="settings")
        unknown = sorted(map(str, values.keys() - setting_infos().keys()))
        if unknown:
            known = ", ".join(setting_infos())
            raise InputError(f"{shown_value(unknown[0])}: no such setting, the settings are {known}")
        return cls(**values)

    def first_difference(self, other: "Settings") -> str | None:
        """The name of a setting that makes the other run another one, or None. Where the data lie makes none."""
        for name, info in setting_infos().items():
            if info.defines_run and getattr(self, name) != getattr(other, name):
                return name
        return None


def setting_infos() -> dict[str, SettingInfo]:
    """Every setting by name, in the order of :class:`Settings`."""
    return {
        f.name: SettingInfo(f.name, **{**f.metadata, "option": f.metadata["option"] or f"--{f.name.replace('_', '-')}"})
        for f in fields(Settings)
        if f.default is not MISSING
    }
