"""Large values in a table: the same as in files, and what is damaged is written anew."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from rh_agents.core.errors import StoreError
from rh_agents.stores.artifacts import ArtifactStore, FileArtifacts
from tests.services.lossy_proxy import LossyProxy
from tests.services.postgresql import PostgresqlServer
from tests.stores.test_artifacts import (
    DATA,
    DIGEST,
    test_a_sweep_deletes_what_is_neither_used_nor_young,
    test_a_sweep_spares_what_is_put_while_it_is_under_way,
    test_equal_data_is_kept_once,
    test_many_threads_may_put_the_same_and_different_data,
    test_what_is_deleted_is_gone_and_can_be_put_again,
    test_what_is_missing_is_told_with_its_place_and_what_to_do,
    test_what_is_no_digest_names_no_artifact,
    test_what_is_put_is_there_under_its_digest,
    test_what_was_put_since_is_not_deleted,
)

pytest.importorskip("psycopg", reason="psycopg is not installed: pip install 'rh_agents[postgresql]'")

from rh_agents.stores._postgresql.artifacts import TableArtifacts
from rh_agents.stores._postgresql.backend import PostgresqlBackend

__all__ = [
    "test_a_sweep_deletes_what_is_neither_used_nor_young",
    "test_a_sweep_spares_what_is_put_while_it_is_under_way",
    "test_equal_data_is_kept_once",
    "test_many_threads_may_put_the_same_and_different_data",
    "test_what_is_deleted_is_gone_and_can_be_put_again",
    "test_what_is_missing_is_told_with_its_place_and_what_to_do",
    "test_what_is_no_digest_names_no_artifact",
    "test_what_is_put_is_there_under_its_digest",
    "test_what_was_put_since_is_not_deleted",
]


@pytest.fixture
def artifacts(postgresql_url: str) -> Iterator[ArtifactStore]:
    backend = PostgresqlBackend(postgresql_url)
    backend.writing().close()
    yield backend.artifacts
    backend.close()


def test_damage_in_the_table_is_seen_and_mended_by_the_next_put(
    artifacts: ArtifactStore, postgresql_url: str, postgresql_server: PostgresqlServer
) -> None:
    artifacts.put(DATA)
    schema = postgresql_url.rpartition("=")[2]
    postgresql_server.execute(f"UPDATE {schema}.artifact SET data = 'x'")
    with pytest.raises(StoreError, match=rf"postgresql://.*{DIGEST} is damaged"):
        artifacts.get(DIGEST)
    artifacts.put(DATA)
    assert artifacts.get(DIGEST) == DATA


def test_more_artifacts_than_one_page_are_all_listed(artifacts: ArtifactStore, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("rh_agents.stores._postgresql.artifacts._AT_ONCE", 3)
    for count in range(8):
        assert len(list(artifacts.digests())) == count
        artifacts.put(b"%d" % count)


def test_artifacts_are_in_a_table_unless_another_place_is_named(tmp_path: object) -> None:
    url = "postgresql://nobody@127.0.0.1:1/nowhere"
    assert isinstance(PostgresqlBackend(url).artifacts, TableArtifacts)
    for backend in (PostgresqlBackend(f"{url}?artifacts={tmp_path}"), PostgresqlBackend(url, artifacts=str(tmp_path))):
        assert isinstance(backend.artifacts, FileArtifacts)
        assert str(backend.artifacts.directory) == str(tmp_path)


def test_what_is_put_or_read_when_the_way_to_the_server_breaks_is_put_or_read_again(
    postgresql_url: str, postgresql_server: PostgresqlServer
) -> None:
    with LossyProxy(postgresql_server.port) as proxy:
        url = postgresql_url.replace(f":{postgresql_server.port}/", f":{proxy.port}/")
        backend = PostgresqlBackend(url)
        try:
            backend.writing().close()
            proxy.lose_answer_to(b"large value")
            digest = backend.artifacts.put(b"a large value")
            assert proxy.answer_lost.is_set()
            proxy.answer_lost.clear()
            proxy.lose_answer_to(b"FROM artifact WHERE")
            assert backend.artifacts.get(digest) == b"a large value"
            assert proxy.answer_lost.is_set()
        finally:
            backend.close()
