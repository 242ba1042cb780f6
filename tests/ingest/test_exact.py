"""One rule of the CloudEvents specification, or one of our choices, a line."""

import json
from typing import Any

import pytest

from ingest.faults import Fault
from ingest.limits import IngestLimits
from ingest.parse import Parser
from meterline.kernel.errors import PayloadTooLargeError, UnsupportedMediaError
from tests.ingest.messages import (
    BATCH,
    PLAIN,
    STRUCTURED,
    dump,
    event,
    faults_of,
    parse,
    parse_one,
)


@pytest.mark.parametrize(
    ("changes", "attribute"),
    [
        ({"id": None}, "id"),
        ({"id": ""}, "id"),
        ({"id": 7}, "id"),
        ({"id": "a\x00"}, "id"),
        ({"id": "a\x7f"}, "id"),
        ({"id": "a\x80"}, "id"),
        ({"id": "a\x9f"}, "id"),
        ({"type": "a\U0001fffe"}, "type"),
        ({"type": "a\U0010ffff"}, "type"),
        ({"type": "\ufdef"}, "type"),
        ({"source": "a b"}, "source"),
        ({"source": "http://[::1"}, "source"),
        ({"source": "1:2"}, "source"),
        ({"source": "%zz"}, "source"),
        ({"source": "é"}, "source"),
        ({"subject": None}, "subject"),
        ({"subject": ""}, "subject"),
        ({"subject": {}}, "subject"),
        ({"specversion": None}, "specversion"),
        ({"specversion": "1.0.2"}, "specversion"),
        ({"specversion": " 1.0"}, "specversion"),
        ({"specversion": ["1.0"]}, "specversion"),
        ({"time": ""}, "time"),
        ({"time": 1700000000}, "time"),
        ({"time": "2023-02-29T00:00:00Z"}, "time"),
        ({"time": "2024-01-01T24:00:00Z"}, "time"),
        ({"time": "2024-01-01T23:59:61Z"}, "time"),
        ({"time": "2024-01-01T23:59:59"}, "time"),
        ({"time": "2024-01-01T23:59:59.Z"}, "time"),
        ({"time": "2024-01-01T23:59:59+24:00"}, "time"),
        ({"time": "2024-01-01T23:59:59+0000"}, "time"),
        ({"time": "2024-01-01T23:59:59Z "}, "time"),
        ({"time": "2024-01-01T23:59:59Z\n"}, "time"),
        ({"time": "1899-12-31T23:59:59Z"}, "time"),
        ({"time": "1900-01-01T00:00:00+00:01"}, "time"),
        ({"time": "2200-01-01T00:00:00Z"}, "time"),
        ({"time": "2199-12-31T23:59:59-00:01"}, "time"),
        ({"time": "0000-01-01T00:00:00Z"}, "time"),
        ({"time": "2016-12-31T22:59:60Z"}, "time"),
        ({"time": "2017-06-30T23:59:60Z"}, "time"),
        ({"datacontenttype": "json"}, "datacontenttype"),
        ({"datacontenttype": " application/json"}, "datacontenttype"),
        ({"datacontenttype": "application/json; charset"}, "datacontenttype"),
        ({"datacontenttype": "text/plain", "data": {"a": 1}}, "data"),
        ({"datacontenttype": "text/plain", "data": 1}, "data"),
        ({"dataschema": ""}, "dataschema"),
        ({"dataschema": "/relative"}, "dataschema"),
        ({"dataschema": "https://x.example/s#fragment"}, "dataschema"),
        ({"dataschema": 5}, "dataschema"),
        ({"ext": 1.0}, "ext"),
        ({"ext": 2**31}, "ext"),
        ({"ext": 10**30}, "ext"),
        ({"ext": {}}, "ext"),
        ({"ext": "a\n"}, "ext"),
        ({"Ext": "a"}, "Ext"),
        ({"ext_a": "a"}, "ext_a"),
        ({"ext\n": "a"}, "ext\n"),
        ({"": "a"}, ""),
        ({"e\u0301xt": "a"}, "e\u0301xt"),
        ({"data": 1, "data_base64": ""}, "data_base64"),
        ({"data_base64": 5}, "data_base64"),
        ({"data_base64": "TWE"}, "data_base64"),
        ({"data_base64": "TWE=\n"}, "data_base64"),
        ({"data_base64": "TW E="}, "data_base64"),
        ({"data_base64": "T==="}, "data_base64"),
        ({"data_base64": "===="}, "data_base64"),
    ],
)
def test_refused(changes: dict[str, Any], attribute: str) -> None:
    for content_type, body in (
        (STRUCTURED, dump(event(**changes))),
        (BATCH, dump([event(), event(**changes), event()])),
    ):
        [fault] = faults_of(body, content_type)
        assert fault.attribute == attribute
        assert fault.index == (0 if content_type == STRUCTURED else 1)
        assert fault.reason


@pytest.mark.parametrize(
    ("changes", "canonical"),
    [
        ({}, {}),
        ({"subject": "é\u200b'\"\\<b>"}, {}),
        ({"source": "http://u:p@[::1]:8/%41?q#f"}, {}),
        ({"source": "?"}, {}),
        ({"time": "2024-02-29T23:59:59.123456789Z"}, {}),
        ({"time": "2024-02-29T23:59:59+23:59"}, {}),
        ({"time": "1900-01-01T00:00:00Z"}, {}),
        ({"time": "2199-12-31T23:59:59.999999Z"}, {}),
        ({"time": "2024-02-29t23:59:59.5z"}, {"time": "2024-02-29T23:59:59.5Z"}),
        ({"time": "2024-02-29T23:59:59.1234567891Z"}, {"time": "2024-02-29T23:59:59.123456789Z"}),
        ({"time": "2016-12-31T23:59:60Z"}, {"time": "2017-01-01T00:00:00Z"}),
        ({"time": "2017-01-01T05:29:60.25+05:30"}, {"time": "2017-01-01T00:00:00.25Z"}),
        ({"ext": -(2**31)}, {"ext": None, "_ext": {"ext": -(2**31)}}),
        ({"ext": ""}, {"ext": None, "_ext": {"ext": ""}}),
        ({"a1": False, "b": 2}, {"a1": None, "b": None, "_ext": {"a1": False, "b": 2}}),
        ({"dataschema": "urn:x"}, {"dataschema": None, "_ext": {"dataschema": "urn:x"}}),
        ({"data": {}}, {}),
        ({"data": [1]}, {"data": None, "_raw": "[1]"}),
        ({"data": "s"}, {"data": None, "_raw": '"s"'}),
        ({"data": False}, {"data": None, "_raw": "false"}),
        ({"data_base64": ""}, {}),
        ({"data_base64": "TWF="}, {}),
        ({"datacontenttype": "application/vnd.x+json", "data": {"a": 1}}, {}),
        ({"datacontenttype": "Text/JSON; v=1", "data": {"a": 1}}, {}),
        (
            {"datacontenttype": "text/plain", "data": "x"},
            {"data": None, "_raw": '"x"'},
        ),
    ],
)
def test_accepted(changes: dict[str, Any], canonical: dict[str, Any]) -> None:
    wanted = event(**{**changes, **canonical, "specversion": None})
    assert parse_one(dump(event(**changes))) == wanted
    [_, found] = json.loads(parse(dump([event(), event(**changes)]), BATCH).events)
    assert found == wanted


def test_null_means_not_there() -> None:
    body = dump(event())[:-1] + b',"time":null,"x":null}'
    assert parse_one(body) == event(specversion=None)
    null_data = body.replace(b'"x":null', b'"data":null')
    assert parse_one(null_data) == event(specversion=None, _raw="null")
    assert [fault.attribute for fault in faults_of(body.replace(b'"c"', b"null"))] == ["subject"]


@pytest.mark.parametrize(
    "data",
    [
        b'{"n":123456789012345678901234567890.1234567890}',
        b'{ "n" :\t1e400,\n"m":-0.0 }',
        b'{"a":1,"a":2}',
        b'{"s":"\\u00e9\\/\\n","t":"\xc3\xa9"}',
        b'{"":{"":[[],{}]}}',
    ],
)
@pytest.mark.parametrize("extra", [b"", b',"ext":"1"', b',"time":"2024-01-01T00:00:00+01:00"'])
def test_data_objects_are_kept_byte_for_byte(data: bytes, extra: bytes) -> None:
    body = dump(event())[:-1] + extra + b',"data":' + data + b"}"
    assert b'"data":' + data in parse(body).events


def test_other_data_is_kept_as_its_text() -> None:
    body = dump(event())[:-1] + b',"data": [ 1.50, "\\u00e9" ] }'
    assert parse_one(body)["_raw"] == '[ 1.50, "\\u00e9" ]'


@pytest.mark.parametrize(
    "body",
    [
        b'{"id":"1","id":"1","source":"/s","type":"t","subject":"c","specversion":"1.0"}',
        b'{"id":"1","\\u0069d":"2","source":"/s","type":"t","subject":"c","specversion":"1.0"}',
        b'{"id":"1","source":"/s","type":"t","subject":"c","specversion":"1.0","id":null}',
        # As many quotes as without the repeated member: two are spelled \u0022.
        b'{"id":"1","id":2,"source":"/s","type":"\\u0022\\u0022","subject":"c","specversion":"1.0"}',
    ],
)
def test_a_member_that_is_there_twice(body: bytes) -> None:
    assert "id" in [fault.attribute for fault in faults_of(body)]
    assert 1 in [
        fault.index for fault in faults_of(b"[" + dump(event()) + b"," + body + b"]", BATCH)
    ]


def test_a_repeated_member_of_other_names() -> None:
    body = dump(event())[:-1]
    for member in (b'"specversion":"1.0"', b'"data":{},"data":{}', b'"ext":"a","ext":"b"'):
        assert len(faults_of(body + b"," + member + b"}")) == 1, member


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b" \n",
        b"{",
        b"null",
        b"[]",
        b'"x"',
        b"\xef\xbb\xbf" + dump(event()),
        dump(event()) + b"x",
        dump(event()) + dump(event()),
        dump(event()).replace(b'"c"', b'"\xff"'),
        dump(event()).replace(b'"c"', b'"\xed\xa0\x80"'),
        dump(event()).replace(b'"c"', b'"\\ud800"'),
        dump(event()).replace(b'"c"', b'"\\udc00\\ud800"'),
        dump(event()).replace(b'"c"', b'"c\n"'),
        dump(event())[:-1] + b',"data":{"a":"\\ud83d"}}',
        dump(event())[:-1] + b',"data":{"a":"\xff"}}',
        dump(event())[:-1] + b',"data":{"a":NaN}}',
        dump(event())[:-1] + b',"data":{"a":01}}',
        dump(event())[:-1] + b',"data":{"a":1,}}',
        dump(event()).replace(b":", b"=", 1),
        dump(event()).decode().encode("utf-16"),
        b'{"a":' * 100_000 + b"1" + b"}" * 100_000,
        b"[" * 1_000_000,
    ],
)
def test_not_json_or_not_an_event(body: bytes) -> None:
    assert len(faults_of(body)) == 1
    assert len(faults_of(body, BATCH)) == 1 or body == b"[]"
    assert len(faults_of(body, PLAIN)) == 1 or body == b"[]"


def test_escapes_that_are_whole() -> None:
    body = dump(event()).replace(b'"c"', b'"\\ud83d\\ude00\\\\ud800"')
    assert parse_one(body)["subject"] == "\U0001f600\\ud800"


def test_every_bad_event_is_told_with_all_its_faults() -> None:
    batch = [event(), event(id=None, time="x"), 7, event(ext=[])]
    found = faults_of(dump(batch), BATCH)
    assert [(fault.index, fault.attribute) for fault in found] == [
        (1, "id"),
        (1, "time"),
        (2, None),
        (3, "ext"),
    ]
    assert [fault.where for fault in found][1:3] == ["events[1].time", "events[2]"]


def test_plain_json_may_leave_out_the_version_but_not_get_it_wrong() -> None:
    lenient = dump(event(specversion=None))
    assert parse_one(lenient, PLAIN) == event(specversion=None)
    assert parse(b" [" + lenient + b"]", PLAIN).count == 1
    assert parse(dump([event(), event(specversion=None)]), PLAIN).count == 2
    assert [f.attribute for f in faults_of(dump(event(specversion="0.3")), PLAIN)] == [
        "specversion"
    ]
    assert [f.attribute for f in faults_of(lenient)] == ["specversion"]


def test_an_empty_batch_holds_nothing() -> None:
    for body in (b"[]", b" [ ] "):
        for content_type in (BATCH, PLAIN):
            assert parse(body, content_type).count == 0


def test_a_subject_is_needed_only_when_the_setting_says_so() -> None:
    body = dump(event(subject=None))
    assert [fault.attribute for fault in faults_of(body)] == ["subject"]
    assert faults_of(body, limits=IngestLimits(require_subject=False)) == []


@pytest.mark.parametrize(
    ("limits", "good", "bad"),
    [
        (IngestLimits(max_depth=3), {"data": {"a": {"b": {}}}}, {"data": {"a": {"b": [[]]}}}),
        (IngestLimits(max_depth=128), {"data": "[" * 200}, None),
        (IngestLimits(max_members=3), {"data": {"a": [1, 2]}}, {"data": {"a": [1, 2], "b": 1}}),
        (IngestLimits(max_members=3), {"data": ["a,b,c,d,[,{", '"', "\\"]}, {"data": [1, 2, 3, 4]}),
        (IngestLimits(max_number_digits=5), {"data": {"a": 12345}}, {"data": {"a": 123456}}),
        (IngestLimits(max_number_digits=5), {"data": {"a": "123456"}}, {"data": {"a": -12345}}),
        (IngestLimits(max_attribute_length=20), {"id": "a" * 20}, {"id": "a" * 21}),
        (IngestLimits(max_attribute_length=20), {"ext": "é" * 20}, {"ext": "é" * 21}),
        (IngestLimits(max_attribute_name_length=3), {"abc": "1"}, {"abcd": "1"}),
        (IngestLimits(max_extensions=2), {"a": 1, "b": 1}, {"a": 1, "b": 1, "c": 1}),
    ],
)
def test_limits_of_an_event_at_their_edges(
    limits: IngestLimits, good: dict[str, Any], bad: dict[str, Any] | None
) -> None:
    for padding in ({}, {"x1": "slow"}) if "a" not in good else ({},):
        assert faults_of(dump(event(**good, **padding)), limits=limits) == []
        if bad is not None:
            assert len(faults_of(dump(event(**bad, **padding)), limits=limits)) == 1
            assert len(faults_of(dump([event(**bad)] * 2), BATCH, limits=limits)) == 2


def test_the_default_depth_at_its_edge() -> None:
    body = dump(event())[:-1]
    nested = [b',"data":{"a":' + b"[" * n + b"]" * n + b"}}" for n in (127, 128)]
    assert faults_of(body + nested[0]) == []
    assert [fault.attribute for fault in faults_of(body + nested[1])] == ["data"]


def test_the_length_of_a_batch_at_its_edge() -> None:
    limits = IngestLimits(max_batch_events=3)
    assert parse(dump([event()] * 3), BATCH, limits).count == 3
    with pytest.raises(PayloadTooLargeError):
        parse(dump([event()] * 4), BATCH, limits)


def test_an_event_of_many_members_is_refused_quickly() -> None:
    members = b",".join(b'"a%d":1' % number for number in range(200_000))
    assert len(faults_of(dump(event())[:-1] + b"," + members + b"}")) == 1
    same = b",".join([b'"\\u0022a":1'] * 200_000)
    assert len(faults_of(dump(event())[:-1] + b"," + same + b"}")) == 1


def test_media_types() -> None:
    body, one = dump([event()]), dump(event())
    assert parse(body, b"Application/CloudEvents-Batch+JSON ; Charset=UTF-8").count == 1
    assert parse(one, b'application/cloudevents+json;charset="utf-8"').count == 1
    for content_type in (
        b"application/cloudevents+json; charset=latin-1",
        b"application/json; charset=utf-16",
        b"application/cloudevents+xml",
        b"application/cloudevents",
        b"text/plain",
        b"json",
        b"",
        b"application/json, application/json",
        b"\xff\xfe",
    ):
        with pytest.raises(UnsupportedMediaError):
            parse(one, content_type)
    with pytest.raises(UnsupportedMediaError):
        Parser(IngestLimits()).parse([], None, one)


def test_faults_on_the_wire() -> None:
    assert Fault(3, "time", "is bad").as_json() == {
        "index": 3,
        "attribute": "time",
        "reason": "is bad",
        "where": "events[3].time",
    }
    assert Fault(None, None, "is bad").where == "body"
