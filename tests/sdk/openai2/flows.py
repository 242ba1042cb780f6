"""The tracked client over the openai package of this environment: `flows.py URL`."""

import sys

import openai

from meterline_sdk import Meterline
from meterline_sdk.tracked import TrackedOpenAI

ASKED = [{"role": "user", "content": "Say hello to my friend"}]


def main(url: str) -> None:
    """Call everything that costs; what was recorded is looked at by whoever runs this."""
    with (
        Meterline(url) as meterline,
        TrackedOpenAI(meterline, api_key="k", base_url=f"{url}/v1", max_retries=0) as client,
    ):
        answer = client.chat.completions.create(model="m", messages=ASKED, user_id="create")
        assert answer.choices[0].message.content == "Hello there, friend"
        stream = client.chat.completions.create(
            model="m", messages=ASKED, stream=True, user_id="stream"
        )
        text = "".join(chunk.choices[0].delta.content or "" for chunk in stream)
        assert text == "Hello there, friend"
        with client.chat.completions.stream(model="m", messages=ASKED, user_id="helper") as helper:
            assert helper.get_final_completion().choices[0].message.content == text
        client.responses.create(model="m", input="Say hello", user_id="responses")
        with client.responses.stream(model="m", input="Say hello", user_id="events") as events:
            assert events.get_final_response().output_text == text
        raw = client.chat.completions.with_raw_response.create(
            model="m", messages=ASKED, user_id="raw"
        )
        assert raw.parse().choices[0].message.content == text
        client.embeddings.create(
            model="m", input="hello", encoding_format="float", user_id="embeddings"
        )
    print(openai.__version__)


if __name__ == "__main__":
    main(sys.argv[1])
