"""The rows of a sweep as resolved configs. Hydra takes a quarter of a second for one; a sweep may have a thousand."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from copy import deepcopy
from functools import cache

from hydra.core.config_loader import ConfigLoader
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from hydra.errors import CompactHydraException, ConfigCompositionException
from omegaconf import DictConfig, OmegaConf, open_dict
from omegaconf.errors import MissingMandatoryValue, OmegaConfBaseException

from mal.config import Config
from mal.errors import ConfigError, MalError


@contextmanager
def as_sentences() -> Iterator[None]:
    """Turn what a user can mend into a CompactHydraException.

    Raises:
        CompactHydraException: for a MalError, or a value that is missing.
    """
    try:
        yield
    except MissingMandatoryValue as error:
        raise CompactHydraException(f"error: {error.full_key} has no value; give {error.full_key}=VALUE") from error
    except MalError as error:
        raise CompactHydraException(f"error: {error}") from error


def with_choices(loader: ConfigLoader, job_overrides: Sequence[Sequence[str]]) -> list[list[str]]:
    """The overrides of each row, with what a table's row stands for (`row:` in its file) among them.

    A row chooses its data set and segmenter in its defaults, which those of local.yaml outrank; among the overrides it
    has the last word.

    Raises:
        ConfigError: the command chooses something else.
    """
    parser = OverridesParser.create(config_loader=loader)
    chosen = [
        {it.key_or_group: it.value() for it in parser.parse_overrides(list(overrides)) if _is_plain(it)}
        for overrides in job_overrides
    ]
    wanted = [_choices(loader, str(here["row"])) if here.get("row") else {} for here in chosen]
    for here, row in zip(chosen, wanted, strict=True):
        for group, name in row.items():
            if (other := here.get(group, name)) != name:
                fitting = [str(a["row"]) for a, b in zip(chosen, wanted, strict=True) if b.get(group) == other]
                rows = f", or choose those of it: row={','.join(dict.fromkeys(fitting))}" if fitting else ""
                raise ConfigError(
                    f"row={here['row']} is of {group}={name}, but the command says {group}={other}: a table's rows "
                    f"bring their own; leave {group}= out{rows}"
                )
    return [
        [*overrides, *(f"{group}={name}" for group, name in row.items() if group not in here)]
        for overrides, here, row in zip(job_overrides, chosen, wanted, strict=True)
    ]


@cache
def _choices(loader: ConfigLoader, row: str) -> dict[str, str]:
    found = loader.repository.load_config(f"row/{row}")  # type: ignore[attr-defined]
    return {} if found is None else dict(found.config.get("row") or {})


def compose_rows(loader: ConfigLoader, sweep: DictConfig, job_overrides: Sequence[Sequence[str]]) -> list[Config]:
    """Each row's config, as Hydra would compose it.

    Overrides that choose files (encoder=mae_b), add or delete keys are composed once for all rows that share them;
    those that set a value (seed=3) come after any file anyway, and are applied to a copy.

    Args:
        loader: of Hydra's context.
        sweep: the config of the sweep, with `hydra` in it.
        job_overrides: one list a row.

    Raises:
        ConfigCompositionException, MissingMandatoryValue: from Hydra and OmegaConf.
    """
    parser = OverridesParser.create(config_loader=loader)
    is_group = cache(lambda key: bool(loader.get_group_options(key)))  # Hydra copies a whole config to answer that
    composed: dict[tuple[str, ...], DictConfig] = {}
    rows: list[Config] = []
    for overrides in job_overrides:
        parsed = list(zip(overrides, parser.parse_overrides(overrides=list(overrides)), strict=True))
        values = [override for _, override in parsed if _is_plain(override) and not is_group(override.key_or_group)]
        files = tuple(text for text, override in parsed if override not in values)
        if files not in composed:
            composed[files] = loader.load_sweep_config(sweep, list(files))
            with open_dict(composed[files]):
                del composed[files]["hydra"]
        row = deepcopy(composed[files])
        for override in values:
            _set(row, override)
        rows.append(OmegaConf.to_object(row))  # type: ignore[arg-type]
    return rows


def _is_plain(override: Override) -> bool:
    return override.package is None and not (override.is_add() or override.is_force_add() or override.is_delete())


def _set(row: DictConfig, override: Override) -> None:
    try:
        OmegaConf.update(row, override.key_or_group, override.value(), merge=True)
    except OmegaConfBaseException as error:
        raise ConfigCompositionException(f"Could not override '{override.key_or_group}'.\n{error}") from error
