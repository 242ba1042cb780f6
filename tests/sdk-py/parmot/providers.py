"""A loopback server that speaks OpenAI's, Anthropic's and Cohere's chat APIs, as far as is needed.

Each call uses 7 input and 5 output tokens.
"""

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

INPUT, OUTPUT = 7, 5
_USAGE = {"prompt_tokens": INPUT, "completion_tokens": OUTPUT, "total_tokens": INPUT + OUTPUT}


def _openai(body: dict[str, Any]) -> list[Any] | dict[str, Any]:
    base = {"id": "chatcmpl-1", "created": 1, "model": body["model"]}
    if not body.get("stream"):
        choice = {
            "index": 0,
            "finish_reason": "stop",
            "message": {"role": "assistant", "content": "hi"},
        }
        return {**base, "object": "chat.completion", "choices": [choice], "usage": _USAGE}
    assert body["stream_options"]["include_usage"]
    chunk = {**base, "object": "chat.completion.chunk"}
    delta = {"index": 0, "finish_reason": None, "delta": {"role": "assistant", "content": "hi"}}
    return [
        (None, {**chunk, "choices": [delta], "usage": None}),
        (None, {**chunk, "choices": [], "usage": _USAGE}),
        (None, "[DONE]"),
    ]


def _anthropic(body: dict[str, Any]) -> list[Any] | dict[str, Any]:
    message = {
        "id": "msg_1",
        "type": "message",
        "role": "assistant",
        "model": body["model"],
        "stop_sequence": None,
    }
    if not body.get("stream"):
        return {
            **message,
            "content": [{"type": "text", "text": "hi"}],
            "stop_reason": "end_turn",
            "usage": {"input_tokens": INPUT, "output_tokens": OUTPUT},
        }
    start = {
        **message,
        "content": [],
        "stop_reason": None,
        "usage": {"input_tokens": INPUT, "output_tokens": 1},
    }
    events = [
        {"type": "message_start", "message": start},
        {
            "type": "content_block_start",
            "index": 0,
            "content_block": {"type": "text", "text": ""},
        },
        {
            "type": "content_block_delta",
            "index": 0,
            "delta": {"type": "text_delta", "text": "hi"},
        },
        {"type": "content_block_stop", "index": 0},
        {
            "type": "message_delta",
            "delta": {"stop_reason": "end_turn", "stop_sequence": None},
            "usage": {"output_tokens": OUTPUT},
        },
        {"type": "message_stop"},
    ]
    return [(one["type"], one) for one in events]


def _cohere(body: dict[str, Any]) -> list[Any] | dict[str, Any]:
    usage = {
        "billed_units": {"input_tokens": INPUT, "output_tokens": OUTPUT},
        "tokens": {"input_tokens": INPUT + 60, "output_tokens": OUTPUT},
    }
    if not body.get("stream"):
        content = [{"type": "text", "text": "hi"}]
        return {
            "id": "c1",
            "finish_reason": "COMPLETE",
            "message": {"role": "assistant", "content": content},
            "usage": usage,
        }
    delta = {"message": {"role": "assistant", "content": []}}
    return [
        ("message-start", {"type": "message-start", "id": "c1", "delta": delta}),
        (
            "message-end",
            {"type": "message-end", "delta": {"finish_reason": "COMPLETE", "usage": usage}},
        ),
    ]


_PATHS = {
    "/v1/chat/completions": _openai,
    "/v1/messages": _anthropic,
    "/v2/chat": _cohere,
}


class _Handler(BaseHTTPRequestHandler):
    def do_POST(self) -> None:  # noqa: N802
        body = json.loads(self.rfile.read(int(self.headers["content-length"])))
        answer = _PATHS[self.path.partition("?")[0]](body)
        if isinstance(answer, dict):
            text, kind = json.dumps(answer), "application/json"
        else:
            kind = "text/event-stream"
            text = "".join(
                (f"event: {name}\n" if name else "")
                + f"data: {one if isinstance(one, str) else json.dumps(one)}\n\n"
                for name, one in answer
            )
        self.send_response(200)
        self.send_header("content-type", kind)
        self.send_header("content-length", str(len(text)))
        self.end_headers()
        self.wfile.write(text.encode())

    def log_message(self, *_: object) -> None:
        pass


@contextmanager
def providers() -> Iterator[str]:
    """The URL of the server, which runs until the block ends."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), _Handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
