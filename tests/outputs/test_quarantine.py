from __future__ import annotations

import json

import pytest

from neows_async.endpoints.browse.envelope import pointer
from neows_async.outputs.quarantine import QuarantineSink
from neows_async.pages.values import RawPage
from neows_async.pipeline.admission import Admission
from tests.decoded_pages import MemoryStage, pages, received
from tests.neos import catalogue, neo

# Text, reason, pointer within the object, id.
BAD = [
    ('{"id":"7", "name":5, "x": 1.50}', "not a string: 5", ("name",), "7"),
    ('{"name":"\u00e9"}', "neither id nor neo_reference_id is given", (), None),
    (
        '{"id":"\u2028","name":"a\\nb","close_approach_data":[{},{"orbiting_body":1}]}',
        "not a string: 1",
        ("close_approach_data", 1, "orbiting_body"),
        None,
    ),
    ('{"id":"8","name":"\\ud800"}', "not Unicode text: '\\ud800'", ("name",), "8"),
    ('{"id":"9","name":"n","absolute_magnitude_h":NaN}', "not a finite number: nan", ("absolute_magnitude_h",), "9"),
    ('"\\u0000"', "not an object", (), None),
]


def body(texts: list[str], number: int) -> bytes:
    info = {"size": len(texts), "total_elements": len(texts) * (number + 1), "number": number}
    return f'{{"page":{json.dumps(info)},"near_earth_objects":[{", ".join(texts)}]}}'.encode()


async def test_each_rejected_object_is_one_line_with_reason_place_and_text() -> None:
    stage, sink = MemoryStage(), QuarantineSink()
    await sink.open(stage)
    good = json.dumps(neo(1))
    for number in (4, 5):
        await sink.write(received(RawPage(number, body([good, *(text for text, *_ in BAD)], number))))
    (file,) = await sink.finish()
    await sink.commit()
    assert (file.dataset, file.path, file.rows) == ("quarantine", "quarantine/rejected.jsonl", 2 * len(BAD))
    lines = stage.files["quarantine/rejected.jsonl"].decode().split("\n")
    assert lines.pop() == ""
    assert [json.loads(line) for line in lines] == [
        {
            "page": number,
            "position": number * (len(BAD) + 1) + index,
            "id": id_,
            "reason": reason,
            "pointer": pointer("near_earth_objects", index, *path),
            "raw": text,
        }
        for number in (4, 5)
        for index, (text, reason, path, id_) in enumerate(BAD, 1)
    ]


async def test_without_rejected_objects_there_is_no_file() -> None:
    stage, sink = MemoryStage(), QuarantineSink()
    await sink.open(stage)
    for page in pages(catalogue(40)):
        await sink.write(page)
    assert await sink.finish() == ()
    assert not stage.begun


async def test_objects_beyond_the_limit_are_not_written() -> None:
    stage, sink = MemoryStage(), QuarantineSink()
    await sink.open(stage)
    (page,) = pages([neo(0, name=None), neo(1, name=None)])
    await sink.write(Admission(limit=1, max_rejects=None).admit(page))
    (file,) = await sink.finish()
    assert file.rows == 1


async def test_write_before_open_raises() -> None:
    (page,) = pages([neo(0, name=None)])
    with pytest.raises(RuntimeError, match="before open"):
        await QuarantineSink().write(page)
