"""Never run, only type-checked: our parts fit their protocols."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from neows_async.lake.staging import LakeFile, LakeStage
    from neows_async.lake.storage.interface import Storage
    from neows_async.lake.storage.local import LocalStorage
    from neows_async.lake.storage.object_store import ObjectStorage
    from neows_async.outputs.aggregate_files import CsvAggregates, JsonAggregates
    from neows_async.outputs.close_approaches import CloseApproachesByYear, CloseApproachesWithin
    from neows_async.outputs.parquet import ParquetSink
    from neows_async.outputs.quarantine import QuarantineSink
    from neows_async.pacing.quota_store import MemoryQuotaStore, QuotaStore, SqliteQuotaStore
    from neows_async.protocols import (
        AggregateWriter,
        Aggregator,
        IdleAware,
        Sink,
        Source,
        Stage,
        StagedFile,
        StoredSource,
    )
    from neows_async.sandbox.catalogue import Catalogue, RecordedPages, SyntheticCatalogue
    from neows_async.sources.archive import ArchiveSource
    from neows_async.sources.nasa import NasaSource
    from neows_async.testing import ListSink, ListSource
    from neows_async.testing.faulty_storage import CountingStorage

    def sources(one: NasaSource, two: ArchiveSource, three: ListSource) -> list[Source]:
        return [one, two, three]

    def optional_methods_of_sources(one: NasaSource, two: ArchiveSource) -> tuple[IdleAware, StoredSource]:
        return one, two

    def sinks(one: ParquetSink, two: QuarantineSink, three: ListSink) -> list[Sink]:
        return [one, two, three]

    def aggregators(one: CloseApproachesWithin, two: CloseApproachesByYear) -> list[Aggregator]:
        return [one, two]

    def aggregate_writers(one: JsonAggregates, two: CsvAggregates) -> list[AggregateWriter]:
        return [one, two]

    def storages(one: LocalStorage, two: ObjectStorage, three: CountingStorage) -> list[Storage]:
        return [one, two, three]

    def quota_stores(one: MemoryQuotaStore, two: SqliteQuotaStore) -> list[QuotaStore]:
        return [one, two]

    def stages(one: LakeStage, two: LakeFile) -> tuple[Stage, StagedFile]:
        return one, two

    def catalogues(one: SyntheticCatalogue, two: RecordedPages) -> list[Catalogue]:
        return [one, two]
