"""The server of `foveate serve` as an application of Ray Serve, with as many replicas as wanted."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from foveate.cli.serve import load_engine, read_engine, read_settings
from foveate.errors import InputError, MissingExtra
from foveate.integrations.ray.actors import use_threads

__all__ = ["app", "deployment"]

RAYS = "Ray's; give it to serve.start, or in Serve's config file"
OTHERS = {"host": RAYS, "port": RAYS, "ui": "for `foveate serve` alone; leave it out"}
WAITING = 4096  # requests at a replica: it is the engine that refuses what is too much


def app(args: Mapping[str, Any]) -> Any:
    """Return the application, for `serve run foveate.integrations.ray:app NAME=VALUE ...`.

    Names are those of `deployment`, and `replicas`, and `cpus` and `gpus` of each.
    """
    given = dict(args)
    replicas, cpus, gpus = (
        _number(name, given.pop(name, default), kind)
        for name, default, kind in (("replicas", 1, int), ("cpus", 1, float), ("gpus", 0, float))
    )
    actor = {"num_cpus": cpus, "num_gpus": gpus}
    return deployment(**given).options(num_replicas=replicas, ray_actor_options=actor).bind()


def deployment(**given: Any) -> Any:
    """Return the deployment of a server, for `serve.run(deployment(...).bind())`.

    It takes the options of `foveate serve` by name (`keep=0.1`, `kv_bytes="2GiB"`), but for host
    and port, which are Ray's, and ui; `.options(...)` of Ray says how many replicas there are, each
    of them with a model, an engine and a budget of its own.
    """
    try:
        from ray import serve
    except ImportError as error:
        raise MissingExtra(f"{error}; it needs: pip install 'foveate[ray,serve]'") from error
    params = _read(given)
    settings = read_settings(params, tuple(params["server_name"] or ()))
    read_engine(params)  # what is wrong is said here, not by a replica that never comes up

    def build() -> Any:
        from foveate.serve import create_app

        use_threads()
        return create_app(load_engine(params), settings)

    server = serve.deployment(serve.ingress(build)())
    return server.options(name="foveate", max_ongoing_requests=WAITING)


def _read(given: Mapping[str, Any]) -> dict[str, Any]:
    """Return all options of `foveate serve`, as the command line reads these."""
    import typer

    from foveate import cli

    command = typer.main.get_command(cli.application(("serve",))).commands["serve"]  # type: ignore[attr-defined]
    flags = [option.name for option in command.params if getattr(option, "is_flag", False)]
    words: list[str] = []
    for name, value in given.items():
        option = "--" + name.replace("_", "-")
        if name in OTHERS:
            raise InputError(f"{name} is {OTHERS[name]}")
        if name in flags and str(value).lower() in ("true", "false"):
            words += [option] if str(value).lower() == "true" else []
        elif value is not None:
            several = value if isinstance(value, list | tuple) else [value]
            words += [word for one in several for word in (option, str(one))]
    try:
        return dict(command.make_context("serve", words).params)
    except Exception as error:
        if hasattr(error, "format_message"):  # Typer has more than one base of its errors
            raise InputError(error.format_message()) from error
        raise


def _number(name: str, value: Any, kind: type[int] | type[float]) -> int | float:
    try:
        number = kind(value)
    except (TypeError, ValueError):
        number = kind(-1)
    if number < 0:
        raise InputError(f"{name}={value!r} is not understood; give a number")
    return number
