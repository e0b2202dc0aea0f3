"""Labels by query: a condition in SQL over the columns of `labels.parquet`, by DuckDB."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from minigpt4_video.errors import LabellingError

AT_ONCE = 10_000


def rows_where(output: Path, condition: str = "") -> Iterator[dict[str, Any]]:
    """The rows of a finished job for which a condition holds, in the order of the plan; all without one. "order by"
    and "limit" may follow it.

    The query sees the one table and nothing else of the machine. Raises LabellingError for a condition that is none.
    """
    import pyarrow.dataset as ds

    table = output / "labels.parquet"
    if not table.is_file():
        raise LabellingError(f"{output} holds no labels.parquet; run the job to its end first")
    if not condition.strip():
        for batch in ds.dataset(table).to_batches(batch_size=AT_ONCE):
            yield from batch.to_pylist()
        return
    try:
        import duckdb
    except ImportError as error:
        raise LabellingError('DuckDB is missing: pip install "minigpt4-video[label]"') from error
    with duckdb.connect() as connection:
        connection.register("labels", ds.dataset(table))
        connection.execute("SET enable_external_access = false; SET lock_configuration = true")
        try:
            statements = connection.extract_statements(f"SELECT * FROM labels WHERE {condition}")
            if len(statements) != 1:
                raise LabellingError("the condition is more than one statement; give what stands behind WHERE")
            connection.execute(statements[0])
            names = [column[0] for column in connection.description or ()]
            while batch := connection.fetchmany(AT_ONCE):
                yield from (dict(zip(names, row, strict=True)) for row in batch)
        except duckdb.Error as error:
            raise LabellingError(f"the condition cannot be used: {' '.join(str(error).split())[:300]}") from error
