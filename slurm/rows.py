"""The rows of a sweep as resolved configs. Hydra takes a quarter of a second for one; a sweep may have a thousand."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from copy import deepcopy
from functools import cache
from typing import Any

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


def with_rows(
    loader: ConfigLoader, rows: Mapping[str, Sequence[str]], jobs: Sequence[Sequence[str]]
) -> list[list[str]]:
    """Each job's overrides, `row=NAME` replaced by those that the experiment lists under that name.

    A setting that the command gives as well (crf.kernel=7) is the command's. What a row chooses from a menu
    (data=lvis) is what the row is, so that the command may not choose something else.

    Args:
        loader: of Hydra's context.
        rows: name → overrides. Where there are none, `row=` stays, and is refused with the rest of the config.
        jobs: one list a job.

    Raises:
        ConfigError: there is no such row, or the command chooses something else.
    """
    parser = OverridesParser.create(config_loader=loader)
    is_group = cache(lambda key: bool(loader.get_group_options(key)))

    def parsed(overrides: Sequence[str]) -> dict[str, Any]:
        return {it.key_or_group: it.value() for it in parser.parse_overrides(list(overrides)) if _is_plain(it)}

    own = {name: dict(zip(parsed(overrides), overrides, strict=True)) for name, overrides in rows.items()}
    menus = {name: {k: v for k, v in parsed(it).items() if is_group(k)} for name, it in rows.items()}
    chosen = [parsed(job) for job in jobs]
    found = []
    for job, here in zip(jobs, chosen, strict=True):
        name = str(here.get("row"))
        if not rows or here.get("row") is None:
            found.append(list(job))
            continue
        if name not in rows:
            raise ConfigError(f"row={name} is not a row of this experiment; choose one of {', '.join(rows)}")
        for group, option in menus[name].items():
            if (other := here.get(group, option)) != option:
                swept = dict.fromkeys(str(it.get("row")) for it in chosen)
                fitting = [row for row in swept if menus.get(row, {}).get(group) == other]
                choice = f", or choose those of it: row={','.join(fitting)}" if fitting else ""
                raise ConfigError(
                    f"row={name} is of {group}={option}, but the command says {group}={other}: a table's rows bring "
                    f"their own; leave {group}= out{choice}"
                )
        added = [override for key, override in own[name].items() if key not in here]
        found.append([*added, *(override for override in job if not override.startswith("row="))])
    return found


def compose_rows(loader: ConfigLoader, sweep: DictConfig, job_overrides: Sequence[Sequence[str]]) -> list[Config]:
    """Each row's config, as Hydra would compose it.

    Overrides that choose files (encoder=mae_b), add or delete keys are composed once for all rows that share them;
    those that set a value (seed=3) come after any file anyway, and are applied to a copy.

    Args:
        loader: of Hydra's context.
        sweep: the config of the sweep, with `hydra` in it.
        job_overrides: one list per row.

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
