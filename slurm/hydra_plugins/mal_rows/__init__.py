"""Sweeps over the rows that an experiment lists: Hydra's basic sweeper, which knows what `row=NAME` stands for."""

from collections.abc import Mapping, Sequence

from hydra._internal.core_plugins.basic_sweeper import BasicSweeper
from hydra.core.override_parser.types import Override


class RowSweeper(BasicSweeper):
    """Sweeps as `hydra/sweeper=basic` does, with each row's overrides in the place of `row=`: see `with_rows`."""

    def __init__(
        self,
        max_batch_size: int | None,
        params: Mapping[str, str] | None = None,
        rows: Mapping[str, Sequence[str]] | None = None,
    ) -> None:
        self.rows = dict(rows or {})
        every = {"row": ",".join(self.rows)} if self.rows else {}
        super().__init__(max_batch_size, every | dict(params or {}))

    def split_arguments(  # type: ignore[override]  # Hydra's is static
        self, overrides: list[Override], max_batch_size: int | None
    ) -> list[list[list[str]]]:
        """The overrides of each job, in batches.

        Raises:
            CompactHydraException: there is no such row, or the command contradicts it.
        """
        from slurm.rows import as_sentences, with_rows  # here, because Hydra scans this file at every start

        assert self.hydra_context is not None
        loader, batches = self.hydra_context.config_loader, super().split_arguments(overrides, max_batch_size)
        with as_sentences():
            return [with_rows(loader, self.rows, batch) for batch in batches]
