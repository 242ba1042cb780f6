"""What users of `parmot` do, unmodified: `python flows.py URL KEY`. Prints a line for each flow."""

import os
import sys
import uuid
from collections.abc import Callable

from providers import INPUT, OUTPUT, providers

URL, KEY = sys.argv[1:3]
os.environ["PARMOT_API_BASE_URL"] = URL
os.environ["PARMOT_API_KEY"] = KEY

import parmot  # noqa: E402

CALL = INPUT + OUTPUT
client = parmot.ParmotClient()
run = uuid.uuid4().hex[:8]


def plans() -> None:
    name = f"Pro plan {run}"
    made = client.create_end_user_plan(
        name, monthly_token_limit=1000, monthly_cost_limit=12.5, rate_limit_per_minute=60,
        description="for teams",
    )  # fmt: skip
    found = client.get_end_user_plan(name)
    assert found is not None and found.id == made.plan_id and isinstance(found.id, int)
    assert (found.name, found.description, found.is_active) == (name, "for teams", True)
    assert (found.monthly_token_limit, found.monthly_cost_limit) == (1000, 12.5)
    assert (found.rate_limit_per_minute, found.rate_limit_per_hour) == (60, None)
    assert client.update_end_user_plan(name, rate_limit_per_day=7) is True
    found = client.get_end_user_plan(name)
    assert found is not None
    assert (found.rate_limit_per_day, found.monthly_token_limit) == (7, 1000)
    assert name in [one.name for one in client.get_all_end_user_plans()]
    assert client.delete_end_user_plan(name) is True
    assert client.delete_end_user_plan(name) is False
    assert client.update_end_user_plan(name, description="x") is False
    assert client.get_end_user_plan(name) is None
    try:
        client.create_end_user_plan("")
    except parmot.ParmotValidationError as error:
        assert "name" in str(error)
    else:
        raise AssertionError("an empty name was taken")


def assignments() -> None:
    user, name = f"user-{run}", f"basic-{run}"
    assert client.get_end_user_plan_assignment(user) is None
    assert client.assign_end_user_to_plan(user, name) is False
    client.create_end_user_plan(name, rate_limit_per_hour=9)
    assert client.assign_end_user_to_plan(user, name) is True
    found = client.get_end_user_plan_assignment(user)
    assert found is not None and (found.name, found.rate_limit_per_hour) == (name, 9)
    try:
        client.delete_end_user_plan(name)
    except parmot.ParmotAPIError as error:
        assert error.status_code == 409
    else:
        raise AssertionError("a plan that somebody has was deleted")
    assert client.remove_end_user_from_plan(user) is True
    assert client.remove_end_user_from_plan(user) is False
    assert client.delete_end_user_plan(name) is True


def usage_limits() -> None:
    user, name = f"limited-{run}", f"small-{run}"
    client.create_end_user_plan(name, monthly_token_limit=2 * CALL + 1)
    client.assign_end_user_to_plan(user, name)
    with providers() as url:
        openai = parmot.TrackedOpenAI(api_key="x", base_url=f"{url}/v1")
        ask = {"model": "gpt-4o", "messages": [{"role": "user", "content": "hi"}]}
        for _ in range(2):
            assert client.check_end_user_usage_limits(user) is True
            done = openai.chat.completions.create(user_id=user, **ask)
            assert done.choices[0].message.content == "hi"
        assert client.check_end_user_usage_limits(user) is True
        try:
            openai.chat.completions.create(user_id=user, **ask)
        except parmot.ParmotEndUserUsageLimitError as error:
            assert (error.limit, error.limit_type) == (2 * CALL + 1, "tokens")
            assert error.current_usage == 2 * CALL
        else:
            raise AssertionError("the limit was passed in silence")
    try:
        client.check_end_user_usage_limits(user)
    except parmot.ParmotEndUserUsageLimitError as error:
        assert error.current_usage == 3 * CALL, "it was recorded all the same"
    else:
        raise AssertionError("a used-up plan was let through")
    found = client.get_end_user_usage_summary(user)
    assert (found.end_user_id, found.total_requests, found.total_tokens) == (user, 3, 3 * CALL)
    assert (found.total_prompt_tokens, found.total_completion_tokens) == (3 * INPUT, 3 * OUTPUT)
    assert found.current_month_tokens == 3 * CALL
    # gpt-4o at its real price of 2.5 and 10 dollars a million, not at that of parmot's table.
    assert abs(found.total_cost - 3 * (INPUT * 2.5 + OUTPUT * 10) / 1e6) < 1e-12
    assert client.get_end_user_usage_summary().total_requests >= 3


def rate_limits() -> None:
    user, name = f"fast-{run}", f"slow-{run}"
    client.create_end_user_plan(name, rate_limit_per_minute=2)
    client.assign_end_user_to_plan(user, name)
    with providers() as url:
        anthropic = parmot.TrackedAnthropic(api_key="x", base_url=url)
        ask = {"model": "claude-3-5-haiku-20241022", "max_tokens": 9,
               "messages": [{"role": "user", "content": "hi"}]}  # fmt: skip
        for _ in range(2):
            assert anthropic.messages.create(user_id=user, **ask).usage.output_tokens == OUTPUT
        for refused in (
            lambda: anthropic.messages.create(user_id=user, **ask),
            lambda: client.check_end_user_usage_limits(user),
        ):
            try:
                refused()
            except parmot.ParmotEndUserRateLimitError as error:
                assert (error.current_rate, error.limit, error.window) == (2, 2, "minute")
                assert 1 <= error.retry_after <= 60
            else:
                raise AssertionError("a third request within a minute went through")


def tracked_clients() -> None:
    user = f"tracked-{run}"
    messages = [{"role": "user", "content": "hi"}]
    with providers() as url:
        openai = parmot.TrackedOpenAI(api_key="x", base_url=f"{url}/v1")
        stream = openai.chat.completions.create(
            model="gpt-4o", messages=messages, user_id=user, stream=True
        )
        assert [one.choices[0].delta.content for one in stream if one.choices] == ["hi"]
        anthropic = parmot.TrackedAnthropic(api_key="x", base_url=url)
        events = anthropic.messages.create(
            model="claude-3-5-haiku-20241022", max_tokens=9, messages=messages, user_id=user,
            stream=True,
        )  # fmt: skip
        assert "message_stop" in [one.type for one in events]
        cohere = parmot.TrackedCohere(api_key="x", base_url=url)
        cohere.chat(model="command-r-plus-08-2024", messages=messages, user_id=user)
        list(cohere.chat_stream(model="no-such-model", messages=messages, user_id=user))
    found = client.get_end_user_usage_summary(user)
    assert (found.total_requests, found.total_tokens) == (4, 4 * CALL)


FLOWS: list[Callable[[], None]] = [plans, assignments, usage_limits, rate_limits, tracked_clients]

for flow in FLOWS:
    flow()
    print(flow.__name__, flush=True)
