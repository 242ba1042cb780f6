"""A loopback server that speaks each provider's wire format, and Meterline's check and track."""

import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

CHAT_USAGE = {
    "prompt_tokens": 11,
    "completion_tokens": 7,
    "total_tokens": 18,
    "prompt_tokens_details": {"cached_tokens": 4},
    "completion_tokens_details": {"reasoning_tokens": 2},
}
RESPONSE_USAGE = {
    "input_tokens": 12,
    "input_tokens_details": {"cached_tokens": 5},
    "output_tokens": 6,
    "output_tokens_details": {"reasoning_tokens": 1},
    "total_tokens": 18,
}
ANTHROPIC_USAGE = {
    "input_tokens": 9,
    "cache_creation_input_tokens": 3,
    "cache_read_input_tokens": 2,
    "output_tokens": 8,
}
COHERE_USAGE = {
    "billed_units": {"input_tokens": 6, "output_tokens": 5},
    "tokens": {"input_tokens": 70, "output_tokens": 5},
}
GOOGLE_USAGE = {
    "promptTokenCount": 10,
    "candidatesTokenCount": 9,
    "thoughtsTokenCount": 3,
    "totalTokenCount": 22,
}
WORDS = ("Hello", " there", ", friend")


class Stub:
    """What was asked, and what to answer."""

    def __init__(self) -> None:
        self.checks: list[dict[str, Any]] = []
        self.tracked: list[dict[str, Any]] = []
        self.calls: list[tuple[str, dict[str, Any]]] = []
        self.released: list[str] = []
        self.failures = 0
        """How many more calls of a provider fail, and records are refused for now."""
        self.gate = threading.Event()
        """Providers answer when it is set."""
        self.gate.set()
        self.refusal: tuple[int, dict[str, Any]] | None = None
        self.change: Callable[[dict[str, Any]], dict[str, Any]] = lambda answer: answer
        """What else becomes of a whole answer of a provider."""
        self.url = ""


def chat(body: dict[str, Any]) -> Any:
    message: dict[str, Any] = {"role": "assistant", "content": "".join(WORDS)}
    if body.get("tools"):
        function = {"name": "look_up", "arguments": '{"q":"weather"}'}
        message["tool_calls"] = [{"id": "call_1", "type": "function", "function": function}]
    return {
        "id": "chatcmpl-1",
        "object": "chat.completion",
        "created": 1,
        "model": f"{body['model']}-2024-08-06",
        "choices": [{"index": 0, "message": message, "finish_reason": "stop", "logprobs": None}],
        "usage": CHAT_USAGE,
    }


def chat_chunks(body: dict[str, Any]) -> Iterator[str]:
    base = {
        "id": "chatcmpl-1",
        "object": "chat.completion.chunk",
        "created": 1,
        "model": f"{body['model']}-2024-08-06",
    }
    for word in WORDS:
        delta = {"index": 0, "delta": {"content": word}, "finish_reason": None}
        yield json.dumps({**base, "choices": [delta]})
    end = {"index": 0, "delta": {}, "finish_reason": "stop"}
    yield json.dumps({**base, "choices": [end]})
    if (body.get("stream_options") or {}).get("include_usage"):
        yield json.dumps({**base, "choices": [], "usage": CHAT_USAGE})
    yield "[DONE]"


def response(body: dict[str, Any], status: str = "completed") -> dict[str, Any]:
    content = [{"type": "output_text", "text": "".join(WORDS), "annotations": []}]
    message = {
        "type": "message",
        "id": "msg_1",
        "role": "assistant",
        "status": "completed",
        "content": content,
    }
    return {
        "id": "resp_1",
        "object": "response",
        "created_at": 1,
        "model": body["model"],
        "status": status,
        "output": [message] if status == "completed" else [],
        "parallel_tool_calls": True,
        "tool_choice": "auto",
        "tools": [],
        "usage": RESPONSE_USAGE if status == "completed" else None,
    }


def response_events(body: dict[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    place = {"item_id": "msg_1", "output_index": 0, "content_index": 0}
    yield "response.created", {"response": response(body, "in_progress"), "sequence_number": 0}
    item = {
        "id": "msg_1",
        "type": "message",
        "role": "assistant",
        "status": "in_progress",
        "content": [],
    }
    yield (
        "response.output_item.added",
        {"item": item, "output_index": 0, "sequence_number": 1},
    )
    part = {"type": "output_text", "text": "", "annotations": []}
    yield "response.content_part.added", {**place, "part": part, "sequence_number": 2}
    for number, word in enumerate(WORDS):
        yield (
            "response.output_text.delta",
            {**place, "delta": word, "logprobs": [], "sequence_number": 3 + number},
        )
    yield "response.completed", {"response": response(body), "sequence_number": 9}


def message(body: dict[str, Any], usage: dict[str, Any], text: str) -> dict[str, Any]:
    return {
        "id": "msg_a",
        "type": "message",
        "role": "assistant",
        "model": body["model"],
        "content": [{"type": "text", "text": text}] if text else [],
        "stop_reason": "end_turn" if text else None,
        "stop_sequence": None,
        "usage": usage,
    }


def message_events(body: dict[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    first = {**ANTHROPIC_USAGE, "output_tokens": 1}
    yield "message_start", {"message": message(body, first, "")}
    yield "content_block_start", {"index": 0, "content_block": {"type": "text", "text": ""}}
    for word in WORDS:
        yield "content_block_delta", {"index": 0, "delta": {"type": "text_delta", "text": word}}
    yield "content_block_stop", {"index": 0}
    yield (
        "message_delta",
        {
            "delta": {"stop_reason": "end_turn", "stop_sequence": None},
            "usage": {"output_tokens": ANTHROPIC_USAGE["output_tokens"]},
        },
    )
    yield "message_stop", {}


def cohere_events() -> Iterator[tuple[str, dict[str, Any]]]:
    yield "message-start", {"id": "c1", "delta": {"message": {"role": "assistant"}}}
    for word in WORDS:
        yield "content-delta", {"index": 0, "delta": {"message": {"content": {"text": word}}}}
    yield "message-end", {"delta": {"finish_reason": "COMPLETE", "usage": COHERE_USAGE}}


def generated(text: str, usage: dict[str, Any], reason: str | None = None) -> dict[str, Any]:
    candidate: dict[str, Any] = {"content": {"role": "model", "parts": [{"text": text}]}}
    if reason:
        candidate["finishReason"] = reason
    return {
        "candidates": [candidate],
        "usageMetadata": usage,
        "modelVersion": "gemini-2.5-flash",
        "responseId": "g1",
    }


def generated_chunks() -> Iterator[str]:
    for number, word in enumerate(WORDS):
        last = number == len(WORDS) - 1
        usage = GOOGLE_USAGE if last else {**GOOGLE_USAGE, "candidatesTokenCount": number + 1}
        yield json.dumps(generated(word, usage, "STOP" if last else None))


def allowed(body: dict[str, Any]) -> dict[str, Any]:
    if not body.get("hold"):
        return {"allowed": True}
    names = {"tokens": "meterline_tokens", "costUsd": "meterline_cost_usd"}
    holds = [
        {"id": f"c1.{names[name]}", "featureKey": names[name], "amount": amount}
        for name, amount in body["estimate"].items()
    ]
    return {"allowed": True, "checkId": "c1", "holds": holds}


def handler(stub: Stub) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["content-length"])))
            path = self.path.split("?")[0]
            if path == "/api/v1/check":
                stub.checks.append(body)
                status, answer = stub.refusal or (200, allowed(body))
                self._json(answer, status)
            elif path == "/api/v1/cost":
                self._json({"priced": "catalogue", "costUsd": 0.25})
            elif path.endswith("/release"):
                stub.released.append(path.split("/")[-2])
                self._json({"status": 409, "title": "it has expired"}, 409)
            elif self._fails():
                self._json({"error": {"message": "not now"}}, 503)
            elif path == "/api/v1/track":
                stub.tracked.append(body)
                self._json({})
            else:
                stub.calls.append((path, body))
                stub.gate.wait(30)
                self._provide(path, body)

        def _whole(self, answer: dict[str, Any]) -> None:
            self._json(stub.change(answer))

        def _fails(self) -> bool:
            stub.failures -= 1
            return stub.failures >= 0

        def _provide(self, path: str, body: dict[str, Any]) -> None:
            stream = body.get("stream")
            if path == "/v1/chat/completions":
                self._events(chat_chunks(body)) if stream else self._whole(chat(body))
            elif path == "/v1/responses":
                self._typed(response_events(body)) if stream else self._whole(response(body))
            elif path == "/v1/embeddings":
                usage = {"prompt_tokens": 8, "total_tokens": 8}
                data = [{"object": "embedding", "index": 0, "embedding": [0.5]}]
                self._whole(
                    {"object": "list", "model": body["model"], "data": data, "usage": usage}
                )
            elif path == "/v1/messages":
                whole = message(body, ANTHROPIC_USAGE, "".join(WORDS))
                self._typed(message_events(body)) if stream else self._whole(whole)
            elif path == "/v2/chat":
                text = {"role": "assistant", "content": [{"type": "text", "text": "Hello"}]}
                whole = {
                    "id": "c1", "finish_reason": "COMPLETE", "message": text, "usage": COHERE_USAGE,
                }  # fmt: skip
                self._typed(cohere_events()) if stream else self._whole(whole)
            elif path == "/v2/embed":
                meta = {"billed_units": {"input_tokens": 4}}
                self._whole({"id": "e1", "embeddings": {"float": [[0.5]]}, "meta": meta})
            elif path == "/v2/rerank":
                meta = {"billed_units": {"search_units": 1}}
                results = [{"index": 0, "relevance_score": 0.5}]
                self._whole({"id": "r1", "results": results, "meta": meta})
            elif path.endswith(":batchEmbedContents"):
                self._whole({"embeddings": [{"values": [0.5]}]})
            elif path.endswith(":generateContent"):
                self._whole(generated("".join(WORDS), GOOGLE_USAGE, "STOP"))
            elif path.endswith(":streamGenerateContent"):
                self._events(generated_chunks())
            else:
                self._json({"error": path}, 404)

        def _json(self, value: Any, status: int = 200) -> None:
            content = json.dumps(value).encode()
            self.send_response(status)
            self.send_header("content-type", "application/json")
            self.send_header("content-length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        def _typed(self, events: Iterator[tuple[str, dict[str, Any]]]) -> None:
            self._begin()
            for kind, body in events:
                data = json.dumps({"type": kind, **body})
                self._chunk(f"event: {kind}\ndata: {data}\n\n")
            self._chunk("")

        def _events(self, events: Iterator[str]) -> None:
            self._begin()
            for data in events:
                self._chunk(f"data: {data}\n\n")
            self._chunk("")

        def _begin(self) -> None:
            self.send_response(200)
            self.send_header("content-type", "text/event-stream")
            self.send_header("transfer-encoding", "chunked")
            self.end_headers()

        def _chunk(self, text: str) -> None:
            try:
                self.wfile.write(b"%x\r\n%b\r\n" % (len(text.encode()), text.encode()))
                self.wfile.flush()
            except OSError:
                self.close_connection = True

        def log_message(self, *_: Any) -> None:
            """Nothing."""

    return Handler


class Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 128


@contextmanager
def serving() -> Iterator[Stub]:
    """The server, on loopback."""
    stub = Stub()
    with Server(("127.0.0.1", 0), handler(stub)) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        stub.url = f"http://127.0.0.1:{server.server_port}"
        try:
            yield stub
        finally:
            server.shutdown()
            thread.join()
