"""MongoDB: a listener's model gets what the process that added it reads of a document, or nothing."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pymongo
import pytest
from bson.codec_options import CodecOptions

from pinnacle import ComponentError, Listener, model, pinnacle
from pinnacle.backends.mongodb import Collection
from tests.models import CALLS, note

MOMENT = datetime(2026, 1, 2, 3, 4, 5)
QUERY = Collection("docs").find()


@model(output_type=str)
def year(moment: datetime) -> str:
    note(moment)
    return str(moment)


def test_documents_that_are_read_otherwise_are_other_inputs(mongodb_url):
    CALLS.clear()
    aware: CodecOptions[Any] = CodecOptions(tz_aware=True)
    with pymongo.MongoClient[Any](mongodb_url) as client:
        name = client.get_default_database().name
        client[name].docs.insert_one({"_id": 1, "at": MOMENT})
        with pinnacle(client.get_database(name, codec_options=aware)) as db:
            assert year.predict(X="at", db=db, select=QUERY, output="told").written == 1
            assert year.predict(X="at", db=db, select=QUERY, output="told").fresh == 1
            listener = db.add(Listener(model=year, key="at", select=QUERY, output="kept"))
            with pinnacle(mongodb_url) as other:
                with pytest.raises(ComponentError, match=r"tz_aware='UTC' and are read without codec_options here"):
                    other.fresh(listener.identifier)
                assert year.predict(X="at", db=other, select=QUERY, output="told").written == 1
            with pinnacle(f"{mongodb_url}{'&' if '?' in mongodb_url else '?'}tz_aware=true") as other:
                other.listen()
                other.drain(timeout_s=600)
            assert db.fresh(listener.identifier).fresh == 1
    assert [MOMENT.replace(tzinfo=UTC), MOMENT, MOMENT.replace(tzinfo=UTC)] == CALLS
